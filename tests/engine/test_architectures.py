"""Which architectures decode trees: they give transformers' own greedy tokens, and the others are refused in words."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import VOCAB, save_tiny, tiny_config, tiny_model
from support.known_drafter import KnownDrafter
from support.traced import record
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from specscope.engine.backends.attention import registered_name
from specscope.engine.cache.strategies import STRATEGIES
from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.hf.teacher import GivenTeacher
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import ModelChoice
from specscope.engine.teacher.files import full_sight, sliding_windows
from specscope.engine.teacher.model import Teacher, TeacherOptions
from specscope.engine.teacher.probe import refuse_untreelike
from specscope.tracer.errors import UnsupportedModelError, UsageError
from specscope.tracer.oracle.check import check_trace

DOCUMENT = Path(__file__).parents[2] / "docs" / "engine.md"
PROMPT = [5, 9, 17, 9, 5, 33, 12]
NEW = 24
#: The architectures that the document promises.
LISTED = re.findall(
    r"`([\w-]+)`",
    DOCUMENT.read_text(encoding="utf-8").partition("<!-- architectures -->")[2].partition("<!-- end -->")[0],
)
#: Latent attention has a key for every head.
LATENT = {"num_key_value_heads": 4}
FIELDS = dict.fromkeys(
    ("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "minicpm3", "youtu"), LATENT
)
OWN_CODE = "computes attention by its own code: none of its 3 layers called"
OWN_KINDS = "chooses among its own kinds of attention and takes no other"
#: Architectures that would run and whose traces would be violated, or whose tokens would not be the teacher's.
REFUSED = {
    **dict.fromkeys(("big_bird", "codegen", "gpt_neox_japanese", "megatron-bert", "rembert", "xglm"), OWN_CODE),
    **dict.fromkeys(("falcon", "gptj"), OWN_KINDS),
    **dict.fromkeys(("gemma2", "vaultgemma"), "caps its scores (softcap), which neither"),
    **dict.fromkeys(("gpt_oss", "granite_swa"), "has attention sinks (s_aux), which neither"),
    "gemma4_text": "failed on a small one in float32 (ValueError: got keys of shape",
}
#: Among those, what transformers itself has made exchangeable since.
EXCHANGEABLE = {"codegen", "gptj"} if tuple(map(int, version("transformers").split(".")[:2])) >= (5, 24) else set()


def options(attention: str = "fused", dtype: torch.dtype = torch.float32, **more: Any) -> TeacherOptions:
    return TeacherOptions(dtype=dtype, device=torch.device("cpu"), attention=attention, **more)


def known(model_type: str) -> str:
    """The type, where this transformers has it."""
    if model_type not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    return model_type


def reference(folder: Path, new: int = NEW) -> list[int]:
    """The prompt and what transformers' own greedy search says to it, in its own choice of attention."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT])
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
        )
    return [int(token) for token in output[0]]


def decoded(teacher: Teacher, text: list[int], new: int = NEW) -> list[int]:
    """The same by trees whose right branches stand behind wrong ones; asserts that whole blocks were accepted."""
    session = Session(teacher, KnownDrafter([text], VOCAB))
    list(session.decode(PROMPT, StopRules(new, [], [])))
    lengths = session.result.accepted_lengths
    assert sum(lengths) / len(lengths) > 3
    return session.result.output_ids


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [*LISTED, *sorted(EXCHANGEABLE)])
def test_a_listed_architecture_gives_transformers_tokens(tmp_path: Path, model_type: str) -> None:
    save_tiny(tmp_path, known(model_type), **FIELDS.get(model_type, {}))
    text = reference(tmp_path)
    for attention in ("eager", "fused"):
        teacher = Teacher.load(str(tmp_path), options(attention))
        assert decoded(teacher, text) == text[len(PROMPT) :]


