"""The noise floor: measured on honest values, not moved by faulty ones, and stated with its sample."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import EAGER, FAULTY, FUSED, Lines, first_step, load, store

from specscope.schemas.verdict import NoiseFloor, Quantity, Verdict
from specscope.tracer.compare.diff import DiffOptions, diff_traces
from specscope.tracer.compare.judge import scaled_gap
from specscope.tracer.compare.noise import MOST, QUANTITIES, measure_gaps, measured_floors
from specscope.tracer.errors import UsageError
from specscope.tracer.reader import TraceReader


def floors_of(verdict: Verdict) -> dict[Quantity, NoiseFloor]:
    return {floor.quantity: floor for floor in verdict.floors}


def shaken(lines: Lines, size: float, share: float = 1.0, seed: int = 0) -> Lines:
    """A copy in which a share of all teacher logits moved by up to ``size``, its two best kept in their order."""
    rng, other = random.Random(seed), copy.deepcopy(lines)
    for step in (line for line in other if line["kind"] == "step"):
        for two in step["verify"]["top_logits"]:
            if rng.random() < share:
                moved = size * rng.uniform(0.5, 1)
                two[0], two[1] = two[0] + moved, two[1] + moved
    return other


def test_the_floor_of_an_honest_pair_lies_above_all_that_was_seen_and_far_below_the_dtypes_most() -> None:
    with TraceReader(EAGER) as a, TraceReader(FUSED) as b:
        gaps = measure_gaps(a, b)
    for floor in measured_floors("float32", gaps, "this-pair"):
        assert floor.sample_size == len(gaps[floor.quantity]) > 64
        assert max(gaps[floor.quantity]) < floor.floor < floor.most / 10


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
            counts.append(len(measure_gaps(first, second)["hidden-norms"]))
    assert counts[0] > counts[1] > 0
    with TraceReader(EAGER) as first, TraceReader(same) as second:
        assert not measure_gaps(first, second)["logits"], "a tree on one side alone is another structure"
    verdict = diff_traces(a, same)
    assert "run.capabilities" in {blame.invariant for blame in verdict.violations}
    assert not verdict.roots


def test_a_faulty_minority_does_not_move_the_floor(tmp_path: Path) -> None:
    """A fifth of the logits is off by ten times the honest noise's floor: it is found, and not measured as noise."""
    honest = floors_of(diff_traces(EAGER, FUSED))["logits"].floor
    lines = shaken(load(FUSED), 10 * honest, share=0.2)
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert floors_of(verdict)["logits"].floor < 3 * honest
    assert (verdict.verdict, verdict.roots[0].difference.phase, verdict.roots[0].difference.kind) == (
        "different",
        "verify",
        "real",
    )
    assert verdict.roots[0].difference.floor == floors_of(verdict)["logits"].floor


def test_what_moves_every_value_is_still_held_against_the_dtypes_most(tmp_path: Path) -> None:
    lines = shaken(load(FUSED), 10 * MOST["float32"])
    verdict = diff_traces(EAGER, store(lines, tmp_path / "b.jsonl"))
    assert floors_of(verdict)["logits"].floor == MOST["float32"]
    assert verdict.roots[0].difference.kind == "real"


def test_a_noise_file_tells_what_the_pair_alone_cannot(tmp_path: Path) -> None:
    """Every logit of the candidate is off by less than the dtype's most: against a second honest run it is real."""
    lines = renamed(shaken(load(FUSED), 0.5 * MOST["float32"]), "candidate")
    candidate = store(lines, tmp_path / "b.jsonl")
    assert diff_traces(EAGER, candidate).verdict == "equal"
    verdict = diff_traces(EAGER, candidate, DiffOptions(noise=FUSED))
    assert (verdict.verdict, verdict.roots[0].difference.field) == ("different", "top_logits[0]")
    assert {floor.source for floor in verdict.floors} == {"noise-file"}
    again = store(renamed(load(FUSED), "again"), tmp_path / "again.jsonl")
    assert diff_traces(EAGER, again, DiffOptions(noise=FUSED)).verdict == "equal"


def test_a_noise_file_of_another_model_is_refused(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines = renamed(lines, "other")
    lines[0]["teacher"]["weights_digest"] = "0123456789abcdef"
    other = store(lines, tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match=r"teacher\.weights_digest"):
        diff_traces(EAGER, FUSED, DiffOptions(noise=other))


def test_where_nothing_can_be_measured_the_dtype_is_the_floor_and_it_is_said() -> None:
    verdict = diff_traces(EAGER, FAULTY)  # positions differ from the first step on
    assert [(f.source, f.sample_size, f.floor) for f in verdict.floors] == [("dtype", 0, MOST["float32"])] * 3


def test_values_behind_a_structural_difference_are_no_noise(tmp_path: Path) -> None:
    lines = load(FUSED)
    turns = {line["turn"] for line in lines if line["kind"] == "step"}
    for step in (line for line in lines if line["kind"] == "step" and line["turn"] == min(turns) and line["step"] >= 3):
        step["tensors"]["positions"][1] += 1
        step["verify"]["top_logits"] = [[value + 5 for value in two] for two in step["verify"]["top_logits"]]
    with TraceReader(EAGER) as a, TraceReader(store(lines, tmp_path / "b.jsonl")) as b:
        gaps = measure_gaps(a, b)
    assert max(gaps["logits"]) < 1e-4


@given(
    st.lists(st.floats(0, 1e-5), min_size=64, max_size=200),
    st.lists(st.floats(0, 1e6), max_size=15),
    st.sampled_from(sorted(MOST)),
)
def test_floors_stay_between_rounding_and_the_most(honest: list[float], wild: list[float], dtype: str) -> None:
    gaps: dict[Quantity, list[float]] = {quantity: [*honest, *wild] for quantity in QUANTITIES}
    for floor in measured_floors(dtype, gaps, "this-pair"):
        assert floor.least <= floor.floor <= floor.most
    for floor in measured_floors(dtype, gaps, "noise-file"):
        assert floor.floor >= max(gaps[floor.quantity])


@given(st.floats(-1e4, 1e4), st.floats(-1e-3, 1e-3), st.integers(1, 8))
def test_gaps_are_scaled_the_same_from_both_sides(value: float, gap: float, num_terms: int) -> None:
    assert scaled_gap(value, value + gap, num_terms) == scaled_gap(value + gap, value, num_terms)
    assert scaled_gap(value, value + gap, num_terms) <= abs(gap) + 1e-9


def test_a_verdict_survives_its_own_json() -> None:
    verdict = diff_traces(EAGER, FAULTY)
    again = Verdict.model_validate(json.loads(verdict.model_dump_json(by_alias=True)))
    assert again == verdict


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


def test_of_two_dtypes_the_coarser_one_gives_the_bounds(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["dtype"] = "bfloat16"
    other = store(lines, tmp_path / "b.jsonl")
    for pair in ((EAGER, other), (other, EAGER)):
        verdict = diff_traces(*pair, DiffOptions(allowed=frozenset(["dtype"])))
        assert {floor.most for floor in verdict.floors} == {MOST["bfloat16"]}
