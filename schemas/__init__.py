"""What is on disk: the versioned records of a trace and of a verdict, and their JSON Schema.

Imports nothing of the other rooms. Names of fields on disk exist here and nowhere else.
"""

from specscope.schemas.base import Digest, Float, Record, Section
from specscope.schemas.manifest import (
    Conventions,
    Device,
    Drafter,
    Manifest,
    Sampling,
    StopRules,
    Teacher,
    Tokenizer,
    TreePolicy,
)
from specscope.schemas.step import (
    AcceptSection,
    CommitSection,
    DraftInputs,
    DraftLevel,
    DraftSection,
    InvariantFailure,
    InvariantsSection,
    Step,
    StopSection,
    TensorFiles,
    TensorsSection,
    TimingSection,
    TreeSection,
    VerifySection,
    Visit,
)
from specscope.schemas.trace import AnyRecord, decode_record, encode_record, trace_json_schema
from specscope.schemas.turn import Failure, Prefill, RunEnd, TurnEnd, TurnStart
from specscope.schemas.version import SCHEMA_NAME, SCHEMA_VERSION, SchemaVersion

__all__ = [
    "SCHEMA_NAME",
    "SCHEMA_VERSION",
    "AcceptSection",
    "AnyRecord",
    "CommitSection",
    "Conventions",
    "Device",
    "Digest",
    "DraftInputs",
    "DraftLevel",
    "DraftSection",
    "Drafter",
    "Failure",
    "Float",
    "InvariantFailure",
    "InvariantsSection",
    "Manifest",
    "Prefill",
    "Record",
    "RunEnd",
    "Sampling",
    "SchemaVersion",
    "Section",
    "Step",
    "StopRules",
    "StopSection",
    "Teacher",
    "TensorFiles",
    "TensorsSection",
    "TimingSection",
    "Tokenizer",
    "TreePolicy",
    "TreeSection",
    "TurnEnd",
    "TurnStart",
    "VerifySection",
    "Visit",
    "decode_record",
    "encode_record",
    "trace_json_schema",
]
