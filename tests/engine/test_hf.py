"""``generate`` with trees gives what plain ``generate`` gives, whatever is asked, and leaves the model as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.known_drafter import KnownDrafter
from support.tiny_models import POLICY, VOCAB
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TextIteratorStreamer,
)
from transformers.generation.streamers import BaseStreamer

from specscope.engine.accept.sampling import target_probs
from specscope.engine.cache.buffer import TreeCache
from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.hf.memory import refuse_memory
from specscope.engine.hf.rules import RowProcessors, split_warpers
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.repro import reproduce
from specscope.engine.load.models import DEMO_MODELS
from specscope.engine.teacher.model import cache_argument
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas import Failure
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

PROMPTS = [[5, 9, 2, 33, 8], [1], [44, 3, 3, 3, 60, 21, 7, 7]]
PAD = 59
NEW = 24


@pytest.fixture(scope="module")
def model(teacher_folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    return loaded


@pytest.fixture(scope="module")
def eagle(head_folder: Path, model: Any) -> TreeGenerate:
    return TreeGenerate(f"eagle3:{head_folder}", POLICY).loaded(model)


class Ban(LogitsProcessor):
    """Forbids the token behind the last one; made for as many rows as ``generate`` was given."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert input_ids.shape[0] == scores.shape[0] == self.num_rows
        return scores.scatter(1, (input_ids[:, -1:] + 1) % VOCAB, -float("inf"))


class EndsAt(StoppingCriteria):
    """Ends a row at one of the tokens; notes how often it was asked."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = torch.tensor(tokens)
        self.widths: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        assert scores is None
        self.widths.append(input_ids.shape[1])
        return torch.isin(input_ids[:, -1], self.tokens)


def only_even(row: int, ids: torch.Tensor) -> list[int]:
    return list(range(row % 2, VOCAB, 2))


#: What ``generate`` is asked for, by name.
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {},
    "repetition penalty": {"repetition_penalty": 1.3},
    "min new tokens": {"min_new_tokens": 11, "eos_token_id": list(range(0, 60, 2))},
    "min length": {"min_length": 17, "eos_token_id": list(range(0, 60, 2))},
    "bad words": {"bad_words_ids": [[9], [3, 3], [44, 3, 60]]},
    "no repeated ngram": {"no_repeat_ngram_size": 2},
    "sequence bias": {"sequence_bias": {(17,): 9.0, (17, 4): 30.0}},
    "suppressed": {"suppress_tokens": [3, 4, 5], "begin_suppress_tokens": [7, 33]},
    "forced end": {"forced_eos_token_id": 12, "eos_token_id": 12},
    "decay": {"exponential_decay_length_penalty": (4, 1.4), "eos_token_id": 13},
    "allowed": {"prefix_allowed_tokens_fn": only_even},
    "cleaned": {"remove_invalid_values": True, "renormalize_logits": True},
    "eos": {"eos_token_id": list(range(0, 60, 4))},
    "one token": {"max_new_tokens": 1},
    "max length": {"max_length": 19, "max_new_tokens": None},
    "no time": {"max_time": 0.0},
    "everything": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words_ids": [[9]], "min_new_tokens": 5,
                   "eos_token_id": [2, 30, 31]},
}  # fmt: skip


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, prompts))
    rows = [[PAD] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def plain(model: Any, prompts: list[list[int]], **asked: Any) -> torch.Tensor:
    given = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD} | asked
    output: torch.Tensor = model.generate(**padded(prompts), **given)
    return output


def by_trees(model: Any, options: TreeGenerate, prompts: list[list[int]], **asked: Any) -> torch.Tensor:
    return plain(model, prompts, custom_generate=tree_generate, specscope=options, **asked)


def known(model: Any, prompts: list[list[int]], **asked: Any) -> TreeGenerate:
    """Options whose drafter knows what plain ``generate`` gives."""
    texts = []
    for row, prompt in zip(plain(model, prompts, **asked).tolist(), prompts, strict=True):
        texts.append(row[max(map(len, prompts)) - len(prompt) :])
    return TreeGenerate(KnownDrafter(texts, VOCAB))


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("name", ASKED)
def test_one_row_is_plain_generates_own(model: Any, eagle: TreeGenerate, name: str, attention: Any) -> None:
    for prompt in PROMPTS:
        wanted = plain(model, [prompt], **ASKED[name])
        for options in (eagle, known(model, [prompt], **ASKED[name])):
            assert torch.equal(by_trees(model, replace(options, attention=attention), [prompt], **ASKED[name]), wanted)


@pytest.mark.parametrize("name", ASKED)
def test_rows_padded_on_the_left_are_plain_generates_own(model: Any, eagle: TreeGenerate, name: str) -> None:
    wanted = plain(model, PROMPTS, **ASKED[name])
    for options in (eagle, known(model, PROMPTS, **ASKED[name])):
        assert torch.equal(by_trees(model, options, PROMPTS, **ASKED[name]), wanted)


def test_blocks_are_accepted_whole_and_cut_inside(model: Any, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 15}
    options = replace(known(model, PROMPTS[:1], max_new_tokens=30), trace=tmp_path / "t.jsonl")
    assert torch.equal(by_trees(model, options, PROMPTS[:1], **asked), plain(model, PROMPTS[:1], **asked))
    with TraceReader(tmp_path / "t.jsonl") as reader:
        steps = list(reader.steps(reader.turns[0]))
    assert [step.accept.accepted_length for step in steps if step.accept] == [5, 5, 5]
    assert steps[-1].stop is not None
    assert (steps[-1].stop.kept, len(steps[-1].stop.emitted)) == (2, 6)


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "three"])
def test_custom_processors_see_one_row_at_a_time(model: Any, eagle: TreeGenerate, prompts: list[list[int]]) -> None:
    wanted = plain(model, prompts, logits_processor=LogitsProcessorList([Ban(len(prompts))]))
    for options in (eagle, known(model, prompts, logits_processor=LogitsProcessorList([Ban(len(prompts))]))):
        assert torch.equal(by_trees(model, options, prompts, logits_processor=LogitsProcessorList([Ban(1)])), wanted)


class Matcher(LogitsProcessor):
    """As grammar matchers are: advanced by one token a call, and what it lets through hangs on all of them."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.tokens.append(int(input_ids[0, -1]))
        return scores.index_fill(1, torch.tensor([len(self.tokens) % VOCAB]), -float("inf"))


