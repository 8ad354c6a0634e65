"""Guided decoding: every output is a text of its grammar, token by token what the teacher alone decodes under it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.bigrams import chi_square_p
from support.called import specscope
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from specscope.engine import decode
from specscope.engine.guided.grammar import Grammar, TokenTable
from specscope.engine.guided.guide import Guide, mask_digest
from specscope.engine.guided.logits import applied, forbid
from specscope.engine.guided.walk import walk_tree
from specscope.engine.load.models import Models, load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import TurnReport
from specscope.engine.settings import DEMO_MODELS, GrammarChoice, SamplingRule, Settings
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

TOKENIZER = DEMO_MODELS / "teacher" / "tokenizer.json"
EOS = 0  # <|endoftext|>
TABLE = TokenTable(TOKENIZER.read_text(encoding="utf-8"), 4096, (EOS,))
REGEX = r"    return [a-z]+\([a-z, ]*\)\n"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
LARK = 'start: "    return " expr "\\n"\nexpr: NAME | "(" expr ("," expr)* ")"\nNAME: /[a-z]{1,8}/\n'
GRAMMARS = {
    "regex": GrammarChoice("regex", REGEX),
    "json-schema": GrammarChoice("json-schema", json.dumps(SCHEMA)),
    "lark": GrammarChoice("lark", LARK),
}
PROMPTS = ["def fibonacci(n):\n", "class Counter:\n    def total(self):\n"]
#: Small ones, whose masks differ from slot to slot.
TINY = {
    "words": GrammarChoice("regex", "(self|return|def) (a|b)+"),
    "nested": GrammarChoice("lark", 'start: pair\npair: "(" pair? ")" pair?\n'),
    "json": GrammarChoice("json-schema", '{"type": "array", "items": {"enum": ["a", "ab", 1]}}'),
    "once": GrammarChoice("regex", "ab?"),
}


@pytest.fixture(scope="module")
def tiny() -> dict[str, Grammar]:
    return {name: Grammar(choice, TABLE) for name, choice in TINY.items()}


def fresh_mask(grammar: Grammar, path: list[int]) -> NDArray[np.bool_] | None:
    """Slowly: what a guide that has never gone back allows behind ``path``; None where the path is forbidden."""
    guide = grammar.guide()
    for token in path:
        if not guide.allowed()[token]:
            return None
        assert guide.take(token), "what the mask allows can be taken"
    return guide.allowed()


def path_to(slot: int, tokens: list[int], parents: list[int]) -> list[int]:
    """The tokens behind the root's, up to the slot's own."""
    return [] if slot == 0 else [*path_to(parents[slot], tokens, parents), tokens[slot]]


@st.composite
def walks(draw: st.DrawFn) -> tuple[str, list[int], list[int], list[int]]:
    """A grammar, what was decoded before, and a tree; most tokens are allowed where they stand."""
    name = draw(st.sampled_from(sorted(TINY)))
    grammar = _COMPILED.setdefault(name, Grammar(TINY[name], TABLE))
    prefix: list[int] = []
    for _ in range(draw(st.integers(0, 4))):
        mask = fresh_mask(grammar, prefix)
        assert mask is not None
        open_ids = [t for t in np.flatnonzero(mask).tolist() if t != EOS]
        if not open_ids:
            break
        prefix.append(draw(st.sampled_from(open_ids)))
    tokens, parents = [prefix[-1] if prefix else 1], [0]
    for slot in range(1, draw(st.integers(1, 12))):
        parents.append(draw(st.integers(0, slot - 1)))
        mask = fresh_mask(grammar, [*prefix, *path_to(parents[slot], [*tokens, 0], parents)])
        likely = [] if mask is None else np.flatnonzero(mask).tolist()
        stray = draw(st.integers(0, 4)) == 0 or not likely
        tokens.append(draw(st.integers(0, 4095)) if stray else draw(st.sampled_from(likely)))
    return name, prefix, tokens, parents


_COMPILED: dict[str, Grammar] = {}


@settings(max_examples=80, deadline=None)
@given(walks())
def test_the_masks_of_a_tree_are_those_of_fresh_guides_and_the_guide_comes_back(
    walk: tuple[str, list[int], list[int], list[int]],
) -> None:
    name, prefix, tokens, parents = walk
    grammar = _COMPILED[name]
    guide = grammar.guide()
    assert guide.take_all(prefix) == len(prefix)
    masks = walk_tree(guide, tokens, parents)
    listed = dict(zip(masks.slots, masks.allowed, strict=True))
    for slot in range(len(tokens)):
        path = path_to(slot, tokens, parents)
        ends = EOS in path
        wanted = fresh_mask(grammar, [*prefix, *path]) if EOS not in path[:-1] else None
        if wanted is None:
            assert slot not in listed
            assert slot not in masks.ends
        elif ends:
            assert slot in masks.ends
        else:
            assert np.array_equal(listed[slot], wanted) if wanted.any() else slot in masks.stuck
    assert masks.returned == masks.before == guide.state()
    unused = grammar.guide()
    unused.take_all(prefix)
    assert guide.state() == unused.state(), "as one that never went along the tree"


def test_masks_behind_what_was_taken_back_are_those_of_a_fresh_guide(tiny: dict[str, Grammar]) -> None:
    """What the library's own way back gets wrong: a mask, a token taken back, another token."""
    ids = [Tokenizer.from_file(str(TOKENIZER)).encode(text).ids for text in ("(", "))", "((", ")(")]
    opened, closed, again, turned = (encoded[0] for encoded in ids if len(encoded) == 1)
    before = [opened] * 4 + [closed]
    guide = tiny["nested"].guide()
    assert guide.take_all(before) == len(before)
    guide.take(again)
    guide.allowed()
    guide.back(1)
    guide.take(turned)
    wanted = fresh_mask(tiny["nested"], [*before, turned])
    assert wanted is not None
    assert np.array_equal(guide.allowed(), wanted)


