"""The official EAGLE code, recorded by the adapter: sound by itself, and the same decisions as ours.

The recordings were made by ``python -m benchmarks.conformance``, four prompts of the demo models by the official code.
No line of that code is here, so what is wrapped of it is played by a stand-in as well.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import eagle_stand_in
from support.eagle_stand_in import EaModel, following
from support.traces import Lines, store

from specscope.adapters import record_eagle
from specscope.engine import decode
from specscope.engine.run.prompts import Prompt
from specscope.engine.tree.policy import TreePolicy
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

RECORDINGS = Path(__file__).with_name("recordings")
FLOAT32, FLOAT16 = (RECORDINGS / f"official-eagle-{dtype}.jsonl.gz" for dtype in ("float32", "float16"))
#: What official EAGLE does not let one see.
UNSEEN = {
    "verify.dispatch",
    "verify.input-digest",
    "commit.content-moved",
    "commit.prefix-unchanged",
    "tree.scores-add-up",
}


def load(recording: Path) -> Lines:
    """Its records as plain objects."""
    return [json.loads(line) for line in gzip.decompress(recording.read_bytes()).splitlines()]


def first(lines: Lines, kind: str = "step") -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == kind)


def accepting(lines: Lines) -> dict[str, Any]:
    """A step that accepted two drafts and more."""
    return next(line for line in lines if line["kind"] == "step" and line["accept"]["accepted_length"] > 1)


@pytest.mark.parametrize("recording", [FLOAT32, FLOAT16], ids=["float32", "float16"])
def test_what_the_official_code_did_is_sound(recording: Path) -> None:
    report = check_trace(recording)
    assert (report.num_violations, report.num_steps, report.end_reason) == (0, 30, "complete")
    judged = {name for name, tally in report.invariants.items() if tally.passed}
    assert not judged & UNSEEN
    assert set(MUTANTS) <= judged


@pytest.mark.numbers
@pytest.mark.slow
@pytest.mark.parametrize(("recording", "outcomes"), [(FLOAT32, {"equal"}), (FLOAT16, {"equal", "ties"})])
def test_this_engine_decides_as_the_official_code_did(recording: Path, outcomes: set[str], tmp_path: Path) -> None:
    with TraceReader(recording) as reader:
        dtype = reader.manifest.dtype
        starts = [reader.turn_start(entry) for entry in reader.turns]
    prompts = [Prompt(start.prompt_id, ids=tuple(start.prompt_ids)) for start in starts]
    policy, trace = TreePolicy(kind="dynamic", depth=5, top_k=4, budget=16), tmp_path / "ours.jsonl"
    decode(prompts, mode="eager", dtype=dtype, policy=policy, max_new_tokens=32, device="cpu", trace=trace)
    verdict = diff_traces(recording, trace)
    assert verdict.verdict in outcomes
    assert verdict.impact.num_steps_a == 30


def shift_a_position(lines: Lines) -> None:
    first(lines)["tensors"]["positions"][2] += 1


def see_a_sibling(lines: Lines) -> None:
    rows = first(lines)["tensors"]["mask_rows"]
    rows[2] = f"{int(rows[2][:2], 16) | 2:02x}{rows[2][2:]}"


def accept_less(lines: Lines) -> None:
    step = accepting(lines)
    step["accept"]["path"].pop()
    step["accept"]["accepted_length"] -= 1


def commit_one_too_few(lines: Lines) -> None:
    accepting(lines)["commit"]["committed_after"] -= 1


def feed_another_pair(lines: Lines) -> None:
    first(lines)["draft"]["inputs"]["tokens"][-1] += 1


def prefer_another_token(lines: Lines) -> None:
    first(lines)["verify"]["argmax"][0] += 1


def leave_the_best_out(lines: Lines) -> None:
    """A candidate of the last level, which is not in the tree, would have been better by far."""
    step = first(lines)
    levels, kept = step["draft"]["levels"], set(step["tree"]["tokens"])
    at = next(at for at, token in enumerate(levels[-1]["tokens"]) if token not in kept)
    levels[-1]["logprobs"][at] = 2.0


MUTANTS: dict[str, Callable[[Lines], None]] = {
    "tensors.position-is-length-plus-depth": shift_a_position,
    "tensors.mask-is-ancestors": see_a_sibling,
    "accept.walk": accept_less,
    "commit.length-equation": commit_one_too_few,
    "draft.pair-tokens": feed_another_pair,
    "verify.argmax-is-top": prefer_another_token,
    "tree.best-of-candidates": leave_the_best_out,
}


@pytest.mark.parametrize("invariant", MUTANTS)
@pytest.mark.parametrize("recording", [FLOAT32, FLOAT16], ids=["float32", "float16"])
def test_a_mistake_in_it_is_found(recording: Path, invariant: str, tmp_path: Path) -> None:
    lines = load(recording)
    MUTANTS[invariant](lines)
    report = check_trace(store(lines, tmp_path / "mutant.jsonl"))
    assert invariant in {name for name, tally in report.invariants.items() if tally.failed}


def ids_of(*prompt: int) -> torch.Tensor:
    return torch.tensor([prompt])


def text_of(start: int, length: int) -> list[int]:
    """What the toy teacher says after ``start``."""
    tokens = [following(start)]
    while len(tokens) < length:
        tokens.append(following(tokens[-1]))
    return tokens


def test_every_call_becomes_a_turn_and_the_code_is_as_it_was(tmp_path: Path) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    plain, before = model.eagenerate(ids_of(4, 7, 1)).tolist(), dict(vars(model))
    with record_eagle(model, trace, prompt_ids=["mine"]):
        assert model.eagenerate(ids_of(4, 7, 1)).tolist() == plain
        model.eagenerate(ids_of(9, 9))
    assert vars(model).keys() == before.keys(), "nothing is left behind"
    assert model.eagenerate(ids_of(4, 7, 1)).tolist() == plain
    report = check_trace(trace)
    assert (report.num_violations, report.failures) == (0, [])
    with TraceReader(trace) as reader:
        assert [entry.prompt_id for entry in reader.turns] == ["mine", "prompt-1"]
        ends = [reader.turn_end(entry) for entry in reader.turns]
        assert reader.manifest.tree_policy.budget == 4
    for start, end in zip((1, 9), ends, strict=True):
        assert end is not None
        assert end.reason == "criterion"
        assert end.num_accepted > 0
        assert end.output_ids == text_of(start, len(end.output_ids))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_turns_end_where_they_are_told_to(tmp_path: Path, limit: int) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    with record_eagle(model, trace, max_new_tokens=limit):
        model.eagenerate(ids_of(4, 7, 1))
    assert check_trace(trace).num_violations == 0
    with TraceReader(trace) as reader:
        end = reader.turn_end(reader.turns[0])
    assert end is not None
    assert (end.output_ids, end.reason) == (text_of(1, limit), "length")


def test_a_turn_ends_at_the_end_of_text(tmp_path: Path) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    model.tokenizer.eos_token_id = text_of(1, 3)[-1]
    with record_eagle(model, trace, max_new_tokens=8):
        model.eagenerate(ids_of(4, 7, 1))
    assert check_trace(trace).num_violations == 0
    with TraceReader(trace) as reader:
        end = reader.turn_end(reader.turns[0])
    assert end is not None
    assert (end.output_ids, end.reason) == (text_of(1, 3), "eos")


def test_a_token_that_is_appended_and_was_not_accepted_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = eagle_stand_in.update_inference_inputs

    def update(input_ids: torch.Tensor, *rest: Any) -> Any:
        text, *others = plain(input_ids, *rest)
        text[0, input_ids.shape[1] + 1 :] += 1  # what follows the root
        return (text, *others)

    monkeypatch.setattr(eagle_stand_in, "update_inference_inputs", update)
    model, trace = EaModel(), tmp_path / "run.jsonl"
    with record_eagle(model, trace):
        model.eagenerate(ids_of(4, 7, 1))
    assert check_trace(trace).invariants["stop.emitted"].failed


def test_a_call_that_fails_ends_its_turn_and_the_next_is_recorded(tmp_path: Path) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    plain, failing = model.ea_layer.logsoftmax.forward, iter([False] * 5)

    def forward(logits: torch.Tensor) -> torch.Tensor:
        if next(failing, True):
            raise RuntimeError("out of memory")
        return plain(logits)

    with record_eagle(model, trace):
        model.ea_layer.logsoftmax.forward = forward  # type: ignore[assignment, method-assign]
        with pytest.raises(RuntimeError, match="out of memory"):
            model.eagenerate(ids_of(4, 7, 1))
        model.ea_layer.logsoftmax.forward = plain  # type: ignore[method-assign]
        model.eagenerate(ids_of(9, 9))
    report = check_trace(trace)
    assert (report.num_violations, report.end_reason) == (0, "complete")
    with TraceReader(trace) as reader:
        reasons = [end.reason for entry in reader.turns if (end := reader.turn_end(entry)) is not None]
    assert reasons == ["failed", "criterion"]


def test_other_methods_of_the_model_are_not_recorded(tmp_path: Path) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    unwatched = EaModel.eagenerate  # as a method of another name would call the same functions
    with record_eagle(model, trace):
        plain = unwatched(model, ids_of(4, 7, 1)).tolist()
        assert model.eagenerate(ids_of(4, 7, 1)).tolist() == plain
        unwatched(model, ids_of(9, 9))
    assert check_trace(trace).num_violations == 0
    with TraceReader(trace) as reader:
        assert len(reader.turns) == 1


def test_a_tokenizer_without_an_end_of_text_has_no_stop_token(tmp_path: Path) -> None:
    model, trace = EaModel(), tmp_path / "run.jsonl"
    model.tokenizer.eos_token_id = None
    with record_eagle(model, trace, max_new_tokens=3):
        model.eagenerate(ids_of(4, 7, 1))
    with TraceReader(trace) as reader:
        rules = reader.manifest.stop_rules
    assert rules is not None
    assert rules.eos_token_ids == []


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "run.jsonl"
    with pytest.raises(UsageError, match="got Linear, wanted an EaModel"), record_eagle(torch.nn.Linear(1, 1), trace):
        pass
    older = EaModel()
    older.use_eagle3 = False
    with pytest.raises(UsageError, match="load it with use_eagle3=True"), record_eagle(older, trace):
        pass
    assert not trace.exists()
    with pytest.raises(UsageError, match=r"call model\.eagenerate inside"), record_eagle(EaModel(), trace):
        pass
    model = EaModel()
    with pytest.raises(UsageError, match="only greedy calls"), record_eagle(model, trace):
        model.eagenerate(ids_of(1, 2), temperature=0.7)
    assert not trace.exists(), "nothing was decoded"
