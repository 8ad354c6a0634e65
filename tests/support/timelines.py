"""A pipelined run of any length, made by hand: every stage takes 1 ms, a hop none, and each fifth draft is refuted."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from support.pipeline_mutants import PIPELINE_RUN
from support.traces import Lines, load, store

STAGES, MS = 3, 1_000_000
#: Of so many drafts the last one is refuted.
PERIOD = 5


def interval(stage: int, activity: str, position: int, epoch: int, *, at: float, ms: float = 1.0) -> dict[str, Any]:
    """One piece of work that begins ``at`` ms."""
    times = {"start_ns": round(at * MS), "end_ns": round((at + ms) * MS)}
    return {"stage": stage, "activity": activity, "position": position, "epoch": epoch, **times}


class _Clock:
    """When the next token enters the first stage, and its place."""

    def __init__(self, position: int) -> None:
        self.at, self.position, self.epoch = 3.0, position, 1

    def section(self, number: int) -> dict[str, Any]:
        """Of the token with that number; what was in flight behind a refuted draft included."""
        held = number % PERIOD != PERIOD - 1
        position, epoch, at = self.position, self.epoch, self.at
        work = [interval(stage, "verify", position, epoch, at=at + stage) for stage in range(STAGES)]
        drops = []
        if not held:
            work += [
                interval(0, "verify", position + 1, epoch, at=at + 1),
                interval(1, "verify", position + 1, epoch, at=at + 2),
            ]
            work.append(interval(0, "verify", position + 2, epoch, at=at + 2))
            drops = [{"stage": 2, "position": position + 1, "epoch": epoch, "reason": "refuted"}]
        self.at, self.position, self.epoch = at + (1 if held else STAGES), position + 1, epoch + (not held)
        draft = {"draft_token": 7, "draft_prob": 0.5, "accepted": held}
        return {"position": position, "epoch": epoch, "intervals": work, "cuts": [], "drops": drops, **draft}


def timeline_lines(num_tokens: int) -> Lines:
    """The records of one turn."""
    lines = load(PIPELINE_RUN)
    start = next(line for line in lines if line["kind"] == "turn_start")
    step = next(line for line in lines if line["kind"] == "step")
    last = len(start["prompt_ids"]) - 1
    start["pipeline"] |= {
        "epoch": 1,
        "intervals": [interval(stage, "prefill", 0, 1, at=stage) for stage in range(STAGES)],
        "position": last,
        "accepted": True,
        "drops": [],
        "cuts": [],
    }
    clock = _Clock(last + 1)
    steps = [_step(step, number, clock.section(number)) for number in range(num_tokens)]
    end = next(line for line in lines if line["kind"] == "turn_end")
    end |= {"num_steps": num_tokens, "pipeline": {"intervals": [], "cuts": [], "drops": []}}
    every = [lines[0], start, *steps, end, lines[-1]]
    return [{**line, "seq": seq} for seq, line in enumerate(every)]


def _step(like: dict[str, Any], number: int, section: dict[str, Any]) -> dict[str, Any]:
    step = deepcopy(like)
    step["step"], step["pipeline"] = number, section
    return step


def write_timeline(path: Path, num_tokens: int) -> Path:
    """The trace of such a run."""
    return store(timeline_lines(num_tokens), path)
