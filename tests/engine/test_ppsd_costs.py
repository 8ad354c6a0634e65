"""What a token costs where, read from recorded runs: nothing of a token's time is left out or counted twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.local_pipeline import load_stages, local_pipeline, perfect_draft

from specscope.engine.lab.bench.pipeline.costs import costs_of, durations_of
from specscope.engine.lab.bench.pipeline.measure import Collector
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.message import Event, EventKind
from specscope.engine.ppsd.outcome import Verified
from specscope.engine.ppsd.simulate import Simulation
from specscope.engine.ppsd.theory import Costs, pipeline_time

PROMPT, RULES = [5, 9, 2, 33, 8], StopRules(12, [], [])
SLOW_S = 0.004


class SlowCollector(Collector):
    """Keeps records slowly."""

    def token_verified(self, verified: Verified) -> None:
        time.sleep(SLOW_S)
        super().token_verified(verified)


def decoded_events(events: list[Event]) -> list[Event]:
    """Without the prefill, and without the tail that the last word cut off."""
    return [event for event in events if len(PROMPT) <= event.position < len(PROMPT) + RULES.max_new_tokens - 1]


@pytest.mark.parametrize("num_stages", [2, 3])
def test_a_tokens_time_is_its_stages_its_hops_and_its_word_and_nothing_else(
    teacher_folder: Path, num_stages: int
) -> None:
    """Of a recorded sequential run, to the nanosecond: from the first item to the last word, whatever the load."""
    collector = SlowCollector()
    with local_pipeline(load_stages(teacher_folder, 4, num_stages), None, recording=True) as pipeline:
        pipeline.decode(PROMPT, RULES, observer=collector)
    events = decoded_events(collector.events)
    begun = min(event.start for event in events if event.kind == EventKind.VERIFY and event.stage == 0)
    words = [event for event in events if event.kind == EventKind.HOP and event.stage == 0]
    durations = durations_of(events, num_stages)
    assert len(words) == RULES.max_new_tokens - 1
    assert [len(durations[str(stage)]) for stage in range(num_stages)] == [len(words)] * num_stages
    assert sum(map(sum, durations.values())) == max(word.end for word in words) - begun
    assert min(durations["word"]) >= SLOW_S * 1e9, "what the observer takes is of the word, and of no hop"
    costs = costs_of(durations, durations, num_stages)
    assert costs.sequential.word >= SLOW_S * 1e9
    assert costs.sequential.draft == 0.0


def test_stages_that_work_side_by_side_are_counted_from_when_they_were_free(teacher_folder: Path) -> None:
    """An item that lies there while the stage works on another one costs nothing yet."""
    collector = Collector()
    with local_pipeline(load_stages(teacher_folder, 4, 3), None) as pipeline:
        following = pipeline.decode(PROMPT, RULES).output_ids
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, perfect_draft([*PROMPT, *following]), recording=True) as pipeline:
        pipeline.decode(PROMPT, RULES, observer=collector)
    events = decoded_events(collector.events)
    durations = durations_of(events, 3)
    for stage in range(3):
        work = [event for event in events if event.kind == EventKind.VERIFY and event.stage == stage]
        span = max(event.end for event in work) - min(event.start for event in events)
        assert 0 < sum(durations[str(stage)]) <= span, "a stage works on one item at a time"
    assert len(durations["draft"]) > 0


def simulated(costs: Costs, *, holds: bool, drafts: bool = True) -> float:
    """Per token."""
    return Simulation(costs, lambda _: holds, drafts=drafts).run(400) / 400


def test_words_cost_sequential_decoding_their_whole_time_and_hide_behind_a_slower_stage() -> None:
    """So without them the pipeline seems less fast beside sequential decoding than it is."""
    costs = Costs(stages=[1.0, 3.0], draft=0.2, hop=0.1, word=0.5)
    assert simulated(costs, holds=True, drafts=False) == pytest.approx(costs.sequential, rel=5e-3)
    assert costs.sequential == pytest.approx(1.0 + 3.0 + 2 * 0.1 + 0.5)
    assert simulated(costs, holds=True) == pytest.approx(3.0, rel=2e-2)
    assert simulated(costs, holds=False) == pytest.approx(costs.sequential, rel=3e-2)


def test_words_are_work_of_the_first_stage() -> None:
    costs = Costs(stages=[3.0, 1.0], draft=0.2, hop=0.1, word=0.5)
    assert simulated(costs, holds=True) == pytest.approx(3.0 + 0.2 + 0.5, rel=2e-2)
    assert pipeline_time(costs, 1.0) == pytest.approx(3.7)
