"""Layers with a sliding window: trees give the teacher's own tokens, and the trace says what every slot saw."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from support.architectures import VOCAB, save_tiny, tiny_config, tiny_model
from support.known_drafter import KnownDrafter
from support.pipeline_runs import record_alone, record_pipeline
from support.traced import record
from support.traces import load
from transformers import AutoModelForCausalLM

from specscope.engine.backends.windows import narrow_mask, visible_in
from specscope.engine.cli.bisect import bisect
from specscope.engine.cli.replay import replay
from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.hf.teacher import GivenTeacher
from specscope.engine.lab.faults import FAULTS
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import GREEDY, ModelChoice
from specscope.engine.teacher.model import Teacher, TeacherOptions
from specscope.engine.teacher.probe import refuse_untreelike
from specscope.engine.tree.tensors import ancestor_table, mask_behind, visible_from_ancestors
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UnsupportedModelError
from specscope.tracer.oracle.check import check_trace

#: Shorter than any prompt, and than the depth of a tree.
SIZES = (4, 11)
FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {},  # every layer slides
    "gemma2": {"attn_logit_softcapping": None, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma3_text": {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
}
LAYERS = {"mistral": [0, 1, 2, 3], "gemma2": [0, 2], "gemma3_text": [0, 1, 3], "qwen2": [2, 3]}
PROMPTS = [
    Prompt("long", ids=(5, 9, 17, 9, 5, 33, 12) * 4),
    Prompt("short", ids=(3, 3, 8)),
    Prompt("other", ids=tuple(range(2, 30)) * 2),
]
NEW = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A tiny model of a family whose sliding windows are of that size."""

    @cache
    def saved(family: str, size: int) -> Path:
        fields = {"num_hidden_layers": 4, **FAMILIES[family], "sliding_window": size}
        return save_tiny(tmp_path_factory.mktemp(family), family, **fields)

    return saved


def choice(teacher: Path, mode: Any = "fused", **more: Any) -> ModelChoice:
    return ModelChoice(teacher=str(teacher), drafter="ngram:1-8", dtype="float32", device="cpu", mode=mode, **more)


def of_transformers(model: Any, ids: tuple[int, ...]) -> list[int]:
    """The prompt and what its own greedy search says to it."""
    prompt = torch.tensor([ids])
    asked: dict[str, Any] = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "pad_token_id": 0}
    text: list[int] = model.generate(prompt, max_new_tokens=NEW, **asked)[0].tolist()
    return text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attention", ["eager", "fused"])
def test_trees_give_transformers_own_tokens(
    folder: Callable[[str, int], Path], family: str, size: int, attention: str
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder(family, size)).eval()
    model.generation_config.eos_token_id = None
    teacher = Teacher.load(
        str(folder(family, size)),
        TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention=attention),
    )
    assert teacher.sliding_windows == [size if layer in LAYERS[family] else None for layer in range(4)]
    for prompt in PROMPTS:
        ids = prompt.ids or ()
        text = of_transformers(model, ids)
        session = Session(teacher, KnownDrafter([text], VOCAB))
        list(session.decode(list(ids), StopRules(NEW, [], [])))
        assert session.result.output_ids == text[len(ids) :]
        assert session.result.mean_accepted_length > 3


def says_what_was_seen(lines: list[dict[str, Any]], layers: list[int]) -> None:
    assert lines[0]["teacher"]["sliding_windows"] == [4 if number in layers else None for number in range(4)]
    windows = [line["verify"]["windows"] for line in lines if line["kind"] == "step"]
    assert {tuple(window["layers"]) for (window,) in windows} == {tuple(layers)}
    assert max(position for (window,) in windows for position in window["first_positions"]) > 40


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_recorded_soundly_and_alike_in_both_modes(
    folder: Callable[[str, int], Path], family: str, tmp_path: Path
) -> None:
    alone = record(choice(folder(family, 4), "eager"), PROMPTS, None).output_ids
    for mode in ("eager", "fused"):
        trace = tmp_path / f"{mode}.jsonl"
        batch = record(choice(folder(family, 4), mode), PROMPTS, trace, batch_size=2)
        assert batch.output_ids == alone
        report = check_trace(trace)
        assert report.num_violations == 0
        assert report.invariants["verify.windows"].passed == report.num_steps > 10
        says_what_was_seen(load(trace), LAYERS[family])
    assert diff_traces(tmp_path / "eager.jsonl", tmp_path / "fused.jsonl").verdict == "equal"


@pytest.mark.parametrize("more", [{"graph": "on"}, {"kernel": "two-part"}], ids=["captured", "two-part"])
def test_what_was_seen_is_recorded_by_graphs_and_other_kernels_too(
    folder: Callable[[str, int], Path], more: dict[str, Any], tmp_path: Path
) -> None:
    eager, other = tmp_path / "eager.jsonl", tmp_path / "other.jsonl"
    settings: dict[str, Any]
    for trace, settings in ((eager, {"mode": "eager"}), (other, more)):
        record(choice(folder("gemma3_text", 4), **settings), PROMPTS, trace, batch_size=2)
        report = check_trace(trace)
        assert report.num_violations == 0
        assert report.invariants["verify.windows"].passed == report.num_steps
    assert diff_traces(eager, other).verdict == "equal"


