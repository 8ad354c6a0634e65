"""Where the cells are decoded: instruction sets that stand in for other machines, threads, neighbours, processes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

#: What a process is started with that says nothing else.
PLAIN = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Setting:
    """One way to decode a cell."""

    name: str
    mode: Literal["eager", "fused"] = "fused"
    environment: dict[str, str] = field(default_factory=dict)
    other_batch: bool = False  # rows decoded side by side that are alone elsewhere, and the other way round

    def process_environment(self) -> dict[str, str]:
        """The whole environment of its process."""
        kept = {name: value for name, value in os.environ.items() if name not in ISA_VARIABLES}
        return kept | PLAIN | self.environment


ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
REFERENCE = Setting("eager", "eager")
CANDIDATE = Setting("fused")
OTHERS = (
    *(Setting(f"onednn-{isa}", environment={"ONEDNN_MAX_CPU_ISA": isa}) for isa in (
        "AVX2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_AMX"
    )),
    *(Setting(f"aten-{isa}", environment={"ATEN_CPU_CAPABILITY": isa}) for isa in ("default", "avx2", "avx512")),
    Setting("two-threads", environment={"OMP_NUM_THREADS": "2"}),
    Setting("other-batch", other_batch=True),
    Setting("other-process"),
)  # fmt: skip
SETTINGS = (REFERENCE, CANDIDATE, *OTHERS)


@dataclass(frozen=True)
class HonestPair:
    """Two settings of one cell, which differ in nothing but noise."""

    baseline: Setting
    candidate: Setting


def honest_pairs() -> list[HonestPair]:
    """The reference against every fused setting, and the fused one against every other."""
    return [
        *(HonestPair(REFERENCE, other) for other in (CANDIDATE, *OTHERS)),
        *(HonestPair(CANDIDATE, other) for other in OTHERS),
    ]
