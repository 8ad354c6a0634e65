"""What one token costs where, from what the stages recorded.

Beside the layers' work a stage takes an item up and sends it on, and the first stage does something with each word of
the last one: it counts it, records it and hands it out. None of that is seen in the intervals of work; all of it is
between them. A stage's share runs from when it could take the item (it lay there, and the stage was free) to when it
was sent on. Hops and words are measured in sequential decoding, where neither waits for other work.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from specscope.engine.ppsd.message import Event, EventKind
from specscope.engine.ppsd.theory import Costs

Durations = dict[str, list[int]]  # ns, by what took them: a stage's number, draft, hop, word
SEQUENTIAL = ("hop", "word")  # what is taken from sequential decoding


class _Key(NamedTuple):
    position: int
    epoch: int


class _Passages:
    """The events of a turn by item: every stage's work on it, and its way to every stage."""

    def __init__(self, events: Iterable[Event], num_stages: int) -> None:
        self.work: list[dict[_Key, Event]] = [{} for _ in range(num_stages)]
        self.hops: list[dict[_Key, Event]] = [{} for _ in range(num_stages)]  # to the stage; to the first: the word
        self.drafts: list[Event] = []
        for event in events:
            key = _Key(event.position, event.epoch)
            if event.kind == EventKind.VERIFY:
                self.work[event.stage][key] = event
            elif event.kind == EventKind.HOP:
                self.hops[event.stage][key] = event
            elif event.kind == EventKind.DRAFT:
                self.drafts.append(event)

    def sent_ns(self, stage: int, key: _Key) -> int | None:
        """When ``stage`` sent the item on, on its own clock."""
        hop = self.hops[(stage + 1) % len(self.hops)].get(key)
        return hop.start if hop is not None else None

    def of_stage(self, stage: int) -> list[int]:
        """From when it could take an item to when it sent it on."""
        durations, before = [], 0
        for key, event in sorted(self.work[stage].items(), key=lambda entry: entry[1].start):
            sent = self.sent_ns(stage, key)
            # The first stage's items do not arrive: it makes them.
            there = self.hops[stage].get(key) if stage else event
            if sent is not None and there is not None:
                begun = there.end if stage else there.start
                durations.append(sent - max(begun, before))
            before = sent if sent is not None else event.end
        return durations

    def words(self) -> list[int]:
        """From the last stage's word to the first stage's next item; right where nothing else is done between."""
        following = ((self.work[0].get(_Key(key.position + 1, key.epoch)), word) for key, word in self.hops[0].items())
        return [item.start - word.end for item, word in following if item is not None]


def durations_of(events: Iterable[Event], num_stages: int, offsets: Sequence[int] | None = None) -> Durations:
    """What took how long in one turn.

    Args:
        offsets: of each stage's clock to the first one's; None: one clock.
    """
    passages = _Passages(events, num_stages)
    durations: Durations = defaultdict(list)
    for stage in range(num_stages):
        durations[str(stage)] = passages.of_stage(stage)
        sender = (stage - 1) % num_stages
        apart = offsets[stage] - offsets[sender] if offsets is not None else 0
        durations["hop"] += [hop.end - hop.start - apart for hop in passages.hops[stage].values()]
    durations["draft"] = [draft.end - draft.start for draft in passages.drafts]
    durations["word"] = passages.words()
    return dict(durations)


class MeasuredCosts(NamedTuple):
    """Stages that work side by side share the machine's memory, and so each takes a little longer than alone."""

    drafting: Costs
    sequential: Costs


def costs_of(drafting: Durations, sequential: Durations, num_stages: int) -> MeasuredCosts:
    """Medians: of stages and head while drafts hold, as that is when they work side by side, and of the stages in
    sequential decoding; of hops and words in sequential decoding, for both."""

    def median(durations: Durations, name: str) -> float:
        return float(statistics.median(durations[name])) if durations.get(name) else 0.0

    def costs(durations: Durations) -> Costs:
        return Costs(
            stages=[median(durations, str(stage)) for stage in range(num_stages)],
            draft=median(durations, "draft"),
            hop=median(sequential, "hop"),
            word=median(sequential, "word"),
        )

    return MeasuredCosts(costs(drafting), costs(sequential))