@pytest.mark.parametrize("fault", ["F35.slot", "F35.block"])
def test_a_wrong_window_is_found_placed_and_blamed(
    folder: Callable[[str, int], Path], fault: str, tmp_path: Path
) -> None:
    assert FAULTS[fault].not_run is not None
    honest, faulty = tmp_path / "honest.jsonl", tmp_path / "faulty.jsonl"
    record(choice(folder("gemma3_text", 4), "eager"), PROMPTS, honest, batch_size=2)
    record(choice(folder("gemma3_text", 4)), PROMPTS, faulty, batch_size=2, fault=fault)
    violated = {name for name, tally in check_trace(faulty).invariants.items() if tally.failed}
    assert violated == {FAULTS[fault].expect.invariant}
    verdict = diff_traces(honest, faulty)
    assert verdict.verdict == "different"
    difference = verdict.roots[0].difference
    assert (difference.phase, difference.field) == FAULTS[fault].expect.places[0]
    assert difference.a.endswith(" on")  # as in: 6 from 25 on


def test_bisect_and_replay_run_such_layers(folder: Callable[[str, int], Path], tmp_path: Path) -> None:
    honest, faulty, again = (tmp_path / f"{name}.jsonl" for name in ("honest", "faulty", "again"))
    record(choice(folder("gemma3_text", 4), "eager"), PROMPTS[:1], honest)
    record(choice(folder("gemma3_text", 4)), PROMPTS[:1], faulty, fault="F35.block")
    done = CliRunner().invoke(bisect, [str(honest), str(faulty)])
    assert done.output.startswith("different: layer 0 attention")
    done = CliRunner().invoke(replay, [str(faulty), "--out", str(again)])
    assert done.exit_code == 0, done.output
    assert check_trace(again).num_violations == 0  # without the fault
    done = CliRunner().invoke(bisect, [str(honest), str(again), "--at", "0/1"])
    assert done.output.startswith("equal")


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_pipelines_decode_such_layers(tmp_path: Path, family: str) -> None:
    fields = {**FAMILIES[family], "num_hidden_layers": 8, "sliding_window": 4, "eos_token_id": 0}
    teacher = save_tiny(tmp_path / "teacher", family, **fields)
    alone = record_alone(teacher, tmp_path / "alone.jsonl", GREEDY)
    pipeline = record_pipeline(alone, teacher, GREEDY)
    assert check_trace(pipeline).num_violations == 0
    assert diff_traces(alone, pipeline).verdict == "equal"


def path_to(slot: int, parents: list[int]) -> list[int]:
    return [*([] if slot == 0 else path_to(parents[slot], parents)), slot]


def test_a_window_is_the_last_positions_of_each_slots_own_path() -> None:
    """Against positions, which are counted here by walking up from every slot."""
    parents, lengths, generator = [0, 0, 0, 1, 2, 3, 3, 4, 7, 7], [13, 2], torch.Generator().manual_seed(3)
    parents += [int(torch.randint(slot, (1,), generator=generator)) for slot in range(10, 20)]
    table = ancestor_table(torch.tensor([parents] * 2), len(parents))
    seen = visible_from_ancestors(table, torch.ones(2, len(parents), dtype=torch.bool))
    mask = mask_behind(lengths, seen, torch.float32)
    for window in (1, 2, 5, 14):
        shown = visible_in(narrow_mask(mask, window))
        for row, length in enumerate(lengths):
            for slot in range(len(parents)):
                columns = [*range(length), *(length + ancestor for ancestor in path_to(slot, parents))]
                assert shown[row, 0, slot].nonzero().flatten().tolist() == columns[-window:]


def test_no_layer_of_another_window_than_its_configuration_says_is_accepted() -> None:
    model = tiny_model(tiny_config("gemma3_text", sliding_window=9))
    refuse_untreelike(GivenTeacher(model), "mine")  # sound as it is, and its windows are as they were
    assert [layer.self_attn.sliding_window for layer in model.model.layers] == [9, 9, 9]
    assert model.config.sliding_window == 9
    model.model.layers[1].self_attn.sliding_window = None
    with pytest.raises(UnsupportedModelError, match="gives the attention of layer 1 no sliding window"):
        refuse_untreelike(GivenTeacher(model), "mine")


@pytest.mark.parametrize(
    ("model_type", "says"),
    [
        ("olmoe", "gives the branches of a tree other logits"),  # it states a window, and its mask has none
        ("minimax_m2", "gives the attention of layer 0 no sliding window"),
    ],
)
def test_a_window_that_the_model_itself_does_not_follow_is_refused(tmp_path: Path, model_type: str, says: str) -> None:
    save_tiny(tmp_path, model_type, sliding_window=40)
    with pytest.raises(UnsupportedModelError, match=says):
        Teacher.load(str(tmp_path), TeacherOptions(dtype=torch.float32, device=torch.device("cpu"), attention="fused"))


def test_inside_transformers_texts_go_on_past_the_window() -> None:
    model = tiny_model(tiny_config("mistral", sliding_window=6))
    ids = torch.tensor([[5, 9, 17, 9, 5, 33, 12, 4]])
    asked: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    plain = model.generate(ids, max_new_tokens=40, **asked)
    drawn = model.generate(ids, max_new_tokens=40, custom_generate=tree_generate, specscope=TreeGenerate(), **asked)
    assert torch.equal(drawn, plain)