class Hidden(LogitsProcessor):
    """A matcher whose state cannot be seen, nor be copied."""

    __slots__ = ("calls",)

    def __init__(self) -> None:
        self.calls = iter(range(10**9))

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle a matcher")

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor([next(self.calls) % VOCAB]), -float("inf"))


class Budget(LogitsProcessor):
    """Ends a text at its hundredth call: no answer that comes sooner tells."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return (
            scores if self.steps < 100 else torch.full_like(scores, -float("inf")).index_fill(1, torch.tensor([3]), 0)
        )


class Terminated(LogitsProcessor):
    """Raises when it is asked again, as a matcher does that has accepted its last token."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.done:
            raise RuntimeError("terminated")
        self.done = input_ids.shape[1] > len(PROMPTS[0])
        return scores


def remembering() -> Callable[[int, torch.Tensor], list[int]]:
    """A prefix function with a memory in its closure."""
    asked: list[int] = []

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        asked.append(int(ids[-1]))
        return list(range(VOCAB))

    return allowed


@pytest.mark.parametrize("kind", [Matcher, Hidden, Budget, Terminated])
def test_a_processor_with_memory_is_refused(model: Any, eagle: TreeGenerate, kind: Any, tmp_path: Path) -> None:
    traced = replace(eagle, trace=tmp_path / "t.jsonl")
    with pytest.raises(UsageError, match=rf"{kind.__name__}, which follows one text .*leave custom_generate out"):
        by_trees(model, traced, PROMPTS[:1], logits_processor=LogitsProcessorList([kind()]))
    assert not any(tmp_path.iterdir())


def test_a_prefix_function_with_memory_is_refused(model: Any, eagle: TreeGenerate) -> None:
    with pytest.raises(UsageError, match=r"PrefixConstrained\w*, which follows one text"):
        by_trees(model, eagle, PROMPTS[:1], prefix_allowed_tokens_fn=remembering())


