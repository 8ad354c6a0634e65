"""A redacted trace: judged and diffed like the plain one, with no id of the text left in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from click.testing import CliRunner
from pydantic import BaseModel
from support.drafting import choice_of
from support.tiny_models import VOCAB
from support.traced import record
from support.traces import Lines, load
from transformers import AutoModelForCausalLM

from specscope.engine.cli.run import run
from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.repro import reproduce
from specscope.engine.load.models import DEMO_MODELS, Models, load_models
from specscope.engine.record.redaction import Redaction
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import TraceTarget
from specscope.engine.settings import SamplingRule
from specscope.schemas import AnyRecord, Manifest, Sampling, StopRules, decode_record, token_fields
from specscope.schemas.manifest import TraceLevel
from specscope.schemas.turn import WITHHELD
from specscope.tracer.compare import diff_traces
from specscope.tracer.errors import EngineError, UsageError
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.check import check_trace

KEY, OTHER = "correct horse battery", "another long key"
PROMPTS = [
    Prompt("first", ids=(41, 7, 52, 13, 29, 3, 58, 17, 44, 9, 36, 22)),
    Prompt("second", ids=(5, 48, 31, 20, 60, 2)),
]
RULES = {"greedy": SamplingRule("greedy"), "sampling": SamplingRule("sampling", temperature=0.9)}


@pytest.fixture(scope="module")
def models(teacher_folder: Path, head_folder: Path) -> dict[str, Models]:
    """By mode."""
    drafter = f"eagle3:{head_folder}"
    return {mode: load_models(choice_of(teacher_folder, drafter, mode)) for mode in ("fused", "eager")}


@pytest.fixture(scope="module")
def made(teacher_folder: Path, head_folder: Path, models: dict[str, Models], tmp_path_factory: Any) -> Any:
    """Records a trace, once for each way to ask for it."""
    folder: Path = tmp_path_factory.mktemp("traces")
    known: dict[tuple[Any, ...], Path] = {}

    def make(
        mode: str = "fused", key: str | None = KEY, rule: str = "greedy", level: str = "decisions", **more: Any
    ) -> Path:
        asked = (mode, key, rule, level, *more.values())
        if asked not in known:
            choice = choice_of(teacher_folder, f"eagle3:{head_folder}", mode, rule=RULES[rule])
            path = folder / f"{len(known)}.jsonl"
            record(choice, PROMPTS, path, models=models[mode], redact=key, level=level, batch_size=2, **more)
            known[asked] = path
        return known[asked]

    return make


@pytest.mark.parametrize("vocab_size", [1, 61, 5000])
def test_the_ids_are_permuted(vocab_size: int) -> None:
    first, again, other = (Redaction(key, vocab_size) for key in (KEY, KEY, OTHER))
    ids = list(range(vocab_size))
    assert sorted(map(first.token, ids)) == ids
    assert list(map(first.token, ids)) == list(map(again.token, ids))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    if vocab_size > 1:
        assert list(map(first.token, ids)) not in (ids, list(map(other.token, ids)))
    assert [first.token(strange) for strange in (-1, vocab_size)] == [-1, vocab_size]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", ["fused", "eager"])
def test_it_is_judged_like_the_plain_one(made: Any, mode: str, rule: str) -> None:
    plain, redacted = check_trace(made(mode, None, rule)), check_trace(made(mode, KEY, rule))
    counts = [{n: (t.passed, t.failed, t.skipped) for n, t in r.invariants.items()} for r in (plain, redacted)]
    assert counts[0] == counts[1]
    assert redacted.num_violations == 0
    assert redacted.manifest.redaction == Redaction(KEY, VOCAB).fingerprint


@pytest.mark.parametrize("rule", RULES)
def test_two_of_one_key_diff_as_the_plain_ones_do(made: Any, rule: str) -> None:
    plain = diff_traces(made("eager", None, rule), made("fused", None, rule))
    redacted = diff_traces(made("eager", KEY, rule), made("fused", KEY, rule))
    assert plain.verdict == redacted.verdict == "equal"
    assert plain.drift == redacted.drift


@pytest.mark.parametrize("key", [OTHER, None], ids=["another-key", "plain"])
def test_what_was_not_redacted_with_the_same_key_is_incomparable(made: Any, key: str | None) -> None:
    verdict = diff_traces(made("eager", KEY), made("fused", key))
    assert verdict.verdict == "incomparable"
    assert any(line.startswith("redaction: ") for line in verdict.incomparable)


def windows(ids: list[int], size: int = 4) -> Iterator[str]:
    """Consecutive ids as they would stand in the file; repeated ones may look like positions."""
    found = (ids[at : at + size] for at in range(len(ids) - size + 1))
    return (",".join(map(str, window)) for window in found if len(set(window)) == size)


def ids_of(lines: Lines) -> list[list[int]]:
    """The sequences of tokens that a trace is about."""
    return [line[name] for line in lines for name in ("prompt_ids", "output_ids") if name in line]


@pytest.mark.parametrize(("rule", "level"), [("greedy", "decisions"), ("sampling", "scores")])
def test_no_run_of_the_texts_ids_is_left(made: Any, rule: str, level: str) -> None:
    plain, redacted = made("fused", None, rule, level), made("fused", KEY, rule, level)
    raw = {path: path.read_text() for path in (plain, redacted)}
    for sequence in ids_of(load(plain)):
        for window in windows(sequence):
            assert re.search(rf"[\[,]{window}[\],]", raw[plain])
            assert not re.search(rf"[\[,]{window}[\],]", raw[redacted])


def ids_in(value: Any, name: str = "") -> Iterator[int]:
    """Every token id of a line, wherever it stands."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from ids_in(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from ids_in(item, name)
    elif name in token_fields():
        yield value