@pytest.mark.parametrize("model_type", [name for name in REFUSED if name not in EXCHANGEABLE])
def test_an_architecture_whose_attention_cannot_be_exchanged_is_refused(tmp_path: Path, model_type: str) -> None:
    save_tiny(tmp_path, known(model_type))
    for attention in ("eager", "fused"):
        with pytest.raises(UnsupportedModelError, match=re.escape(REFUSED[model_type])) as caught:
            Teacher.load(str(tmp_path), options(attention))
        message = str(caught.value)
        assert message.startswith(str(tmp_path))
        assert "give a teacher of another architecture (docs/engine.md lists" in message
        assert "\n" not in message


def test_the_list_is_one() -> None:
    assert len(LISTED) > 80
    assert sorted(set(LISTED) - set(REFUSED)) == LISTED


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral", "deepseek_v3", "gemma"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_no_reason_to_refuse(tmp_path: Path, model_type: str, dtype: torch.dtype) -> None:
    save_tiny(tmp_path, model_type, **FIELDS.get(model_type, {}))
    for attention in ("eager", "fused"):
        Teacher.load(str(tmp_path), options(attention, dtype))


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma"])
def test_double_precision_is_none_either(tmp_path: Path, model_type: str) -> None:
    save_tiny(tmp_path, model_type)
    Teacher.load(str(tmp_path), options(dtype=torch.float64))


def drop_mask(model: Any) -> None:
    inner = model.model.forward
    model.model.forward = lambda *args, attention_mask=None, **kwargs: inner(*args, attention_mask=None, **kwargs)