def test_a_guide_is_not_taken_back_behind_where_it_was_settled(tiny: dict[str, Grammar]) -> None:
    guide = tiny["nested"].guide()
    opened = Tokenizer.from_file(str(TOKENIZER)).encode("(").ids
    assert guide.take_all(opened) == 1
    guide.settle()
    with pytest.raises(ValueError, match="settled"):
        guide.back(1)


def test_states_tell_places_apart_that_allow_the_same(tiny: dict[str, Grammar]) -> None:
    guide = tiny["words"].guide()
    ids = Tokenizer.from_file(str(TOKENIZER)).encode("def aaaa").ids
    states = [guide.state()]
    for token in ids:
        assert guide.take(token)
        states.append(guide.state())
    assert len({state.digest for state in states}) == len(states)
    guide.back(len(ids))
    assert guide.state() == states[0]


def test_a_complete_grammar_allows_the_end_alone_and_nothing_behind_it(tiny: dict[str, Grammar]) -> None:
    guide = tiny["once"].guide()
    assert guide.take_all(Tokenizer.from_file(str(TOKENIZER)).encode("ab").ids) > 0
    assert np.flatnonzero(guide.allowed()).tolist() == [EOS]
    before = guide.state()
    assert guide.take(EOS)
    assert guide.has_ended
    assert not guide.allowed().any()
    assert not guide.take(EOS)
    guide.back(1)
    assert guide.state() == before


def test_the_end_is_forbidden_where_the_grammar_is_not_complete(tiny: dict[str, Grammar]) -> None:
    guide = tiny["words"].guide()
    assert not guide.take(EOS)
    assert guide.position == 0