def without_ids(value: Any, name: str = "") -> Any:
    """A line without ids, durations, and what a key changes besides."""
    if isinstance(value, dict):
        left_out = {"timing", "duration_ns", "redaction", "run_id", "created", "input_digest"}
        return {key: without_ids(item, key) for key, item in value.items() if key not in left_out}
    if isinstance(value, list):
        return [without_ids(item, name) for item in value]
    return "id" if name in token_fields() else value


@pytest.mark.parametrize(("rule", "level"), [("greedy", "decisions"), ("sampling", "scores")])
def test_ids_are_replaced_one_by_one_and_nothing_else_is(made: Any, rule: str, level: str) -> None:
    plain, redacted = load(made("fused", None, rule, level)), load(made("fused", KEY, rule, level))
    redaction = Redaction(KEY, VOCAB)
    for before, after in zip(plain[:-1], redacted[:-1], strict=True):  # the last line is a digest of the others
        assert [redaction.token(token) for token in ids_in(before)] == list(ids_in(after))
        assert without_ids(before) == without_ids(after)


#: Numbers that are no token ids, wherever they stand. A new field belongs here, or is a ``TokenId``.
PLAIN_NUMBERS = {
    *("arrived_at", "joined_at", "waited_ns", "num_pairs"),  # of rows and who takes them
    *("num_allowed", "ends"),  # of a grammar, whose masks and states are digests
    *("rows", "context"),  # the load by which a shape is chosen
    *("drafted", "accepted", "num_prompt_tokens", "num_output_tokens"),
    *("num_cases", "world_size"),
    *("accepted_by_depth", "accepted_length", "batch_size", "bonus_slot", "child", "choices", "committed_after"),
    *("committed_before", "committed_length", "counts", "depth", "depths", "destination_rows", "dispatch", "budget"),
    *(
        "draft_vocab_size",
        "drafter_after",
        "drafter_before",
        "duration_ns",
        "frontier",
        "generator_seed",
        "hidden_size",
    ),
    *("hidden_state_indices", "index_tensors", "kept", "kv_after", "kv_before", "max_new_tokens", "max_positions"),
    *("nonfinite_slots", "num_accepted", "num_candidates", "num_drafted", "num_emitted", "num_fallbacks", "num_layers"),
    *("num_slots", "num_steps", "num_threads", "num_tokens", "padded_slots", "parents", "path", "positions"),
    *("prefix_layer", "prefix_visible", "prompt_turn", "reused_length", "row", "seed", "seq", "settings", "slot"),
    *("source_rows", "source_slots", "step", "top_k", "turn", "vocab_size", "feature_layers", "weight_bytes"),
    *("depth_limit", "begun_ns"),
    *("verify_slots", "slots", "columns", "replays"),  # of captured forwards
    *("block", "block_size", "block_table", "table", "references", "taken", "freed"),  # of a paged cache
    *("num_blocks", "num_free", "num_held", "num_accounted"),
    *("sliding_windows", "size", "layers", "first_positions", "num_seen"),  # of sliding windows
    *("stage", "epoch", "position", "in_flight", "exit_layer", "window", "first_layer", "last_layer"),  # of pipelines
    *("start_ns", "end_ns", "hop_ns", "clock_offset_ns", "clock_uncertainty_ns", "length_before", "length_after"),
    *(f"{phase}_ns" for phase in ("branch", "draft", "deliver", "tensorize", "check", "verify", "accept", "commit")),
}
#: Texts that the user did not write, or wrote to be seen.
PLAIN_TEXTS = {
    *("products", "device", "library", "arrivals_clock"),
    *("plan", "acceptance"),  # of ranks
    "not_known",  # names of fields of the manifest
    *("failed_cases", "origin", "outcome"),  # of an attention kernel
    *(
        "architecture",
        "attention",
        "backend",
        "cache",
        "cache_strategy",
        "created",
        "draft",
        "draft_position",
        "dtype",
        "engine",
    ),
    *(
        "error",
        "fallback",
        "instructions",
        "fault",
        "file",
        "generator_state",
        "graph",
        "id",
        "kind",
        "level",
        "mode",
        "name",
        "names",
        "passed",
    ),
    *("phase", "prompt_id", "reason", "replay_of", "rope_theta_source", "rule", "run_id", "schema_", "skipped"),
    *("source", "strategy", "tokens_per_step", "versions", "vocab_mapping", "capabilities", "accepted_length"),
    *("original_schema", "settings", "counts", "dispatch", "index_tensors", "mask_rows"),
    *("kv_dtype", "quantization", "proposed_by", "mask_from", "emitted_from", "output_from", "counts_from"),
    *("profile", "before", "best"),  # the digest of a profile, and names of shapes
}
#: What a redaction treats by name.
TREATED = {
    "witness",
    "message",
    "stop_strings",
    "processors",
    "prompt_text",
    "texts",
    "input_digest",
    "token_digests",
    "inputs",
}
#: Of tensors and files: whoever has the model may check a guess by them, and so by the logits; the document says so.
DIGESTS = re.compile(
    r"_digests?(_before|_after)?$|^digest$|_checksums$|^prefix_(before|after|committed|since)$|^parameters$|^redaction$"
)


