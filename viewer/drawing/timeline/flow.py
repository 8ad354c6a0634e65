"""A turn of a pipelined run as tokens on their way through the stages. Pure; knows records, no markup.

Times are in nanoseconds since the run began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from specscope.schemas import PipelineSection, PipelineStage, Step, TurnEnd, TurnStart
from specscope.schemas.pipeline import DropReason, IntervalKind, StageEvents

#: prompt: the prompt's own forward; accepted: a draft that held; refill: the true token after a refuted draft; plain:
#: no draft preceded it; dropped: it was in flight and counted for nothing.
Fate = Literal["prompt", "accepted", "refill", "plain", "dropped"]


class Piece(NamedTuple):
    """What a stage did with a token."""

    item: int  # the token's number
    stage: int  # of a hop, the one that receives
    activity: IntervalKind
    start: int
    end: int


class ItemDraft(NamedTuple):
    """What the exit head drafted after a token, and what became of that."""

    token: int
    prob: float | None
    held: bool


@dataclass(frozen=True, kw_only=True)
class FlowItem:
    """A token on its way; the first is the whole prompt."""

    number: int  # in the order in which the first stage took them
    position: int
    epoch: int
    fate: Fate
    step: int | None  # that verified it; None of the prompt and of what was dropped
    token: int | None  # that was fed; None where it was not recorded
    draft: ItemDraft | None  # None where nothing was drafted after it, or that was not recorded
    pieces: tuple[Piece, ...]  # in the order in which they began
    dropped_by: int | None  # the stage; None where none says so
    drop_reason: DropReason | None

    @property
    def start(self) -> int:
        """When the first stage took it."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """When the last piece of work on it ended."""
        return max(piece.end for piece in self.pieces)

    def done(self, stage: int) -> int | None:
        """When ``stage`` was done with it; None where it never was."""
        ends = [piece.end for piece in self.pieces if piece.stage == stage and piece.activity in ("prefill", "verify")]
        return max(ends, default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class TurnFlow:
    """One turn; equal only to itself, so that what is computed of it can be kept."""

    stages: Sequence[PipelineStage]
    items: Sequence[FlowItem]
    pieces: Sequence[Piece]  # of all of them, in the order in which they began

    @property
    def start(self) -> int:
        """When the first piece of work began."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """When the last one ended."""
        return max(item.end for item in self.items)

    def between(self, start: int, end: int) -> list[Piece]:
        """What was going on between two times, in the order in which it began."""
        before = bisect_left(self.pieces, end, key=lambda piece: piece.start)
        return [piece for piece in self.pieces[:before] if piece.end > start]

    def of_step(self, step: int) -> FlowItem | None:
        """The token that the step verified."""
        return next((item for item in self.items if item.step == step), None)


class _Key(NamedTuple):
    position: int
    epoch: int


def flow_of(
    stages: Sequence[PipelineStage], start: TurnStart, steps: Iterable[Step], end: TurnEnd | None
) -> TurnFlow | None:
    """The turn; None where nothing of its stages was recorded."""
    of_steps = {step.step: step for step in steps if step.pipeline is not None}
    sections = [start.pipeline, *(step.pipeline for step in of_steps.values())]
    first = start.pipeline
    if first is None:
        return None
    events: list[StageEvents] = [section for section in sections if section is not None]
    events += [end.pipeline] if end is not None and end.pipeline is not None else []
    prompt = _Key(first.position, first.epoch)
    work = _work_by_item(events, prompt)
    verified = _verified(first, of_steps)
    drops = {_Key(drop.position, drop.epoch): drop for events_ in events for drop in events_.drops}
    items = []
    for number, (key, pieces) in enumerate(sorted(work.items(), key=lambda entry: entry[1][0].start)):
        known = verified.get(key) or _Verified("dropped", _drafted_token(verified, key))
        drop = drops.get(key)
        items.append(
            FlowItem(
                number=number,
                position=key.position,
                epoch=key.epoch,
                fate=known.fate,
                step=known.step,
                token=known.token,
                draft=known.draft,
                pieces=tuple(piece._replace(item=number) for piece in pieces),
                dropped_by=drop.stage if drop is not None else None,
                drop_reason=drop.reason if drop is not None else None,
            )
        )
    every = sorted((piece for item in items for piece in item.pieces), key=lambda piece: piece.start)
    return TurnFlow(stages=stages, items=items, pieces=every) if every else None


def _work_by_item(events: Iterable[StageEvents], prompt: _Key) -> dict[_Key, list[Piece]]:
    """What was done with each token, in order; all pieces of the prompt are one token's."""
    work: dict[_Key, list[Piece]] = {}
    for interval in (interval for known in events for interval in known.intervals):
        key = _Key(interval.position, interval.epoch)
        if key.epoch == prompt.epoch and key.position <= prompt.position:
            key = prompt
        piece = Piece(0, interval.stage, interval.activity, start=interval.start_ns, end=interval.end_ns)
        work.setdefault(key, []).append(piece)
    # What only travelled was dropped before any stage ran it, or its work is not recorded yet.
    at_work = {key: sorted(pieces, key=lambda piece: piece.start) for key, pieces in work.items()}
    return {key: pieces for key, pieces in at_work.items() if any(piece.activity != "hop" for piece in pieces)}


class _Verified(NamedTuple):
    """What the records say of a token."""

    fate: Fate
    token: int | None
    step: int | None = None
    draft: ItemDraft | None = None


def _verified(first: PipelineSection, steps: dict[int, Step]) -> dict[_Key, _Verified]:
    verified = {_Key(first.position, first.epoch): _Verified("prompt", None, draft=_draft_of(first))}
    before = first
    for number, step in steps.items():
        section = step.pipeline
        assert section is not None
        token = step.tree.tokens[0] if step.tree is not None and step.tree.tokens else None
        verified[_Key(section.position, section.epoch)] = _Verified(
            _FATES[before.accepted], token, number, _draft_of(section)
        )
        before = section
    return verified


#: Of a token, by whether the draft for it held.
_FATES: dict[bool | None, Fate] = {True: "accepted", False: "refill", None: "plain"}


def _draft_of(section: PipelineSection) -> ItemDraft | None:
    if section.draft_token is None:
        return None
    return ItemDraft(section.draft_token, section.draft_prob, held=section.accepted is True)


def _drafted_token(verified: dict[_Key, _Verified], key: _Key) -> int | None:
    """What was fed at a place that was dropped: the draft after the token before, where that one counted."""
    before = verified.get(_Key(key.position - 1, key.epoch))
    return before.draft.token if before is not None and before.draft is not None else None
