"""Noise: one value against the tail of all of them, all of them against what a dtype does, or what another run did."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import EAGER, FAULTY, FUSED, Lines, first_step, load, permute_slots, store

from specscope.schemas.verdict import NoiseFloor, Quantity, Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.compare.drift import QUANTITIES, Drift, DriftPlace, measure_drift
from specscope.tracer.compare.floats import scaled_gap
from specscope.tracer.compare.noise import (
    FEWEST_VALUES,
    Bounds,
    bounds_of,
    find_excess,
    find_movement,
    measure,
    measured_floors,
    noise_floors,
)
from specscope.tracer.compare.roundings import EPSILON, spacing
from specscope.tracer.compare.said import EqualInputs
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader

FLOAT32 = bounds_of("float32", 10)


def floors_of(verdict: Verdict) -> dict[Quantity, NoiseFloor]:
    return {floor.quantity: floor for floor in verdict.floors}


def rounding(value: float) -> float:
    """One rounding of float32 at ``value``."""
    return EPSILON["float32"] * spacing(value)


def shaken(lines: Lines, roundings: float, share: float = 1.0, seed: int = 0, since: int = 0) -> Lines:
    """A copy in which a share of all best logits moved by up to so many roundings, each slot's two alike, from that
    step of every turn on."""
    rng, other = random.Random(seed), copy.deepcopy(lines)
    for step in (line for line in other if line["kind"] == "step" and line["step"] >= since):
        for two in step["verify"]["top_logits"]:
            if rng.random() < share:
                moved = roundings * rng.uniform(0.5, 1) * rounding(two[0])
                two[0], two[1] = two[0] + moved, two[1] + moved
    return other


def drift_of(values: list[float], dtype: str = "float32", per_place: int = 10) -> Drift:
    """Every quantity with the same drift, in roundings at size 1."""
    drift = Drift(dtype)
    for at in range(0, len(values), per_place):
        place: Any = DriftPlace(turns=None, position=at, step_a=at // per_place, step_b=at // per_place)  # type: ignore[arg-type]
        inputs = [
            EqualInputs(quantity=quantity, field="", a=0.0, b=value * EPSILON[dtype], size=1.0)
            for value in values[at : at + per_place]
            for quantity in QUANTITIES
        ]
        drift.add(place, iter(inputs))
    return drift


# One value.


def test_the_limit_of_an_honest_pair_lies_above_all_that_was_seen_and_far_below_the_dtypes_most() -> None:
    with TraceReader(EAGER) as a, TraceReader(FUSED) as b:
        drift = measure_drift(a, b)
    for floor in measured_floors(drift, 10):
        sample = drift.samples[floor.quantity]
        assert floor.sample_size == len(sample) > FEWEST_VALUES
        assert floor.rounding is not None
        assert max(sample.roundings) * floor.rounding < floor.floor < floor.most / 4


@pytest.mark.parametrize("tail", ["normal", "exponential", "mixed"])
def test_honest_values_of_any_tail_stay_below_their_limit_however_many_there_are(tail: str) -> None:
    """In 200 samples of each size none may be red; one in a thousand was allowed."""
    draw: dict[str, Callable[[random.Random], float]] = {
        "normal": lambda rng: abs(rng.gauss(0, 3)),
        "exponential": lambda rng: rng.expovariate(1 / 3),
        "mixed": lambda rng: abs(rng.gauss(0, rng.choice((1, 1, 1, 4)))),
    }
    for size in (100, 1000, 10_000):
        for seed in range(200 if size < 10_000 else 20):
            rng = random.Random(seed)
            values = [draw[tail](rng) for _ in range(size)]
            found = measure(drift_of(values).samples["logits"])
            assert found is not None
            assert max(values) <= max(found.limit, FLOAT32.least["logits"])


def test_a_few_wild_values_do_not_move_the_limit_and_are_found(tmp_path: Path) -> None:
    honest = floors_of(diff_traces(EAGER, FUSED))["logits"]
    assert honest.rounding is not None
    lines = shaken(load(FUSED), 10 * honest.floor / honest.rounding, share=0.02)
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert floors_of(verdict)["logits"].floor < 3 * honest.floor
    first = verdict.roots[0]
    assert (verdict.verdict, first.difference.phase, first.difference.kind) == ("different", "verify", "real")
    assert (first.difference.floor, first.drift) == (floors_of(verdict)["logits"].floor, None)


@given(
    st.lists(st.floats(0, 50), min_size=64, max_size=200),
    st.lists(st.floats(0, 1e6), max_size=3),
    st.sampled_from(sorted(EPSILON)),
)
def test_limits_stay_between_the_least_and_the_most(honest: list[float], wild: list[float], dtype: str) -> None:
    drift = drift_of([*honest, *wild], dtype)
    for floor in measured_floors(drift, 10):
        assert floor.least <= floor.floor <= floor.most
    for floor in noise_floors(drift, drift, 10, same_mode=True):
        assert floor.rounding is not None
        assert floor.floor >= 2 * max(drift.samples[floor.quantity].roundings) * floor.rounding


def test_a_deeper_teacher_may_drift_further() -> None:
    shallow, deep = (bounds_of("bfloat16", layers) for layers in (12, 48))
    assert deep == Bounds(shallow.least, 2 * shallow.most, {name: 2 * most for name, most in shallow.typical.items()})


# All of them.


def test_what_moves_every_value_a_little_is_one_root_at_the_first_place_where_it_shows(tmp_path: Path) -> None:
    """No single value is out of bounds, no decision differs: that every one is off is the finding."""
    lines = shaken(load(FUSED), 120, since=2)
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert (verdict.verdict, verdict.exit_code, len(verdict.roots)) == ("different", 1, 1)
    root = verdict.roots[0]
    assert (root.difference.phase, root.difference.field, root.wrong) == ("verify", "top_logits", "neither")
    assert (root.place.turn, root.place.step_a) == (0, 2)
    assert root.drift is not None
    assert 0.5 < root.drift.share <= 1
    assert root.drift.typical > root.drift.allowed == FLOAT32.typical["logits"]
    assert root.drift.against == "dtype"


def test_no_more_steps_follow_from_a_drift_than_there_are(tmp_path: Path) -> None:
    """It begins in the prompts' own forwards, which are no steps."""
    lines = shaken(load(FUSED), 10 * FLOAT32.most)
    for start in (line for line in lines if line["kind"] == "turn_start"):
        start["prefill"]["top_logits"] = [logit * (1 + 1e-3) for logit in start["prefill"]["top_logits"]]
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert verdict.roots[0].difference.field == "prefill.top_logits"
    assert verdict.roots[0].drift is not None
    assert 0 < verdict.num_inherited <= verdict.num_steps
    assert sum(root.inherited for root in verdict.roots) == verdict.num_inherited