def mask_without_tree(model: Any) -> None:
    inner = model.model.forward

    def forward(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if attention_mask is not None:
            rows, columns = attention_mask.shape[-2:]
            attention_mask = torch.full_like(attention_mask, -torch.inf).triu(columns - rows + 1)
        return inner(*args, attention_mask=attention_mask, **kwargs)

    model.model.forward = forward


def drop_positions(model: Any) -> None:
    inner = model.model.forward
    model.model.forward = lambda *args, position_ids=None, **kwargs: inner(*args, **kwargs)


def mix_tokens(model: Any) -> None:
    """As a convolution over tokens does: each sees the one before, whatever a mask hides."""

    def mixed(_: Any, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        shifted = hidden + 0.3 * torch.nn.functional.pad(hidden, (0, 0, 1, -1))
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    model.model.layers[1].register_forward_hook(mixed)


def skip_a_layers_attention(model: Any) -> None:
    def alone(hidden_states: torch.Tensor, **given: Any) -> tuple[torch.Tensor, None]:
        shape = (*hidden_states.shape[:-1], -1, 16)
        keys = model.model.layers[1].self_attn.k_proj(hidden_states).view(shape).transpose(1, 2)
        held = given.get("cache", given.get("past_key_values"))
        if held is not None:
            held.update(keys, keys, 1)
        return hidden_states, None

    model.model.layers[1].self_attn.forward = alone


def raise_for_trees(model: Any) -> None:
    inner = model.model.forward

    def forward(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 4:
            raise IndexError("index 4 is out of range\nand a second line")
        return inner(*args, attention_mask=attention_mask, **kwargs)

    model.model.forward = forward


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "mask dropped": (drop_mask, "does not hand the tree's mask on"),
    "mask replaced": (mask_without_tree, "does not hand the tree's mask on"),
    "positions dropped": (drop_positions, "gives the branches of a tree other logits than the same tokens without"),
    "tokens mixed": (mix_tokens, "gives the branches of a tree other logits than the same tokens without"),
    "a layer without": (skip_a_layers_attention, "only 2 of its 3 layers called"),
    "raises": (raise_for_trees, "failed on a small one in float32 (IndexError: index 4 is out of range)"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_probe_finds_what_no_configuration_tells(fault: str, attention: str) -> None:
    spoil, message = FAULTS[fault]
    model = tiny_model(tiny_config("llama"))
    model.set_attn_implementation(attention)
    refuse_untreelike(GivenTeacher(model), "mine")  # sound as it is
    spoil(model)
    with pytest.raises(UnsupportedModelError, match=r"^mine cannot verify trees: LlamaForCausalLM ") as caught:
        refuse_untreelike(GivenTeacher(model), "mine")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["mask dropped", "mask replaced", "tokens mixed", "a layer without"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_probe_finds_it_in_half_precision_too(fault: str, dtype: torch.dtype) -> None:
    model = tiny_model(tiny_config("llama")).to(dtype)
    FAULTS[fault][0](model)
    with pytest.raises(UnsupportedModelError, match=re.escape(FAULTS[fault][1])):
        refuse_untreelike(GivenTeacher(model), "mine")


@pytest.mark.parametrize("fault", [None, "raises", "mask dropped"])
def test_the_probe_leaves_model_and_registry_as_they_were(fault: str | None) -> None:
    model = tiny_model(tiny_config("llama"))
    model.set_attn_implementation("sdpa")
    registered_name("eager")
    before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in ("sdpa", "specscope_eager")}
    if fault is not None:
        FAULTS[fault][0](model)
        with pytest.raises(UnsupportedModelError):
            refuse_untreelike(GivenTeacher(model), "mine")
    else:
        refuse_untreelike(GivenTeacher(model), "mine")
    assert model.config._attn_implementation == "sdpa"
    assert {name: ALL_ATTENTION_FUNCTIONS[name] for name in before} == before


def test_probes_in_other_threads_are_not_counted() -> None:
    spoilt, sound = (tiny_model(tiny_config("llama")) for _ in range(2))
    skip_a_layers_attention(spoilt)
    outcomes: list[str] = []

    def probe(model: Any) -> None:
        for _ in range(8):
            try:
                refuse_untreelike(GivenTeacher(model), "mine")
                outcomes.append("sound")
            except UnsupportedModelError as error:
                outcomes.append("only 2 of its 3" if "only 2 of its 3" in str(error) else str(error))

    threads = [threading.Thread(target=probe, args=(model,)) for model in (spoilt, sound)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["only 2 of its 3"] * 8 + ["sound"] * 8


def test_weights_that_were_let_in_on_request_are_not_compared(tmp_path: Path) -> None:
    model = tiny_model(tiny_config("llama"))
    model.model.layers[1].mlp.up_proj.weight.data[3, 3] = torch.nan
    model.save_pretrained(tmp_path)
    Teacher.load(str(tmp_path), options(allow_nonfinite=True))


@pytest.mark.parametrize("model_type", ["mistral", "phi3", "cohere2", "gemma3_text", "olmo3"])
def test_a_window_that_no_text_can_fill_is_full_attention(tmp_path: Path, model_type: str) -> None:
    positions = 40
    save_tiny(tmp_path, model_type, max_position_embeddings=positions, sliding_window=positions)
    text = reference(tmp_path, positions - len(PROMPT))
    teacher = Teacher.load(str(tmp_path), options())
    assert full_sight(teacher.config) == positions
    assert sliding_windows(teacher.config) is None
    assert decoded(teacher, text, new=100) == text[len(PROMPT) :]
    assert len(text) == positions


@pytest.mark.parametrize("model_type", ["phi3", "cohere2", "olmo3", "ministral", "starcoder2", "exaone4"])
def test_a_shorter_one_slides(tmp_path: Path, model_type: str) -> None:
    save_tiny(tmp_path, known(model_type), max_position_embeddings=40, sliding_window=9)
    text = reference(tmp_path, 40 - len(PROMPT))
    teacher = Teacher.load(str(tmp_path), options())
    assert sliding_windows(teacher.config) == [9] * 3
    assert full_sight(teacher.config) is None
    assert decoded(teacher, text, new=100) == text[len(PROMPT) :]


@pytest.mark.parametrize(
    ("model_type", "fields"), [("llama4_text", {"attention_chunk_size": 39}), ("doge", {"keep_window_size": 39})]
)
def test_attention_that_forgets_by_something_else_is_refused_with_a_way_out(
    tmp_path: Path, model_type: str, fields: dict[str, Any]
) -> None:
    save_tiny(tmp_path, model_type, max_position_embeddings=40, **fields)
    with pytest.raises(UnsupportedModelError, match="sees all of a text of up to 39 tokens only, and") as caught:
        Teacher.load(str(tmp_path), options())
    assert "or set max_position_embeddings to 39 in its config.json" in str(caught.value)
    config = tmp_path / "config.json"
    changed = config.read_text(encoding="utf-8").replace(
        '"max_position_embeddings": 40', '"max_position_embeddings": 39'
    )
    config.write_text(changed, encoding="utf-8")
    text = reference(tmp_path, 39 - len(PROMPT))
    assert decoded(Teacher.load(str(tmp_path), options()), text, new=100) == text[len(PROMPT) :]


def test_inside_transformers_a_text_must_end_within_a_window_that_was_never_tried() -> None:
    model = tiny_model(tiny_config("mistral", max_position_embeddings=40, sliding_window=40))
    ids = torch.tensor([PROMPT])
    asked: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    plain = model.generate(ids, max_new_tokens=33, **asked)
    drawn = model.generate(ids, max_new_tokens=33, custom_generate=tree_generate, specscope=TreeGenerate(), **asked)
    assert torch.equal(drawn, plain)
    with pytest.raises(UsageError, match="model has 40 positions"):
        model.generate(ids, max_new_tokens=34, custom_generate=tree_generate, specscope=TreeGenerate(), **asked)


@pytest.mark.parametrize("model_type", sorted({"codegen", "gptj", "falcon", "gpt_neox_japanese"} - EXCHANGEABLE))
def test_inside_transformers_the_same_is_refused(model_type: str) -> None:
    model = tiny_model(tiny_config(model_type))
    ids = torch.tensor([PROMPT])
    with pytest.raises(UnsupportedModelError, match=r"does not let its attention be exchanged.*give a teacher of"):
        model.generate(ids, max_new_tokens=4, custom_generate=tree_generate, specscope=TreeGenerate(), pad_token_id=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_keys_wider_than_values_are_cached_and_recorded_soundly(tmp_path: Path, strategy: str) -> None:
    folder = save_tiny(tmp_path / "teacher", "deepseek_v3", **LATENT)
    prompts = [Prompt("a", ids=tuple(PROMPT)), Prompt("b", ids=(3, 3, 8)), Prompt("c", ids=tuple(range(2, 30)))]
    alone = ModelChoice(teacher=str(folder), drafter="none", dtype="float32", device="cpu", mode="eager")
    expected = record(alone, prompts, None).output_ids
    outputs = {}
    for mode in ("eager", "fused"):
        choice = ModelChoice(teacher=str(folder), drafter="ngram:1-8", dtype="float32", device="cpu", mode=mode)
        trace = tmp_path / f"{mode}.jsonl"
        outputs[mode] = record(choice, prompts, trace, batch_size=2, cache_strategy=strategy).output_ids
        report = check_trace(trace)
        assert report.num_violations == 0
        assert report.invariants["verify.dispatch"].passed == report.num_steps > 10
    assert outputs == {"eager": expected, "fused": expected}


def test_what_a_latent_cache_returns_is_what_it_was_given() -> None:
    teacher = GivenTeacher(tiny_model(tiny_config("llama")))
    cache = teacher.new_cache(num_rows=2)
    torch.manual_seed(0)
    parts = [(torch.randn(2, 4, count, 24), torch.randn(2, 4, count, 16)) for count in (5, 1, 3)]
    for wide, narrow in parts:
        for layer, (first, second) in enumerate(((wide, narrow), (narrow, wide), (wide, narrow))):
            keys, values = cache.layers[layer].update(first, second)  # type: ignore[union-attr]  # ours are all of a kind
        cache.commit_length([narrow.shape[2]] * 2)
    whole = [torch.cat(states, dim=2) for states in zip(*parts, strict=True)]
    assert torch.equal(keys, whole[0])
    assert torch.equal(values, whole[1])