def test_matchers_of_known_packages_are_refused_by_name(model: Any, eagle: TreeGenerate) -> None:
    known_kind = type("LogitsProcessor", (LogitsProcessor,), {"__module__": "xgrammar.contrib.hf"})
    own = type("Mine", (known_kind,), {"__module__": __name__, "__call__": lambda self, ids, scores: scores})
    with pytest.raises(UsageError, match=r"Mine, which follows one text .*it is known to"):
        by_trees(model, eagle, PROMPTS[:1], logits_processor=LogitsProcessorList([own()]))


class Caching(LogitsProcessor):
    """Remembers nothing that an answer hangs on: a cache by text, how often it was asked, and the last text."""

    def __init__(self) -> None:
        self.calls, self.cache = 0, dict[tuple[int, ...], int]()
        self.last: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = input_ids
        text = tuple(input_ids[0].tolist())
        banned = self.cache.setdefault(text, (sum(text) + 1) % VOCAB)
        return scores.index_fill(1, torch.tensor([banned]), -float("inf"))


def test_caches_and_counters_are_no_memory(model: Any, eagle: TreeGenerate) -> None:
    def asked() -> dict[str, Any]:
        return {"logits_processor": LogitsProcessorList([Caching()])}

    wanted = plain(model, PROMPTS[:1], **asked())
    for options in (eagle, known(model, PROMPTS[:1], **asked())):
        assert torch.equal(by_trees(model, options, PROMPTS[:1], **asked()), wanted)


def test_trying_a_processor_leaves_it_as_it_was() -> None:
    tried = Caching()
    refuse_memory([tried], torch.tensor(PROMPTS[0]), VOCAB)
    assert (tried.calls, tried.cache, tried.last) == (0, {}, None)


def test_custom_criteria_are_asked_once_a_token(model: Any) -> None:
    output = plain(model, PROMPTS[:1])[0, len(PROMPTS[0]) :].tolist()
    for token in output[2:12:3]:
        asked, tried = EndsAt(token), EndsAt(token)
        wanted = plain(model, PROMPTS[:1], stopping_criteria=[asked])
        assert wanted.shape[1] == len(PROMPTS[0]) + output.index(token) + 1
        options = known(model, PROMPTS[:1])
        assert torch.equal(by_trees(model, options, PROMPTS[:1], stopping_criteria=[tried]), wanted)
        assert tried.widths == asked.widths


def test_custom_criteria_end_each_row_by_itself(model: Any, eagle: TreeGenerate) -> None:
    whole = plain(model, PROMPTS)
    tokens = int(whole[0, 14]), int(whole[1, 10])
    wanted = plain(model, PROMPTS, stopping_criteria=[EndsAt(*tokens)], eos_token_id=58)
    assert torch.equal(by_trees(model, eagle, PROMPTS, stopping_criteria=[EndsAt(*tokens)], eos_token_id=58), wanted)
    assert (wanted[:, 8:] == PAD).any()


class Listener(BaseStreamer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def put(self, value: torch.Tensor) -> None:
        self.heard.append(value.tolist())

    def end(self) -> None:
        self.heard.append("end")


def test_a_streamer_hears_what_plain_generate_tells_it(model: Any, eagle: TreeGenerate) -> None:
    for options in (eagle, known(model, PROMPTS[:1])):
        alone, other = Listener(), Listener()
        plain(model, PROMPTS[:1], streamer=alone)
        by_trees(model, options, PROMPTS[:1], streamer=other)
        assert other.heard == alone.heard
    with pytest.raises(UsageError, match="a streamer and 3 rows"):
        by_trees(model, eagle, PROMPTS, streamer=Listener())


def test_the_readmes_example_on_the_demo_teacher(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "teacher", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS / "teacher")
    inputs = tokenizer("import os\nimport sys\n\n\ndef main(argv):\n", return_tensors="pt")
    options = TreeGenerate("eagle3", trace=tmp_path / "run.jsonl")
    wanted = model.generate(**inputs, max_new_tokens=48, do_sample=False)
    output = model.generate(
        **inputs, max_new_tokens=48, do_sample=False, custom_generate=tree_generate, specscope=options
    )
    assert torch.equal(output, wanted)
    report = check_trace(tmp_path / "run.jsonl")
    assert (report.num_violations, report.end_reason) == (0, "complete")
    manifest = report.manifest
    assert (manifest.teacher.source, manifest.drafter.source, manifest.mode) == ("demo", "eagle3", "fused")
    assert manifest.teacher.weights_digest is not None
    for name in ("eagle3", "ngram", "none"):
        assert torch.equal(wanted, model.generate(
            **inputs, max_new_tokens=48, do_sample=False, custom_generate=tree_generate, specscope=TreeGenerate(name)
        ))  # fmt: skip


def test_stop_strings_and_text_streams_on_the_demo_teacher() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "teacher", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS / "teacher")
    inputs = tokenizer("import os\nimport sys\n\n\ndef main(argv):\n", return_tensors="pt")
    trees = {"custom_generate": tree_generate, "specscope": TreeGenerate("eagle3")}
    output = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    whole = str(tokenizer.decode(output[0, inputs.input_ids.shape[1] :]))
    for stop in (whole[5:8], whole[30:34], whole[61:63]):
        wanted = model.generate(**inputs, max_new_tokens=60, do_sample=False, stop_strings=[stop], tokenizer=tokenizer)
        criteria = [StopStringCriteria(tokenizer, [stop])]
        output = model.generate(**inputs, max_new_tokens=60, do_sample=False, stopping_criteria=criteria, **trees)
        assert torch.equal(output, wanted)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(
        target=model.generate,
        kwargs={**inputs, "max_new_tokens": 60, "do_sample": False, "streamer": streamer, **trees},
    )
    thread.start()
    assert "".join(streamer) == whole
    thread.join()


