"""The schedule by itself: which item runs when, what is dropped, and that only true tokens come out."""

from __future__ import annotations

import random
from collections import deque

import pytest

from specscope.engine.ppsd.schedule import Admission, Gate, Item, PipelineSchedule, ScheduleError
from specscope.engine.ppsd.split import split_layers
from specscope.tracer.errors import UsageError

PROMPT = 3  # tokens


class Stages:
    """Stages that take turns at random: each has a queue, and one of them works at a time.

    The truth about position q is ``q * 7 % 11``; a stage keeps the tokens that it ran, as it would keep keys and
    values, and the last one is right only if all before it are.
    """

    def __init__(self, num_stages: int, window: int, acceptance: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.acceptance = acceptance
        self.schedule = PipelineSchedule(window)
        self.gates = [Gate() for _ in range(num_stages)]
        self.kept: list[list[int]] = [[] for _ in range(num_stages)]
        self.queues: list[deque[Item]] = [deque() for _ in range(num_stages)]  # the first one's is for results
        self.emitted: list[int] = []
        self.dropped: list[tuple[int, Item, str]] = []
        self.cuts = 0

    def run(self, stage: int, item: Item, rows: list[int]) -> Admission:
        admission = self.gates[stage].admit(item, len(rows))
        if admission.drop is None:
            if admission.cut is not None:
                self.cuts += 1
                del self.kept[stage][admission.cut :]
            assert len(self.kept[stage]) == item.position, "a stage runs positions without gaps"
            self.kept[stage] += rows
        else:
            self.dropped.append((stage, item, admission.drop))
        return admission

    def draft(self, item: Item) -> None:
        right = truth(item.position + 1)
        token = right if self.random.random() < self.acceptance else (right + 1) % 11
        self.schedule.drafted(item, token)

    def first(self) -> None:
        item = self.schedule.take()
        if item is not None:
            assert self.schedule.num_in_flight <= self.schedule.window
            self.run(0, item, [item.token])
            self.queues[1].append(item)
            self.draft(item)

    def work(self, stage: int) -> None:
        item = self.queues[stage].popleft()
        if self.run(stage, item, [item.token]).drop is not None:
            return
        if stage + 1 < len(self.queues):
            self.queues[stage + 1].append(item)
            return
        assert self.kept[stage] == [truth(q) for q in range(item.position + 1)], "a wrong token was verified on"
        self.say(item)

    def say(self, item: Item) -> None:
        token = truth(item.position + 1)
        self.gates[-1].expect(Item(item.position + 1, token, item.epoch))
        self.queues[0].append(Item(item.position, token, item.epoch))

    def hear(self) -> None:
        position, token, epoch = self.queues[0].popleft()
        verdict = self.schedule.verified(position, epoch, token)
        if verdict is not None:
            self.emitted.append(token)
            if verdict.refuted and self.random.random() < 0.5:  # news may come late, or not before the item
                for gate in self.gates[1:]:
                    gate.heard_of(self.schedule.epoch)

    def turn(self, count: int) -> list[int]:
        self.emitted = []
        self.prefill(count)
        while len(self.emitted) < count:
            busy = [stage for stage in range(1, len(self.queues)) if self.queues[stage]]
            choices = [*busy, *([0] * bool(self.queues[0])), -1]
            chosen = self.random.choice(choices)
            if chosen == -1:
                self.first()
            elif chosen == 0:
                self.hear()
            else:
                self.work(chosen)
        self.schedule.end_turn()
        return self.emitted

    def prefill(self, count: int) -> None:
        last = self.schedule.begin_turn(Item(PROMPT - 1, truth(PROMPT - 1), 0), PROMPT - 1 + count - 1)
        for stage in range(len(self.gates)):
            while stage and self.queues[stage]:  # in order, and what is left of the turn before is stale by now
                self.run(stage, self.queues[stage].popleft(), [0])
            self.gates[stage].heard_of(last.epoch)
            self.run(stage, Item(0, 0, last.epoch), [truth(q) for q in range(PROMPT)])
        self.queues[0].clear()
        self.draft(last)
        self.say(last)


def truth(position: int) -> int:
    return position * 7 % 11


@pytest.mark.parametrize("num_stages", [2, 3, 5])
@pytest.mark.parametrize("acceptance", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("window_more", [-1, 0, 2])
def test_only_true_tokens_come_out_in_whatever_order_the_stages_work(
    num_stages: int, acceptance: float, window_more: int
) -> None:
    for seed in range(40):
        stages = Stages(num_stages, num_stages + window_more, acceptance, seed)
        for _ in range(2):
            assert stages.turn(12) == [truth(PROMPT + number) for number in range(12)]
        if acceptance == 1.0:
            assert not [drop for drop in stages.dropped if drop[2] == "refuted"]


def test_what_is_in_flight_behind_a_refuted_draft_is_dropped() -> None:
    schedule = PipelineSchedule(window=3)
    item = schedule.begin_turn(Item(4, 9, 0), last_position=20)
    assert item == Item(4, 9, 1)
    schedule.drafted(item, 50)
    second = schedule.take()
    assert second == Item(5, 50, 1)
    schedule.drafted(second, 60)
    third = schedule.take()
    assert third == Item(6, 60, 1)
    schedule.drafted(third, 70)
    assert schedule.take() is None, "the window is full"
    verdict = schedule.verified(4, 1, 51)
    assert verdict is not None
    assert (verdict.refuted, verdict.accepted, verdict.dropped) == (True, False, [second, third])
    assert schedule.take() == Item(5, 51, 2), "the true token enters at the same position, in the next epoch"
    assert schedule.verified(5, 1, 60) is None, "what an older epoch says counts for nothing"


def test_an_accepted_draft_goes_on_and_needs_no_new_epoch() -> None:
    schedule = PipelineSchedule(window=2)
    item = schedule.begin_turn(Item(0, 1, 0), last_position=9)
    schedule.drafted(item, 5)
    second = schedule.take()
    assert second is not None
    schedule.drafted(second, 6)
    assert schedule.take() is None
    verdict = schedule.verified(0, 1, 5)
    assert verdict is not None
    assert (verdict.accepted, verdict.dropped) == (True, [])
    assert schedule.take() == Item(2, 6, 1)


def test_without_drafts_one_token_is_in_flight_and_no_epoch_begins() -> None:
    schedule = PipelineSchedule(window=1)
    schedule.begin_turn(Item(0, 1, 0), last_position=9)
    assert schedule.take() is None
    verdict = schedule.verified(0, 1, 5)
    assert verdict is not None
    assert not verdict.refuted
    assert schedule.take() == Item(1, 5, 1)


def test_nothing_is_run_past_the_last_position_that_matters() -> None:
    schedule = PipelineSchedule(window=4)
    item = schedule.begin_turn(Item(0, 1, 0), last_position=1)
    schedule.drafted(item, 5)
    second = schedule.take()
    assert second is not None
    schedule.drafted(second, 6)
    assert schedule.take() is None


def test_work_out_of_order_is_an_error() -> None:
    schedule = PipelineSchedule(window=2)
    item = schedule.begin_turn(Item(0, 1, 0), last_position=9)
    schedule.drafted(item, 5)
    schedule.take()
    with pytest.raises(ScheduleError, match="position 1 of epoch 1 came out of turn"):
        schedule.verified(1, 1, 5)
    gate = Gate()
    gate.admit(Item(0, 1, 1), 3)
    for wrong in (Item(4, 1, 1), Item(2, 1, 1), Item(4, 1, 2)):
        with pytest.raises(ScheduleError, match="wanted 3"):
            gate.admit(wrong)


def test_a_gate_cuts_at_the_first_item_of_a_new_epoch_and_drops_the_old() -> None:
    gate = Gate()
    assert gate.admit(Item(0, 1, 1), 3) == (None, None)
    assert gate.admit(Item(3, 1, 1)) == (None, None)
    assert gate.admit(Item(4, 1, 1)) == (None, None)
    assert gate.admit(Item(4, 2, 2)) == (None, 4)
    assert gate.admit(Item(5, 1, 1)) == ("stale epoch", None)
    gate.heard_of(4)
    assert gate.admit(Item(5, 1, 2)) == ("stale epoch", None)
    assert gate.admit(Item(5, 1, 4)) == (None, None)


def test_the_last_gate_drops_what_its_own_word_refutes() -> None:
    gate = Gate()
    gate.admit(Item(0, 1, 1), 3)
    gate.expect(Item(3, 7, 1))
    assert gate.admit(Item(3, 8, 1)) == ("refuted", None)
    assert gate.admit(Item(4, 8, 1)) == ("stale epoch", None)
    assert gate.admit(Item(3, 7, 2)) == (None, None)


@pytest.mark.parametrize(
    ("layers", "exit_layer", "stages", "wanted"),
    [
        (10, 4, 2, ["0-3", "4-9"]),
        (10, 5, 5, ["0-4", "5-6", "7-7", "8-8", "9-9"]),
        (10, 2, 3, ["0-1", "2-5", "6-9"]),
        (8, 7, 2, ["0-6", "7-7"]),
    ],
)
def test_layers_are_dealt_in_order(layers: int, exit_layer: int, stages: int, wanted: list[str]) -> None:
    split = split_layers(layers, exit_layer, stages)
    assert [f"{part.start}-{part.stop - 1}" for part in split] == wanted


@pytest.mark.parametrize(
    ("layers", "exit_layer", "stages", "message"),
    [
        (10, 0, 2, "got exit layer 0, wanted 1 to 9"),
        (10, 10, 2, "got exit layer 10, wanted 1 to 9"),
        (10, 4, 8, "got 8 stages, wanted at most 7: 6 layers follow exit layer 4"),
        (10, 4, 1, "got 1 stages, wanted at least 2"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(layers: int, exit_layer: int, stages: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_layers(layers, exit_layer, stages)