def test_a_mask_reaches_the_logits_of_its_own_slot_and_no_other(tiny: dict[str, Grammar]) -> None:
    guide = tiny["nested"].guide()
    opened = Tokenizer.from_file(str(TOKENIZER)).encode("(").ids
    masks = walk_tree(guide, [1, *opened, 4000], [0, 0, 0])
    assert masks.slots == [0, 1]
    logits = torch.randn(2, 4, 4096)
    result = forbid(logits, [None, masks])
    assert torch.equal(result[0], logits[0])
    assert torch.equal(result[1, 2:], logits[1, 2:]), "a forbidden path and padding stay as they are"
    for place, slot in enumerate(masks.slots):
        kept = torch.from_numpy(masks.allowed[place])
        assert torch.equal(result[1, slot][kept], logits[1, slot][kept])
        assert bool((result[1, slot][~kept] == -torch.inf).all())
    seen = applied(logits[1, :2].numpy(), result[1, :2].numpy(), masks.allowed)
    assert [mask_digest(mask) for mask in seen] == [mask_digest(mask) for mask in masks.allowed]
    assert mask_digest(masks.allowed[0]) != mask_digest(masks.allowed[1])


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(Settings.of(mode="fused").choice)


def fits(name: str, text: str) -> bool:
    """Whether a finished text is one of the grammar's, by another reader than the library."""
    if name == "regex":
        return re.fullmatch(REGEX, text) is not None
    if name == "lark":
        inner = text.removeprefix("    return ").removesuffix("\n")
        while (reduced := re.sub(r"\((x|[a-z]{1,8})(,(x|[a-z]{1,8}))*\)", "x", inner)) != inner:
            inner = reduced
        return re.fullmatch(r"[a-z]{1,8}", inner) is not None
    value = json.loads(text)
    return set(value) == {"name", "count"} and isinstance(value["name"], str) and isinstance(value["count"], int)


def by_prompt(turns: list[TurnReport]) -> dict[str, list[int]]:
    return {turn.prompt_id: turn.result.output_ids for turn in turns}


@pytest.mark.parametrize("name", GRAMMARS)
def test_greedy_tokens_are_those_of_the_teacher_alone_under_the_same_grammar(
    tmp_path: Path, models: Models, name: str
) -> None:
    common: dict[str, Any] = {"grammar": GRAMMARS[name], "max_new_tokens": 40}
    alone = decode(PROMPTS, mode="baseline", trace=tmp_path / "alone.jsonl", **common)
    drafted = decode(PROMPTS, models=models, trace=tmp_path / "drafted.jsonl", **common)
    assert by_prompt(alone) == by_prompt(drafted)
    free = decode(PROMPTS, models=models, max_new_tokens=40)
    assert by_prompt(free) != by_prompt(drafted), "the grammar decides something"
    assert max(turn.result.mean_accepted_length for turn in drafted) > 1, "and drafts are accepted under it"
    ended = [turn for turn in drafted if turn.result.reason == "eos"]
    assert ended
    for turn in ended:
        assert turn.text is not None
        assert fits(name, turn.text)
    for trace in ("alone", "drafted"):
        report = check_trace(tmp_path / f"{trace}.jsonl")
        assert report.num_violations == 0
        assert report.invariants["guided.masks-applied"].passed == report.num_steps
    verdict = diff_traces(tmp_path / "alone.jsonl", tmp_path / "drafted.jsonl")
    assert verdict.exit_code == 0


def test_rows_side_by_side_have_a_grammar_each_and_turns_begin_it_anew(tmp_path: Path, models: Models) -> None:
    prompts = [
        Prompt("talk", turns=(PROMPTS[0], "def g(x):\n")),
        Prompt("one", turns=(PROMPTS[1],)),
        Prompt("two", turns=(PROMPTS[0],)),
    ]
    common: dict[str, Any] = {"grammar": GRAMMARS["regex"], "max_new_tokens": 24, "models": models}
    single = decode(prompts, **common)
    together = decode(prompts, batch_size=3, trace=tmp_path / "rows.jsonl", **common)

    def outputs(turns: list[TurnReport]) -> dict[tuple[str, int], list[int]]:
        return {(turn.prompt_id, turn.prompt_turn): turn.result.output_ids for turn in turns}

    assert outputs(single) == outputs(together)
    texts = {(turn.prompt_id, turn.prompt_turn): turn.text for turn in together if turn.result.reason == "eos"}
    assert ("talk", 1) in texts, "a second turn is a text of the grammar by itself"
    assert all(text is not None and fits("regex", text) for text in texts.values())
    assert check_trace(tmp_path / "rows.jsonl").num_violations == 0


