"""The schedule on a clock that is not real: how long a run would take with given costs, drafts and stages.

Driven by the very ``PipelineSchedule`` and ``Gate`` that the stages use, so that what is simulated is what runs.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from specscope.engine.ppsd.pace import Pace
from specscope.engine.ppsd.schedule import Gate, Item, PipelineSchedule
from specscope.engine.ppsd.theory import Costs


@dataclass
class _Stage:
    gate: Gate = field(default_factory=Gate)
    waiting: deque[Item] = field(default_factory=deque)
    is_busy: bool = False


class Simulation:
    """One turn after a prompt of one token.

    Args:
        costs: per token; as many stages as it has.
        holds: whether the draft for a position is right.
        window: items in flight at most; None: as many as pay, one per stage at most.
        drafts: False decodes sequentially.
    """

    def __init__(
        self, costs: Costs, holds: Callable[[int], bool], *, window: int | None = None, drafts: bool = True
    ) -> None:
        self._costs, self._holds, self._drafts = costs, holds, drafts
        most = window if window is not None else len(costs.stages)
        self._schedule = PipelineSchedule(most if drafts else 1)
        self._pace = Pace(most) if window is None and drafts else None
        self._begun: dict[Item, float] = {}
        self._stages = [_Stage() for _ in costs.stages]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._results: deque[Item] = deque()
        self._num_done = 0

    def run(self, num_tokens: int) -> float:
        """The time from the first stage's first item to the last of ``num_tokens`` verified tokens."""
        item = self._schedule.begin_turn(Item(0, 0, 0), last_position=num_tokens - 1)
        self._work_first(item)
        while self._num_done < num_tokens:
            self._now, _, action = heapq.heappop(self._events)
            action()
        return self._now

    def _at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._order), action))

    def _work_first(self, item: Item) -> None:
        first = self._stages[0]
        first.is_busy = True
        first.gate.admit(item)
        self._begun[item] = self._now

        def ran() -> None:
            self._at(self._costs.hop, lambda: self._arrive(1, item))
            self._hear_all(heard)

        def heard() -> None:
            is_drafted = self._drafts and self._schedule.newest == item
            self._at(self._costs.draft if is_drafted else 0.0, drafted if is_drafted else free)

        def drafted() -> None:
            following = item.position + 1
            self._schedule.drafted(item, following if self._holds(following) else -following)
            if self._pace is not None:
                self._pace.took(self._now - self._begun[item])
            free()

        def free() -> None:
            first.is_busy = False
            self._go_on()

        self._at(self._costs.stages[0], ran)

    def _go_on(self) -> None:
        """The first stage hears all that has arrived, then runs what it may."""
        first = self._stages[0]
        if first.is_busy:
            return

        def take() -> None:
            first.is_busy = False
            item = self._schedule.take()
            if item is not None:
                self._work_first(item)

        first.is_busy = True
        self._hear_all(take)

    def _hear_all(self, then: Callable[[], None]) -> None:
        """One word after another, each of which counts takes its time; also those that arrive meanwhile."""
        while self._results:
            if self._hear_word(self._results.popleft()):
                self._at(self._costs.word, lambda: self._hear_all(then))
                return
        then()

    def _hear_word(self, result: Item) -> bool:
        """Whether it counts."""
        oldest = self._schedule.oldest
        verdict = self._schedule.verified(result.position, result.epoch, result.token)
        if verdict is None:
            return False
        self._num_done += 1
        if self._pace is not None and oldest is not None and verdict.draft is not None:
            self._pace.heard(self._now, self._now - self._begun[oldest], held=verdict.accepted)
            self._schedule.window = self._pace.window()
        return True

    def _arrive(self, number: int, item: Item) -> None:
        self._stages[number].waiting.append(item)
        self._work(number)

    def _work(self, number: int) -> None:
        stage = self._stages[number]
        while stage.waiting and not stage.is_busy:
            item = stage.waiting.popleft()
            stage.gate.heard_of(max((other.epoch for other in stage.waiting), default=0))
            if stage.gate.admit(item).drop is None:
                stage.is_busy = True
                self._at(self._costs.stages[number], lambda item=item: self._done(number, item))  # type: ignore[misc]

    def _done(self, number: int, item: Item) -> None:
        self._stages[number].is_busy = False
        if number + 1 < len(self._stages):
            self._at(self._costs.hop, lambda: self._arrive(number + 1, item))
        else:
            result = Item(item.position, item.position + 1, item.epoch)
            self._stages[number].gate.expect(Item(item.position + 1, item.position + 1, item.epoch))
            self._at(self._costs.hop, lambda: self._hear(result))
        self._work(number)

    def _hear(self, result: Item) -> None:
        self._results.append(result)
        self._go_on()
