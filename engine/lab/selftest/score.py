"""What a selftest came to: every answer, the score in words, and the object that ``--json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from specscope.engine.lab.selftest.judge import Judgement


class NotRun(NamedTuple):
    """What could not be tried here. It is never counted as passed."""

    name: str
    why: str


class ControlResult(NamedTuple):
    """What a control came to."""

    name: str
    says: str
    silent: bool
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """Everything that was tried."""

    judgements: list[Judgement]
    controls: list[ControlResult]
    not_run: list[NotRun]
    edges: dict[str, bool]  # whether an honest run has been there; empty where only some faults were tried
    unreached: dict[str, str]  # edges that no scenario can reach, and why
    seconds: float

    @property
    def as_expected(self) -> bool:
        """Whether every fault that ran was found, placed and blamed as it must be, every control was silent, and every
        edge was reached, where edges were asked for."""
        return not (any(j.wrong for j in self.judgements) or self.missed_edges) and all(c.silent for c in self.controls)

    @property
    def missed_edges(self) -> list[str]:
        """Edges at which some run had to be, and none was: what lives there was not tried."""
        return [edge for edge, there in self.edges.items() if not there]

    @property
    def words(self) -> str:
        """The score on one line."""
        faults, controls = self.judgements, self.controls
        placed = [j for j in faults if j.placed is not None]
        attributable = [j for j in faults if j.attributable]
        silent_on = [j for j in faults if j.blamed is not None and not j.attributable]
        parts = [
            f"{sum(j.detected for j in faults)} of {len(faults)} faults detected",
            f"{sum(bool(j.placed) for j in placed)} of {len(placed)} at the expected phase",
            f"{sum(bool(j.blamed) for j in attributable)} of {len(attributable)} attributable ones blamed on the right"
            " side",
        ]
        if silent_on:
            parts.append(f"{sum(bool(j.blamed) for j in silent_on)} of {len(silent_on)} others blamed on nobody")
        quiet = f"{sum(c.silent for c in controls)} of {len(controls)} controls silent"
        return f"{', '.join(parts)}; {quiet}; {len(self.not_run)} not run"


def score_json(score: Score) -> dict[str, Any]:
    """The score as one JSON object."""
    return {
        "score": score.words,
        "as_expected": score.as_expected,
        "seconds": round(score.seconds, 1),
        "faults": [_fault_json(judgement) for judgement in score.judgements],
        "controls": [control._asdict() for control in score.controls],
        "not_run": [entry._asdict() for entry in score.not_run],
        "edges": score.edges,
        "edges_missed": score.missed_edges,
        "edges_not_reached": score.unreached,
    }


def _fault_json(judgement: Judgement) -> dict[str, Any]:
    fault = judgement.fault
    return {
        "id": fault.id,
        "dtype": judgement.dtype,
        "says": fault.says,
        "scenario": fault.scenario,
        "verdict": judgement.verdict,
        "detected": judgement.detected,
        "placed": judgement.placed,
        "blamed": judgement.blamed,
        "first": judgement.first,
        "blame": list(judgement.blame),
        "wrong": list(judgement.wrong),
    }