def test_a_fault_in_a_fifth_of_the_values_is_found_as_a_whole(tmp_path: Path) -> None:
    """It moves the limit with it, and so hides each of its values; it cannot hide their mean."""
    honest = floors_of(diff_traces(EAGER, FUSED))["logits"]
    assert honest.rounding is not None
    lines = shaken(load(FUSED), 10 * honest.floor / honest.rounding, share=0.2)
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert (verdict.verdict, verdict.roots[0].difference.phase, verdict.roots[0].difference.kind) == (
        "different",
        "verify",
        "real",
    )


def test_what_moves_every_value_far_is_one_root_too_and_the_choices_behind_it_are_its_consequences(
    tmp_path: Path,
) -> None:
    lines = shaken(load(FUSED), 10 * FLOAT32.most)
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert floors_of(verdict)["logits"].floor == floors_of(verdict)["logits"].most
    assert [root.difference.kind for root in verdict.roots] == ["real"]
    assert verdict.roots[0].drift is not None
    assert verdict.roots[0].inherited > 0


def test_a_noise_file_tells_what_the_pair_alone_cannot(tmp_path: Path) -> None:
    """Every logit of the candidate is off by less than the dtype allows: against a second honest run it is real."""
    candidate = store(renamed(shaken(load(FUSED), 26), "candidate"), tmp_path / "b.jsonl")
    assert diff_traces(EAGER, candidate).verdict == "equal"
    verdict = diff_traces(EAGER, candidate, DiffOptions(noise=FUSED))
    assert (verdict.verdict, verdict.roots[0].difference.field) == ("different", "top_logits")
    assert verdict.roots[0].drift is not None
    assert verdict.roots[0].drift.against == "noise-file"
    assert {floor.source for floor in verdict.floors} == {"noise-file"}
    again = store(renamed(load(FUSED), "again"), tmp_path / "again.jsonl")
    assert diff_traces(EAGER, again, DiffOptions(noise=FUSED)).verdict == "equal"


