"""A recorded pipelined run, and for each of its invariants a change that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.traces import Lines

#: Three stages, 20 tokens of the demo's teacher, with refuted and accepted drafts.
PIPELINE_RUN = Path(__file__).parents[1] / "tracer" / "traces" / "pipeline.jsonl"


def sections(lines: Lines) -> Iterator[dict[str, Any]]:
    """The pipeline sections of the records, in order."""
    return (line["pipeline"] for line in lines if "pipeline" in line and line["kind"] != "manifest")


def step_where(lines: Lines, accepted: bool) -> dict[str, Any]:
    """The first step whose draft was accepted, or was not."""
    return next(line for line in lines if line["kind"] == "step" and line["pipeline"]["accepted"] is accepted)


def interval_where(lines: Lines, **wanted: object) -> dict[str, Any]:
    """The last interval with these values."""
    every = [interval for section in sections(lines) for interval in section["intervals"]]
    chosen: dict[str, Any] = [i for i in every if all(i[name] == value for name, value in wanted.items())][-1]
    return chosen


def without_cuts(lines: Lines) -> None:
    for section in sections(lines):
        section["cuts"] = [cut for cut in section["cuts"] if cut["stage"] != 1]


def cut_too_far(lines: Lines) -> None:
    next(cut for section in sections(lines) for cut in section["cuts"])["length_after"] -= 1


def stale_item_counts(lines: Lines) -> None:
    """As if what the last stage dropped had been verified: the token is said to be of the older epoch."""
    drop = next(drop for section in sections(lines) for drop in section["drops"])
    step = next(s for s in sections(lines) if s["position"] == drop["position"])
    step["epoch"] = drop["epoch"]


def skips_a_stage(lines: Lines) -> None:
    for section in sections(lines):
        section["intervals"] = [
            i
            for i in section["intervals"]
            if not (i["stage"] == 1 and i["activity"] == "verify" and i["position"] == 10)
        ]


def runs_twice(lines: Lines) -> None:
    interval = interval_where(lines, stage=1, activity="verify", position=10)
    next(sections(lines))["intervals"].append(dict(interval))


def overtakes(lines: Lines) -> None:
    interval = interval_where(lines, stage=2, activity="verify", position=10)
    interval["start_ns"] = interval_where(lines, stage=0, activity="verify", position=10)["start_ns"]


def works_twice_at_once(lines: Lines) -> None:
    interval_where(lines, stage=0, activity="verify", position=11)["end_ns"] += 10**10


def on_devices(lines: Lines) -> None:
    """The same run, as if each stage had an accelerator."""
    lines[0]["pipeline"]["backend"] = "nccl"


def never_at_once(lines: Lines) -> None:
    """On separate devices, one after another all the same."""
    on_devices(lines)
    one_after_another(lines)


def one_after_another(lines: Lines) -> None:
    """The same work in the same order, and never two stages at once."""
    every = [interval for section in sections(lines) for interval in section["intervals"]]
    for number, interval in enumerate(sorted(every, key=lambda i: i["start_ns"])):
        interval["start_ns"], interval["end_ns"] = number * 10**9, number * 10**9 + 10**6


def drops_what_counts(lines: Lines) -> None:
    section = step_where(lines, accepted=True)["pipeline"]
    drop = {"stage": 1, "position": section["position"], "epoch": section["epoch"], "reason": "stale epoch"}
    section["drops"].append(drop)


PIPELINE_MUTANTS: dict[str, list[Callable[[Lines], Any]]] = {
    "pipeline.acceptance": [
        lambda lines: step_where(lines, accepted=True)["pipeline"].__setitem__("accepted", False),
        lambda lines: step_where(lines, accepted=False)["pipeline"].__setitem__("accepted", True),
        lambda lines: step_where(lines, accepted=True)["pipeline"].__setitem__("draft_token", 3),
        lambda lines: step_where(lines, accepted=True)["pipeline"].pop("draft_token"),
    ],
    "pipeline.epoch": [
        lambda lines: step_where(lines, accepted=True)["pipeline"].__setitem__("epoch", 9),
        stale_item_counts,
    ],
    "pipeline.position": [
        lambda lines: step_where(lines, accepted=True)["pipeline"].__setitem__("position", 3),
    ],
    "pipeline.custody": [skips_a_stage, runs_twice, overtakes],
    "pipeline.cuts": [without_cuts, cut_too_far],
    "pipeline.dropped": [drops_what_counts, stale_item_counts],
    "pipeline.one-at-a-time": [
        works_twice_at_once,
        lambda lines: interval_where(lines, stage=0, activity="draft", position=11).__setitem__("end_ns", 0),
    ],
    "pipeline.overlap": [never_at_once],
}