RULES: dict[str, dict[str, Any]] = {
    "point-mass": {"rule": SamplingRule("sampling", temperature=0.8)},
    "drawn": {"rule": SamplingRule("sampling", temperature=0.8, draft="sampled"), "policy": "static:bush-16"},
    "block": {"rule": SamplingRule("block", temperature=0.8, draft="sampled"), "policy": "chain"},
    "typical": {"rule": SamplingRule("typical", temperature=0.8)},
}


@pytest.mark.parametrize("name", RULES)
def test_what_is_drawn_follows_the_grammar_and_its_trace_is_sound(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "drawn.jsonl"
    turns = decode(PROMPTS, grammar=GRAMMARS["json-schema"], max_new_tokens=40, trace=trace, seed=3, **RULES[name])
    for turn in turns:
        guide = Grammar(GRAMMARS["json-schema"], TABLE).guide()
        assert guide.take_all(turn.result.output_ids) == len(turn.result.output_ids)
    assert check_trace(trace).num_violations == 0


def exact_outputs(grammar: Grammar, prompt: list[int], temperatures: list[float]) -> dict[tuple[int, ...], list[float]]:
    """Slowly: every text of a small grammar in tokens, and at each temperature its probability under the masked
    distribution of transformers' own model, one whole forward for each beginning."""
    teacher = AutoModelForCausalLM.from_pretrained(DEMO_MODELS / "teacher", dtype=torch.float32).eval()
    outputs: dict[tuple[int, ...], list[float]] = {}
    begun: list[tuple[tuple[int, ...], list[float]]] = [((), [1.0 for _ in temperatures])]
    while begun:
        path, shares = begun.pop()
        mask = fresh_mask(grammar, list(path))
        assert mask is not None
        with torch.inference_mode():
            logits = teacher(torch.tensor([[*prompt, *path]])).logits[0, -1].double()
        allowed = np.flatnonzero(mask).tolist()
        probs = [(logits[allowed] / temperature).softmax(0).tolist() for temperature in temperatures]
        for place, token in enumerate(allowed):
            longer = (*path, token), [share * at[place] for share, at in zip(shares, probs, strict=True)]
            if token == EOS:
                outputs[longer[0]] = longer[1]
            else:
                begun.append(longer)
    return outputs


@pytest.mark.parametrize("draft", ["point-mass", "sampled"])
def test_drawn_outputs_have_the_teachers_own_masked_distribution(draft: Any) -> None:
    choice, temperature = GrammarChoice("regex", "(ab?|self)[ab]"), 1.5
    rule = SamplingRule("sampling", temperature=temperature, draft=draft)
    policy = "static:pair-6" if draft == "sampled" else "dynamic"
    text = "        x = "
    prompts = [Prompt(f"draw-{number}", turns=(text,)) for number in range(250)]
    turns = decode(prompts, rule=rule, policy=policy, grammar=choice, batch_size=50, max_new_tokens=12)
    ids = Tokenizer.from_file(str(TOKENIZER)).encode(text).ids
    wanted = exact_outputs(Grammar(choice, TABLE), ids, [temperature, 4 * temperature])
    counts = [sum(turn.result.output_ids == list(output) for turn in turns) for output in wanted]
    assert sum(counts) == len(turns), "every output is one of the grammar's"
    right, wrong = (torch.tensor([[shares[at] for shares in wanted.values()]]) for at in (0, 1))
    assert right.sum() == pytest.approx(1)
    assert chi_square_p(torch.tensor([counts]), right) > 1e-3
    assert chi_square_p(torch.tensor([counts]), wrong) < 1e-3, "the test can fail"


@pytest.mark.parametrize("drafter", ["ngram", "eagle3+ngram", "early-exit"])
def test_every_drafter_gives_the_teachers_tokens(models: Models, drafter: str) -> None:
    common: dict[str, Any] = {"grammar": GRAMMARS["json-schema"], "max_new_tokens": 24}
    assert by_prompt(decode(PROMPTS[:1], drafter=drafter, **common)) == by_prompt(
        decode(PROMPTS[:1], models=models, **common)
    )


def test_what_the_grammar_forbids_is_not_drafted_while_anything_else_is_known(tmp_path: Path, models: Models) -> None:
    trace = tmp_path / "run.jsonl"
    decode(PROMPTS[:1], models=models, grammar=GRAMMARS["regex"], max_new_tokens=16, trace=trace)
    compiled = Grammar(GRAMMARS["regex"], TABLE)
    proposed = 0
    with TraceReader(trace) as reader:
        (turn,) = reader.turns
        output = [reader.turn_start(turn).root]
        for step in reader.steps(turn):
            assert step.draft is not None
            assert step.draft.levels is not None
            assert step.stop is not None
            mask = fresh_mask(compiled, output)
            assert mask is not None
            likely = [t for t, lp in zip(*_first_level(step.draft.levels[0]), strict=True) if lp > float("-inf")]
            assert all(mask[token] for token in likely)
            proposed += len(likely)
            output += step.stop.emitted[: step.stop.kept]
    assert proposed


def _first_level(level: Any) -> tuple[list[int], list[float]]:
    return level.tokens, level.logprobs


class Stray(Guide):
    """A guide that forgets to take back every third token."""

    def __init__(self, inner: Guide) -> None:
        self.__dict__ = inner.__dict__
        self.moves = 0

    def back(self, count: int) -> None:
        self.moves += 1
        if self.moves % 3:
            super().back(count)


def test_a_grammar_that_does_not_come_back_ends_the_run_in_the_same_step(models: Models) -> None:
    from specscope.engine.load.decoding import decoding_of
    from specscope.engine.loop.phases import Phases
    from specscope.engine.loop.session import Session
    from specscope.engine.loop.stopping import StopRules
    from specscope.tracer.errors import ViolationError

    phases = Phases(walk=lambda guide, tokens, parents: walk_tree(Stray(guide), tokens, parents))
    chosen = Settings.of(grammar=GRAMMARS["regex"])
    session = Session(models.teacher, models.drafter, decoding_of(chosen, models.teacher, phases))
    ids = Tokenizer.from_file(str(TOKENIZER)).encode(PROMPTS[0]).ids
    with pytest.raises(ViolationError, match=r"guided\.rolled-back"):
        list(session.decode(ids, StopRules(8, [EOS], [])))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (GrammarChoice("regex", "a(["), "unclosed"),
        (GrammarChoice("regex", r"[^\s\S]"), "allows no text"),
        (GrammarChoice("lark", "start: nope"), "unknown name"),
        (GrammarChoice("json-schema", "{nope"), "not JSON"),
        (GrammarChoice("json-schema", '{"type": "nope"}'), "Invalid type"),
    ],
)
def test_what_is_no_grammar_or_goes_nowhere_is_refused_in_words(choice: GrammarChoice, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Grammar(choice, TABLE)


def with_tokens(change: Any) -> str:
    stated = json.loads(TABLE.tokenizer_json)
    change(stated)
    return json.dumps(stated)


def test_a_tokenizer_with_more_tokens_than_logits_is_read(models: Models) -> None:
    extra = {"id": 4096, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False}
    extra |= {"normalized": False, "special": True}
    padded = with_tokens(lambda stated: stated["added_tokens"].append(extra))
    grammar = Grammar(TINY["once"], TokenTable(padded, 4096, (EOS, 5000)))
    assert (grammar.guide().allowed() == Grammar(TINY["once"], TABLE).guide().allowed()).all()


def test_a_tokenizer_that_the_library_cannot_read_is_refused_in_words() -> None:
    words = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    stated = with_tokens(lambda stated: stated.update(model=words, decoder=None, pre_tokenizer=None))
    with pytest.raises(UsageError, match="llguidance cannot read the teacher's tokenizer"):
        Grammar(TINY["once"], TokenTable(stated, 2, (0,)))


def test_the_end_of_text_in_the_midst_of_a_grammar_is_no_end() -> None:
    grammar = Grammar(GrammarChoice("lark", 'start: "a" <|endoftext|> "b"'), TABLE)
    guide = grammar.guide()
    (first,) = Tokenizer.from_file(str(TOKENIZER)).encode("a").ids
    assert guide.take(first)
    assert not guide.take(EOS)
    assert not guide.allowed().any()


def test_a_dead_end_behind_where_the_turn_is_cut_is_nobodys_loss(models: Models) -> None:
    """The drafts lead to where nothing is left, and the baseline never comes there."""
    from specscope.engine.settings import ProcessorChoice

    common: dict[str, Any] = {
        "grammar": GrammarChoice("regex", "self"),
        "processors": ProcessorChoice(min_new_tokens=20),
        "max_new_tokens": 1,
    }
    alone = decode(PROMPTS[:1], mode="baseline", drafter="none", **common)
    assert by_prompt(decode(PROMPTS[:1], models=models, **common)) == by_prompt(alone)
    longer = GrammarChoice("regex", "abcdabcd")
    for length in range(1, 5):
        cut = common | {"grammar": longer, "max_new_tokens": length}
        alone = decode(PROMPTS[:1], mode="baseline", drafter="none", **cut)
        assert by_prompt(decode(PROMPTS[:1], models=models, **cut)) == by_prompt(alone)


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (GrammarChoice("regex", "caf\udce9"), "is no text"),
        (GrammarChoice("json-schema", "[" * 200_000), "not JSON"),
        ("[a-z]+", "wanted GrammarChoice"),
    ],
)
def test_texts_that_are_none_are_refused_in_words(models: Models, grammar: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        decode(PROMPTS[:1], models=models, grammar=grammar)


def test_a_profile_is_of_free_text(tmp_path: Path) -> None:
    done = specscope("bench", "--calibrate", tmp_path / "profile.json", "--regex", "[a-z]+")
    assert done.code == 2
    assert "a profile is of free text" in done.err


def test_processors_that_forbid_all_that_the_grammar_allows_are_refused_in_words(models: Models) -> None:
    from specscope.engine.settings import ProcessorChoice

    with pytest.raises(UsageError, match="forbid all that the grammar allows"):
        decode(
            PROMPTS[:1],
            models=models,
            grammar=GrammarChoice("regex", "ab"),
            processors=ProcessorChoice(min_new_tokens=20),
            max_new_tokens=30,
        )


def test_the_command_line_decodes_by_each_kind_and_says_what_it_refuses(tmp_path: Path) -> None:
    schema, lark = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text(json.dumps(SCHEMA))
    lark.write_text(LARK)
    run = ("run", "--prompt", PROMPTS[0], "--max-new-tokens", "24", "--json")
    answer = specscope(*run, "--regex", REGEX)
    assert fits("regex", json.loads(answer.out)["text"])
    refusals = [
        (("--regex", "a", "--json-schema", str(schema)), "wanted one of them"),
        (("--regex", "a(["), "not one that llguidance can follow"),
        (("--grammar", str(tmp_path / "none.lark")), "cannot read a grammar"),
        (("--regex", "a", "--engine", "ppsd", "--stages", "2"), "a grammar with --engine ppsd"),
        (("--regex", "a", "--redact", "a long secret", "--trace", str(tmp_path / "t.jsonl")), "--redact"),
    ]
    for options, words in refusals:
        refused = specscope(*run, *options)
        assert refused.code == 2, options
        assert words in " ".join(refused.err.split()), refused.err


def test_without_the_library_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    from specscope.engine.guided import grammar

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(grammar, "version", version)
    with pytest.raises(UsageError, match=r"pip install 'specscope\[guided\]'"):
        grammar.check_grammar(GRAMMARS["regex"])
    monkeypatch.setattr(grammar, "version", lambda _: "0.4.2")
    with pytest.raises(UsageError, match=r"got llguidance 0\.4\.2, wanted"):
        grammar.check_grammar(GRAMMARS["regex"])
    assert not grammar.is_installed()