def leaves(model: type[BaseModel]) -> Iterator[tuple[str, set[Any]]]:
    """Every field below a record, with what its type is made of."""
    for name, field in model.model_fields.items():
        parts, todo = set[Any](), [field.annotation]
        while todo:
            part = todo.pop()
            parts.add(part if isinstance(part, type) else str(part))
            todo += get_args(part)
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        for found in inner:
            yield from leaves(found)
        if not inner:
            yield name, parts


def test_every_field_is_known_to_hold_ids_or_none() -> None:
    for kind in get_args(get_args(AnyRecord)[0]):
        for name, parts in leaves(kind):
            if name in token_fields() | TREATED or DIGESTS.search(name):
                continue
            if int in parts:
                assert name in PLAIN_NUMBERS, f"{kind.__name__}: {name}: make it a TokenId, or list it here"
            elif str in parts or Any in parts:
                assert name in PLAIN_TEXTS, f"{kind.__name__}: {name}: may it hold text of the user?"
    assert not token_fields() & (PLAIN_NUMBERS | PLAIN_TEXTS)


def test_an_injected_fault_is_found_at_the_same_place(made: Any) -> None:
    plain = diff_traces(made("eager", None), made("fused", None, fault="F16"))
    redacted = diff_traces(made("eager", KEY), made("fused", KEY, fault="F16"))
    found = [verdict.roots[0] for verdict in (plain, redacted)]
    assert redacted.verdict == "different"
    assert (found[0].place, found[0].difference.phase, found[0].difference.field) == (
        found[1].place,
        found[1].difference.phase,
        found[1].difference.field,
    )
    assert found[1].difference.field.startswith("positions")
    witnesses = {
        f["witness"]
        for line in load(made("fused", KEY, fault="F16"))
        if line["kind"] == "step"
        for f in line["invariants"]["failed"]
    }
    assert witnesses == {WITHHELD}


def test_a_failure_is_recorded_without_its_text(
    teacher_folder: Path, head_folder: Path, models: dict[str, Models], tmp_path: Path
) -> None:
    choice = choice_of(teacher_folder, f"eagle3:{head_folder}", "fused")
    traces = {key: tmp_path / f"{key}.jsonl" for key in (None, KEY)}
    for key, path in traces.items():
        with pytest.raises(EngineError):
            record(choice, PROMPTS, path, models=models["fused"], redact=key, fault="F16", strict=True)
    plain, redacted = (next(line for line in load(path) if line["kind"] == "failure") for path in traces.values())
    redaction = Redaction(KEY, VOCAB)
    assert (redacted["error"], redacted["message"]) == (plain["error"], WITHHELD)
    assert redacted["inputs"]["tree"]["tokens"] == list(map(redaction.token, plain["inputs"]["tree"]["tokens"]))
    assert redacted["state"]["context_ids"] == list(map(redaction.token, plain["state"]["context_ids"]))
    assert redacted["inputs"]["tensors"]["positions"] == plain["inputs"]["tensors"]["positions"]
    with pytest.raises(UsageError, match="is redacted"):
        reproduce(traces[KEY], Overrides())