SAMPLED: dict[str, dict[str, Any]] = {
    "plain": {},
    "warped": {"temperature": 0.7, "top_k": 11, "top_p": 0.9},
    "with processors": {"temperature": 1.4, "top_k": 0, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
    "other warpers": {"temperature": 0.8, "min_p": 0.05, "typical_p": 0.9},
    "cut off": {"top_k": 20, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01, "renormalize_logits": True},
    "top h": {"top_h": 0.5, "temperature": 2.0},
}


@pytest.mark.parametrize("name", SAMPLED)
def test_the_same_seed_draws_the_same_tokens_and_the_oracle_agrees(
    model: Any, eagle: TreeGenerate, tmp_path: Path, name: str
) -> None:
    asked = {"do_sample": True, **SAMPLED[name]}
    options = replace(eagle, seed=5, trace=tmp_path / "t.jsonl")
    first = by_trees(model, options, PROMPTS, **asked)
    report = check_trace(tmp_path / "t.jsonl")
    assert (report.num_violations, report.end_reason, report.num_turns) == (0, "complete", 3)
    assert torch.equal(first, by_trees(model, replace(eagle, seed=5), PROMPTS, **asked))
    assert not torch.equal(first, by_trees(model, replace(eagle, seed=6), PROMPTS, **asked))
    if "repetition_penalty" not in asked:  # which some versions of transformers count padding in
        single = by_trees(model, replace(eagle, seed=5), PROMPTS[:1], **asked)
        assert single[0, len(PROMPTS[0]) :].tolist() == first[0, len(PROMPTS[2]) :].tolist()


def test_without_a_seed_torchs_own_decides(model: Any, eagle: TreeGenerate) -> None:
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(by_trees(model, eagle, PROMPTS[:1], do_sample=True))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    state = torch.get_rng_state()
    by_trees(model, eagle, PROMPTS[:1])
    assert torch.equal(state, torch.get_rng_state()), "greedy draws nothing"


def test_several_sequences_of_one_prompt_differ(model: Any, eagle: TreeGenerate) -> None:
    options = replace(eagle, seed=1)
    output = by_trees(model, options, PROMPTS[:1], do_sample=True, num_return_sequences=4)
    assert output.shape[0] == 4
    assert len({tuple(row) for row in output.tolist()}) == 4


class Asked:
    """Catches what ``generate`` hands to the loop."""

    processors: Any

    def __call__(self, model: Any, input_ids: torch.Tensor, logits_processor: Any, **_: Any) -> torch.Tensor:
        self.processors = logits_processor
        return input_ids


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("custom", [False, True])
def test_what_is_drawn_from_is_what_generate_would_draw_from(model: Any, name: str, custom: bool) -> None:
    asked, own = Asked(), [TemperatureLogitsWarper(1.7)] if custom else []
    plain(model, PROMPTS, custom_generate=asked, do_sample=True, logits_processor=own, **SAMPLED[name])
    inputs = padded(PROMPTS)
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0)) * 4
    wanted = asked.processors(inputs["input_ids"], logits.clone()).softmax(-1)
    warped = split_warpers(asked.processors, do_sample=True)
    for row, prompt in enumerate(PROMPTS):
        padding = inputs["input_ids"][row, : len(inputs["input_ids"][row]) - len(prompt)]
        processors = RowProcessors(warped.processors, row, 3, padding)
        made = processors(torch.tensor([prompt, prompt]), logits[row].repeat(2, 1))
        assert torch.allclose(target_probs(made, warped.rule), wanted[row], atol=1e-7)
    if name == "warped":
        assert len(warped.processors) == custom
        assert (warped.rule.temperature, warped.rule.top_k, warped.rule.top_p) == (0.7, 11, 0.9)


