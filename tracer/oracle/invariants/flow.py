"""Invariants of pipelined runs: what was drafted, verified and dropped, and what each stage did meanwhile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from specscope.schemas import Manifest, Pipeline, PipelineSection, StageCut, StageDrop, StageEvents, StageInterval
from specscope.tracer.oracle.invariants.base import Context, present

#: By so many a turn's accepted drafts outnumber the refuted ones before two stages must have been at work at once.
ENOUGH_ACCEPTED = 4
WORK = frozenset({"prefill", "verify", "draft"})
#: What carries messages between stages that have a device each.
DEVICE_CARRIERS = frozenset({"nccl", "hccl"})
HOST = "cpu"


@dataclass(kw_only=True)
class Flow:
    """What the records of one turn say of its stages."""

    num_stages: int
    window: int
    slack_ns: int  # by which times of two stages may be off
    on_devices: bool  # a device each; processors are shared, with whatever else runs there
    verified: list[PipelineSection] = field(default_factory=list)  # the prompt's end first
    intervals: list[StageInterval] = field(default_factory=list)
    cuts: list[StageCut] = field(default_factory=list)
    drops: list[StageDrop] = field(default_factory=list)

    @classmethod
    def of(cls, manifest: Manifest, first: PipelineSection | None) -> Flow | None:
        """Of a turn that begins with ``first``; None where the run is not pipelined."""
        if manifest.pipeline is None or first is None:
            return None
        stages = manifest.pipeline.stages
        slack = 2 * max(stage.clock_uncertainty_ns or 0 for stage in stages)
        flow = cls(
            num_stages=len(stages),
            window=manifest.pipeline.window,
            slack_ns=slack,
            on_devices=_are_on_devices(manifest.pipeline),
        )
        flow.add_token(first)
        return flow

    def add_token(self, section: PipelineSection) -> None:
        """Takes in a verified token."""
        self.verified.append(section)
        self.add(section)

    def add(self, events: StageEvents) -> None:
        """Takes in what became known."""
        self.intervals += events.intervals
        self.cuts += events.cuts
        self.drops += events.drops

    def of_stage(self, stage: int, activities: frozenset[str]) -> list[StageInterval]:
        """What ``stage`` did of that kind, by the time it began."""
        chosen = [i for i in self.intervals if i.stage == stage and i.activity in activities]
        return sorted(chosen, key=lambda interval: interval.start_ns)


def _are_on_devices(pipeline: Pipeline) -> bool:
    """Whether each stage has its own device. Where the trace does not name them, the carrier tells."""
    names = [stage.device for stage in pipeline.stages]
    if None in names:
        return pipeline.backend in DEVICE_CARRIERS
    return len(set(names)) == len(names) and HOST not in names


def _section(c: Context) -> PipelineSection:
    return present(c.step.pipeline)


def item_before(c: Context) -> PipelineSection | None:
    """The item before in its turn; None at the first, and where it is not known."""
    if c.previous is None:
        return None if c.previous_is_lost else c.turn.pipeline
    return c.previous.pipeline


def acceptance_problem(c: Context) -> str | None:
    """Why the token is not accepted as its draft says; None where it is."""
    section, token = _section(c), present(c.step.accept).bonus_token
    if section.draft_token is None:
        return None if section.accepted is None else "an outcome without a draft"
    if section.accepted != (section.draft_token == token):
        outcome = "accepted" if section.accepted else "refuted"
        return f"draft {section.draft_token} was {outcome}, and the verified token is {token}"
    return None


def epoch_problem(c: Context) -> str | None:
    """Why the epoch does not follow from the item before; None where it does."""
    before = present(item_before(c))
    wanted = before.epoch + (before.accepted is False)
    if _section(c).epoch != wanted:
        how = "refuted" if before.accepted is False else "not refuted"
        return f"got a token of epoch {_section(c).epoch}, wanted {wanted}: the draft before it was {how}"
    return None


def position_problem(c: Context) -> str | None:
    """Why the position does not follow from what was emitted; None where it does."""
    wanted = len(c.turn.prompt_ids) + c.step.step
    got = _section(c).position
    return None if got == wanted else f"got position {got}, wanted {wanted}"


def custody_problem(flow: Flow) -> str | None:
    """Where a verified item did not pass every stage exactly once, one stage after the other."""
    runs: dict[tuple[int, int, int], list[StageInterval]] = defaultdict(list)
    for interval in flow.intervals:
        if interval.activity == "verify":
            runs[interval.stage, interval.position, interval.epoch].append(interval)
    twice = next((key for key, passed in runs.items() if len(passed) > 1), None)
    if twice is not None:
        return f"stage {twice[0]} ran position {twice[1]} of epoch {twice[2]} twice"
    for token in flow.verified[1:]:
        before: StageInterval | None = None
        for stage in range(flow.num_stages):
            passed = runs.get((stage, token.position, token.epoch))
            if not passed:
                return f"position {token.position} of epoch {token.epoch} was verified and did not pass stage {stage}"
            if before is not None and passed[0].start_ns < before.end_ns - flow.slack_ns:
                return f"stage {stage} began position {token.position} before stage {stage - 1} was done with it"
            before = passed[0]
    return None


def cuts_problem(flow: Flow) -> str | None:
    """Where a stage's keys and values were not cut to what its next item follows, or were cut otherwise."""
    for stage in range(flow.num_stages):
        cuts = {cut.epoch: cut for cut in flow.cuts if cut.stage == stage}
        length: int | None = None
        for run in flow.of_stage(stage, frozenset({"prefill", "verify"})):
            problem = None if length is None else _cut_problem(run, length, cuts.get(run.epoch))
            if problem is not None:
                return f"stage {stage}, position {run.position} of epoch {run.epoch}: {problem}"
            # How many rows a piece of the prompt had is not recorded.
            length = run.position + 1 if run.activity == "verify" else None
    return None