def test_texts_of_the_settings_are_withheld_and_still_compare(made: Any) -> None:
    manifest = decode_record(made(key=None).read_bytes().splitlines()[0])
    assert isinstance(manifest, Manifest)
    rules = StopRules(max_new_tokens=9, eos_token_ids=[3, 5], stop_strings=["secret"])
    held = {"bad_words_ids": [[1, 2], [3]], "repetition_penalty": 1.5, "Own": {"text": "secret"}}
    manifest = manifest.model_copy(update={"stop_rules": rules, "sampling": Sampling(rule="greedy", processors=held)})
    redaction = Redaction(KEY, VOCAB)
    redacted, again = redaction.record(manifest), Redaction(KEY, VOCAB).record(manifest)
    assert isinstance(redacted, Manifest)
    assert redacted == again
    assert redacted.stop_rules is not None
    assert redacted.stop_rules.eos_token_ids == [redaction.token(3), redaction.token(5)]
    line = redacted.model_dump_json()
    assert "secret" not in line
    assert redacted.sampling.processors is not None
    assert redacted.sampling.processors["repetition_penalty"] == 1.5
    assert str(redacted.sampling.processors["bad_words_ids"]).startswith("redacted:")


@pytest.mark.parametrize(
    ("level", "with_text", "key", "says"),
    [
        ("decisions", True, KEY, "--trace-text and --redact"),
        ("tensors", False, KEY, "--trace-level tensors and --redact"),
        ("decisions", False, "short", "a key of 5 characters"),
        ("decisions", False, "", "a key of 0 characters"),
    ],
)
def test_what_would_give_the_text_away_is_refused(level: TraceLevel, with_text: bool, key: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TraceTarget(Path("trace.jsonl"), level, False, with_text, key)


def test_the_key_itself_is_not_recorded(made: Any) -> None:
    text = made("fused", KEY).read_text()
    assert KEY not in text
    assert json.loads(text.splitlines()[0])["redaction"] in text


def test_no_tokenizer_gives_its_ids_texts(made: Any) -> None:
    tokenizer = DEMO_MODELS / "teacher"
    with pytest.raises(UsageError, match="is redacted: its token ids have no text"):
        TokenTexts.load_for(tokenizer, made("fused", None), made("fused", KEY))
    TokenTexts.load_for(tokenizer, made("fused", None))
    assert TokenTexts.load_for(None, made("fused", KEY)).shown(3) == "#3"


def test_generate_redacts_too(teacher_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    prompt = torch.tensor([PROMPTS[0].ids])
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "custom_generate": tree_generate}
    traces = {key: tmp_path / f"{key}.jsonl" for key in (None, KEY)}
    outputs = [
        model.generate(prompt, specscope=TreeGenerate("ngram", trace=path, redact=key), **asked)
        for key, path in traces.items()
    ]
    assert outputs[0].tolist() == outputs[1].tolist()
    plain, redacted = (load(path)[1]["prompt_ids"] for path in traces.values())
    assert redacted == list(map(Redaction(KEY, VOCAB).token, plain))
    assert check_trace(traces[KEY]).num_violations == 0


@pytest.mark.parametrize("way", ["option", "environment"])
def test_the_command_takes_the_key(teacher_folder: Path, tmp_path: Path, way: str) -> None:
    prompts, trace = tmp_path / "p.jsonl", tmp_path / "t.jsonl"
    prompts.write_text(json.dumps({"ids": list(PROMPTS[1].ids)}))
    asked = ["--prompts", str(prompts), "--teacher", str(teacher_folder), "--drafter", "ngram", "--device", "cpu"]
    asked += ["--max-new-tokens", "4", "--trace", str(trace), *(["--redact", KEY] if way == "option" else [])]
    environment = {"SPECSCOPE_REDACT": KEY} if way == "environment" else {}
    done = CliRunner().invoke(run, asked, env=environment, catch_exceptions=False)
    assert done.exit_code == 0
    assert load(trace)[1]["prompt_ids"] == list(map(Redaction(KEY, VOCAB).token, PROMPTS[1].ids))
    with pytest.raises(UsageError, match="--trace-text and --redact"):
        CliRunner().invoke(run, [*asked, "--overwrite", "--trace-text"], env=environment, catch_exceptions=False)