class Breaks(LogitsProcessor):
    """Raises at its tenth call."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 10:
            raise self.error
        return scores


def test_the_model_is_left_as_it_was(model: Any, eagle: TreeGenerate, tmp_path: Path) -> None:
    model.set_attn_implementation("eager")
    model.train()
    config, generation = model.config.to_dict(), model.generation_config.to_dict()
    try:
        by_trees(model, eagle, PROMPTS)
        broken = replace(eagle, trace=tmp_path / "t.jsonl")
        with pytest.raises(ArithmeticError, match="no"):
            by_trees(model, broken, PROMPTS, logits_processor=[Breaks(ArithmeticError("no"))])
        with pytest.raises(UsageError, match="exists already"):
            by_trees(model, broken, PROMPTS)
        interrupted = replace(eagle, trace=tmp_path / "interrupted.jsonl")
        with pytest.raises(KeyboardInterrupt):
            by_trees(model, interrupted, PROMPTS, logits_processor=[Breaks(KeyboardInterrupt())])
        assert model.config._attn_implementation == "eager"
        assert model.training
        assert (model.config.to_dict(), model.generation_config.to_dict()) == (config, generation)
    finally:
        model.set_attn_implementation("sdpa")
        model.eval()
    report = check_trace(tmp_path / "t.jsonl")
    assert report.end_reason == "failed"
    assert all(isinstance(f, Failure) and (f.phase, f.error) == ("verify", "ArithmeticError") for f in report.failures)
    assert len(report.failures) == 3
    report = check_trace(tmp_path / "interrupted.jsonl")
    assert (report.end_reason, report.failures, report.num_violations) == ("interrupted", [], 0)


def test_a_failure_is_found_again_from_the_trace(
    model: Any, eagle: TreeGenerate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TreeCache.commit_paths

    def breaks(cache: TreeCache, *arguments: Any) -> str | None:
        if min(cache.committed_lengths) > 6:
            raise RuntimeError("the kernel gave up")
        return whole(cache, *arguments)

    monkeypatch.setattr(TreeCache, "commit_paths", breaks)
    options = replace(eagle, trace=tmp_path / "t.jsonl", seed=3)
    with pytest.raises(RuntimeError, match="gave up"):
        by_trees(model, options, PROMPTS, do_sample=True, temperature=0.9, top_k=0, repetition_penalty=1.1)
    again = reproduce(tmp_path / "t.jsonl", Overrides())
    assert (again.outcome, again.differing) == ("reproduced", [])
    assert again.num_rows == again.num_recorded > 1


def test_a_changed_model_does_not_claim_its_files_weights(teacher_folder: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    for name, scale in (("same", 1.0), ("changed", 1.01)):
        with torch.no_grad():
            model.model.layers[3].mlp.up_proj.weight.mul_(scale)
        by_trees(model, TreeGenerate("none", trace=tmp_path / f"{name}.jsonl"), PROMPTS[:1])
    with TraceReader(tmp_path / "same.jsonl") as same, TraceReader(tmp_path / "changed.jsonl") as changed:
        assert same.manifest.teacher.weights_digest is not None
        assert same.manifest.teacher.source == str(teacher_folder)
        assert changed.manifest.teacher.weights_digest is None


def test_a_dictionary_is_returned_where_asked_for(model: Any, eagle: TreeGenerate) -> None:
    output: Any = by_trees(model, eagle, PROMPTS, return_dict_in_generate=True)
    assert torch.equal(output.sequences, plain(model, PROMPTS))
    assert output.scores is None


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "beams": ({"num_beams": 2}, "generation mode beam_search"),
    "lookup": ({"prompt_lookup_num_tokens": 3}, "generation mode assisted_generation"),
    "scores": ({"return_dict_in_generate": True, "output_scores": True}, "output_scores"),
    "cache": ({"cache_implementation": "static"}, "cache_implementation 'static'"),
    "position ids": ({"position_ids": torch.arange(4, 9)[None]}, "position ids of your own"),
    "right padding": ({"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}, "pad on the left"),
    "temperature": ({"do_sample": True, "temperature": 1e5}, "got temperature"),
    "guidance": ({"guidance_scale": 1.5}, "follows one text token by token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_trees_cannot_do_is_refused(model: Any, eagle: TreeGenerate, name: str) -> None:
    asked, message = REFUSED[name]
    inputs = {"input_ids": torch.tensor(PROMPTS[:1])}
    with pytest.raises(UsageError, match=message):
        model.generate(**{**inputs, "max_new_tokens": 8, "custom_generate": tree_generate, "specscope": eagle, **asked})
    assert model.config._attn_implementation == "sdpa"


def test_an_assistant_and_a_filled_cache_are_refused(model: Any, eagle: TreeGenerate) -> None:
    with pytest.raises(UsageError, match="assisted_generation"):
        by_trees(model, eagle, PROMPTS[:1], assistant_model=model)
    _, held = model(torch.tensor(PROMPTS[:1])[:, :3], use_cache=True, return_dict=False)
    with pytest.raises(UsageError, match="that holds a text"):
        by_trees(model, eagle, PROMPTS[:1], **{cache_argument(model): held})


def test_rows_without_a_padding_token_are_refused(model: Any, eagle: TreeGenerate) -> None:
    ids = torch.tensor([PROMPTS[0], PROMPTS[0]])
    before, model.generation_config.eos_token_id = model.generation_config.eos_token_id, None
    try:
        settings: dict[str, Any] = {"max_new_tokens": 6, "custom_generate": tree_generate, "specscope": eagle}
        output = model.generate(ids, do_sample=False, **settings)
        assert output.shape == (2, 11)
        with pytest.raises(UsageError, match="no pad_token_id"):
            model.generate(ids, stopping_criteria=[EndsAt(3)], **settings)
    finally:
        model.generation_config.eos_token_id = before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: TreeGenerate(attention="flash"), "got attention 'flash'"),
        (lambda: TreeGenerate(trace_level="all"), "got trace level 'all'"),  # type: ignore[arg-type]
        (lambda: TreeGenerate("magic"), "got drafter 'magic'"),
        (lambda: TreeGenerate("eagle3"), "fits only the demo's teacher"),
        (lambda: TreeGenerate("none", policy="star"), "got tree 'star'"),
        (lambda: TreeGenerate("none", cache_strategy="magic"), "got cache strategy 'magic'"),
    ],
)
def test_wrong_options_are_refused(model: Any, options: Callable[[], TreeGenerate], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        by_trees(model, options(), PROMPTS[:1])


def test_models_that_cannot_verify_trees_are_refused() -> None:
    config = Gemma2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, attn_logit_softcapping=50.0,
    )  # fmt: skip
    capped: Any = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UsageError, match="caps its scores"):
        by_trees(capped, TreeGenerate("none"), PROMPTS[:1])


def test_positions_behind_the_models_own(model: Any, eagle: TreeGenerate) -> None:
    prompts = [[3, 7, 11, 2] * 62]
    assert torch.equal(by_trees(model, eagle, prompts), plain(model, prompts))  # 248 + 24 of 256, computed by a formula
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=3, n_head=4, eos_token_id=0, bos_token_id=1
    )
    learned: Any = AutoModelForCausalLM.from_config(config).eval()
    prompts = [[3, 7, 11, 2] * 11]
    options = TreeGenerate("ngram", TreePolicy(kind="dynamic", depth=6, top_k=4, budget=16))
    assert torch.equal(
        by_trees(learned, options, prompts, max_new_tokens=20), plain(learned, prompts, max_new_tokens=20)
    )
    with pytest.raises(UsageError, match="the model has 64 positions: give max_new_tokens of at most 20"):
        by_trees(learned, options, prompts, max_new_tokens=21)