def _cut_problem(run: StageInterval, length: int, cut: StageCut | None) -> str | None:
    if run.position > length:
        return f"{length} positions were kept, so that positions are missing before it"
    if run.position == length:
        return None
    if cut is None:
        return f"{length} positions were kept and not cut"
    if (cut.length_before, cut.length_after) != (length, run.position):
        return f"cut from {cut.length_before} to {cut.length_after}, wanted {length} to {run.position}"
    return None


def dropped_problem(flow: Flow) -> str | None:
    """Where an item was dropped that counts, or one was run by the stage that had dropped it."""
    verified = {(token.position, token.epoch) for token in flow.verified}
    for drop in flow.drops:
        place = f"position {drop.position} of epoch {drop.epoch}"
        if (drop.position, drop.epoch) in verified:
            return f"stage {drop.stage} dropped {place}, which was verified"
    ran = Counter((i.stage, i.position, i.epoch) for i in flow.intervals if i.activity == "verify")
    both = next((d for d in flow.drops if ran[d.stage, d.position, d.epoch]), None)
    return None if both is None else f"stage {both.stage} dropped and ran position {both.position}"


def alone_problem(flow: Flow) -> str | None:
    """Where a stage did two things at once, or something took less than no time."""
    for stage in range(flow.num_stages):
        before: StageInterval | None = None
        for run in flow.of_stage(stage, WORK):
            if run.end_ns < run.start_ns:
                return f"stage {stage} ended position {run.position} before it began"
            if before is not None and run.start_ns < before.end_ns:
                return f"stage {stage} worked on positions {before.position} and {run.position} at once"
            before = run
    return None


def overlap_problem(flow: Flow) -> str | None:
    """Where drafts were accepted and yet no two stages were at work on different positions at the same time.

    To be asked of stages on separate devices. Those on the processors of one machine may take turns: a busy machine
    runs one of them after another, and is right to.
    """
    num_accepted = sum(token.accepted is True for token in flow.verified)
    num_refuted = sum(token.accepted is False for token in flow.verified)
    # Where most drafts fail, it pays to have one token in flight at a time.
    if flow.window < 2 or num_accepted < num_refuted + ENOUGH_ACCEPTED or any(_overlaps(flow)):
        return None
    return f"{num_accepted} drafts were accepted, and no two stages were at work on different positions at once"


def _overlaps(flow: Flow) -> Iterator[bool]:
    """Whether each piece of work is still going on when another stage begins another position."""
    work = sorted((i for i in flow.intervals if i.activity in WORK), key=lambda interval: interval.start_ns)
    running: list[StageInterval] = []
    for interval in work:
        running = [other for other in running if other.end_ns > interval.start_ns + flow.slack_ns]
        yield any(other.stage != interval.stage and other.position != interval.position for other in running)
        running.append(interval)


def is_pipelined(c: Context) -> bool:
    """Whether the step is of a pipelined run."""
    return c.manifest.pipeline is not None
