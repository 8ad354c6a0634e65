"""Recorded drafts, verified by vLLM: a proposer for its public hook (``method: "custom_class"``).

    llm = LLM("teacher", **recorded_drafts("ours.jsonl"))
    with record_vllm(llm, trace="vllm.jsonl"):
        llm.generate(...)

What an engine drafted is looked up by the text so far. Where vLLM's teacher then accepts otherwise, the two verified
the same drafts with different results: a third opinion. Needs neither torch nor vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specscope.schemas import Step
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader

if TYPE_CHECKING:
    from _typeshed import StrPath

#: Of vLLM's ``additional_config``.
OPTION = "specscope_drafts"
#: What every step must have, so that its drafts can be looked up by the text before it.
NEEDED = ("tree.tokens", "stop.emitted", "stop.kept")


def recorded_drafts(trace: StrPath) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` by which it verifies the drafts of ``trace``, a run of chains.

    Raises:
        UsageError: where the trace has other trees, or not the token ids of its steps.
        TraceError: where it cannot be read.
    """
    with TraceReader(Path(trace)) as reader:
        manifest, policy = reader.manifest, reader.manifest.tree_policy
    if manifest.redaction is not None:
        raise UsageError("got a redacted trace, whose token ids the model does not know: wanted the original")
    missing = [name for name in NEEDED if {name, name.partition(".")[0]}.isdisjoint(manifest.capabilities)]
    if missing:
        raise UsageError(f"got a trace without {missing[0]}, wanted trees and outputs in every step")
    if policy.kind != "chain":
        raise UsageError(f"got drafts of kind {policy.kind}, wanted chains: vLLM verifies no trees")
    path = str(Path(trace).resolve())
    return {
        "speculative_config": {
            "method": "custom_class",
            "model": f"{RecordedDrafts.__module__}.{RecordedDrafts.__qualname__}",
            "num_speculative_tokens": policy.depth,
        },
        "additional_config": {OPTION: path},
    }


class RecordedDrafts:
    """vLLM's drafter: proposes what the trace drafted after the same tokens, and nothing after others."""

    def __init__(self, vllm_config: Any) -> None:
        with TraceReader(Path(vllm_config.additional_config[OPTION])) as reader:
            parts = reader.manifest.model_dump(include={"drafter", "tree_policy"}, exclude_none=True)
            self.recorded: dict[str, Any] = parts  # of the manifest of what verifies them
            self._chains = dict(_chains(reader))

    def load_model(self, *_: Any, **__: Any) -> None:
        """Has no model."""

    def propose(
        self, sampled_token_ids: list[list[int]], num_tokens_no_spec: Any, token_ids_cpu: Any, **_: Any
    ) -> list[list[int]]:
        """Per request of the batch, its next drafts; none where nothing was sampled, as within a prompt."""
        texts = [token_ids_cpu[row, : num_tokens_no_spec[row]].tolist() for row in range(len(sampled_token_ids))]
        asked = zip(sampled_token_ids, texts, strict=True)
        return [self._chains.get(tuple(text), []) if tokens else [] for tokens, text in asked]


def _chains(reader: TraceReader) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """The text before each step, root included, and what was drafted after it.

    Raises:
        UsageError: where a step lacks its tree or its output.
    """
    for entry in reader.turns:
        start = reader.turn_start(entry)
        text = [*start.prompt_ids, *start.first_output]
        for step in reader.steps(entry):
            yield tuple(text), _drafted(step)
            assert step.stop is not None
            text += step.stop.emitted[: step.stop.kept]


def _drafted(step: Step) -> list[int]:
    if step.tree is None or step.stop is None:
        raise UsageError(f"turn {step.turn}, step {step.step} lacks its tree or its output: nothing can be looked up")
    return step.tree.tokens[1:]