def test_a_noise_file_in_another_mode_says_nothing_of_the_drift_as_a_whole(tmp_path: Path) -> None:
    """The baseline once more does not drift at all; an honest candidate in another mode does, and may."""
    again = store(renamed(load(EAGER), "again"), tmp_path / "again.jsonl")
    assert diff_traces(EAGER, FUSED, DiffOptions(noise=again)).verdict == "equal"


def with_instructions(lines: Lines, name: str, torch: str = "AVX512") -> Lines:
    lines[0]["device"]["instructions"] = {"torch": torch}
    return renamed(lines, name)


def test_two_runs_of_the_same_kernels_leave_the_same_bits(tmp_path: Path) -> None:
    """A candidate that is off by less than noise is told from the last good build of the very same kernels."""
    baseline = store(with_instructions(load(EAGER), "a"), tmp_path / "a.jsonl")
    good = store(with_instructions(load(FUSED), "good"), tmp_path / "good.jsonl")
    off = store(with_instructions(shaken(load(FUSED), 2), "off"), tmp_path / "off.jsonl")
    options = DiffOptions(noise=good)
    verdict = diff_traces(baseline, off, options)
    assert verdict.exit_code == 1
    assert verdict.roots[0].drift is not None
    assert (verdict.roots[0].drift.against, verdict.roots[0].drift.allowed) == ("same-kernels", 0)
    same = store(with_instructions(load(FUSED), "same"), tmp_path / "same.jsonl")
    assert diff_traces(baseline, same, options).verdict == "equal"
    elsewhere = store(with_instructions(shaken(load(FUSED), 2), "off", "AVX2"), tmp_path / "elsewhere.jsonl")
    assert diff_traces(baseline, elsewhere, options).verdict == "equal", "other kernels round otherwise"


def test_rows_that_lie_otherwise_may_be_summed_otherwise(tmp_path: Path) -> None:
    """From a step on whose tree is not the same slot by slot, the same kernels promise nothing of the logits."""
    baseline = store(with_instructions(load(EAGER), "a"), tmp_path / "a.jsonl")
    options = DiffOptions(noise=store(with_instructions(load(FUSED), "good"), tmp_path / "good.jsonl"))
    moved = shaken(load(FUSED), 2)
    permute_slots(moved, seed=0)
    candidate = store(with_instructions(moved, "moved"), tmp_path / "moved.jsonl")
    assert diff_traces(baseline, candidate, options).verdict == "equal"


def test_excess_and_movement_are_silent_on_honest_values_and_name_their_share() -> None:
    honest, faulty = drift_of([1.0, 2.0] * 100), drift_of([1.0, 2.0] * 50 + [90.0] * 100)
    assert not find_excess(honest, measured_floors(honest, 10))
    found = find_excess(faulty, measured_floors(faulty, 10))
    assert {excess.quantity for excess in found} == set(QUANTITIES)
    assert all(excess.share == 0.5 and excess.number == 10 for excess in found)
    assert not find_movement(drift_of([0.0] * 200 + [1.0] * 5))
    assert find_movement(drift_of([0.0] * 100 + [1.0] * 100))[0].number == 10


# Where it is measured.


def test_steps_that_record_no_tree_are_held_slot_by_slot(tmp_path: Path) -> None:
    """Without trees no node is matched; where their tensors differ, what follows is no noise all the same."""
    bare, moved = load(EAGER), load(FUSED)
    for step in (line for line in [*bare, *moved] if line["kind"] == "step"):
        del step["tree"]
    a, same = store(bare, tmp_path / "a.jsonl"), store(moved, tmp_path / "same.jsonl")
    for step in (line for line in moved if line["kind"] == "step" and line["step"] == 1):
        step["tensors"]["positions"][1] += 1
    other = store(moved, tmp_path / "other.jsonl")
    counts = []
    for path in (same, other):
        with TraceReader(a) as first, TraceReader(path) as second:
            counts.append(len(measure_drift(first, second).samples["hidden-norms"]))
    assert counts[0] > counts[1] > 0
    with TraceReader(EAGER) as first, TraceReader(same) as second:
        assert not len(measure_drift(first, second).samples["entropy"]), "a tree on one side alone is another structure"
    verdict = diff_traces(a, same)
    assert "run.capabilities" in {blame.invariant for blame in verdict.violations}
    assert not verdict.roots


def test_where_nothing_can_be_measured_the_dtype_is_the_floor_and_it_is_said() -> None:
    verdict = diff_traces(EAGER, FAULTY)  # positions differ from the first step on
    found = {(floor.source, floor.typical, floor.floor == floor.most) for floor in verdict.floors}
    assert found == {("dtype", None, True)}


def test_values_behind_a_structural_difference_are_no_noise(tmp_path: Path) -> None:
    lines = load(FUSED)
    turns = {line["turn"] for line in lines if line["kind"] == "step"}
    for step in (line for line in lines if line["kind"] == "step" and line["turn"] == min(turns) and line["step"] >= 3):
        step["tensors"]["positions"][1] += 1
        step["verify"]["top_logits"] = [[value + 5 for value in two] for two in step["verify"]["top_logits"]]
    with TraceReader(EAGER) as a, TraceReader(store(lines, tmp_path / "b.jsonl")) as b:
        drift = measure_drift(a, b)
    assert max(drift.samples["logits"].roundings) < FLOAT32.most / 4


def test_of_two_dtypes_the_coarser_one_gives_the_bounds(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["dtype"] = "bfloat16"
    other = store(lines, tmp_path / "b.jsonl")
    for pair in ((EAGER, other), (other, EAGER)):
        verdict = diff_traces(*pair, DiffOptions(allowed=frozenset(["dtype"])))
        assert {floor.rounding for floor in verdict.floors} == {EPSILON["bfloat16"] * spacing(16)}


@given(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.integers(1, 8))
def test_gaps_are_scaled_the_same_from_both_sides(value: float, gap: float, num_terms: int) -> None:
    assert scaled_gap(value, value + gap, num_terms) == scaled_gap(value + gap, value, num_terms)
    assert scaled_gap(value, value + gap, num_terms) <= abs(gap) + 1e-9


def test_a_verdict_survives_its_own_json() -> None:
    verdict = diff_traces(EAGER, FAULTY)
    again = Verdict.model_validate(json.loads(verdict.model_dump_json(by_alias=True)))
    assert again == verdict


# Which runs may tell it.


def test_a_noise_file_of_another_model_is_refused(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines = renamed(lines, "other")
    lines[0]["teacher"]["weights_digest"] = "0123456789abcdef"
    other = store(lines, tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match=r"teacher\.weights_digest"):
        diff_traces(EAGER, FUSED, DiffOptions(noise=other))


def renamed(lines: Lines, name: str) -> Lines:
    lines[0]["run_id"] = name
    return lines


def test_a_noise_file_must_be_an_honest_run_of_its_own(tmp_path: Path) -> None:
    candidate = store(renamed(shaken(load(FUSED), 1.0), "candidate"), tmp_path / "b.jsonl")
    for noise, why in ((candidate, "the candidate itself"), (EAGER, "the baseline itself"), (FAULTY, "fault F16")):
        with pytest.raises(UsageError, match=why):
            diff_traces(EAGER, candidate, DiffOptions(noise=noise))
    lines = renamed(load(FUSED), "broken")
    first_step(lines)["commit"]["prefix_after"] = "0123456789abcdef"
    broken = store(lines, tmp_path / "broken.jsonl")
    with pytest.raises(UsageError, match=r"commit\.prefix-unchanged"):
        diff_traces(EAGER, candidate, DiffOptions(noise=broken))
