"""The HTML pieces escape every text, and the verdict's card says what a person needs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.verdicts import KINDS, drift_of_all, hostile_verdict, near_tie, root_at, verdict_of

from specscope.schemas import Kernel, Manifest, SelfCheck, TensorParallel
from specscope.schemas.verdict import Blame, Verdict
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.report.values import SideTexts, same_texts, value_text
from specscope.viewer.drawing.fragments import Fact, Share, bars, commands, facts, heading, note, quiet, rows
from specscope.viewer.drawing.labels.manifest import manifest_rows
from specscope.viewer.drawing.labels.tokens import label_text
from specscope.viewer.drawing.style.palette import DARK, LIGHT, Palette
from specscope.viewer.drawing.tables.verdict_card import (
    SHOWN_ROOTS,
    SIGNS,
    command_card,
    command_names,
    next_commands,
    proof,
    root_list,
    surroundings,
    verdict_card,
)

BAD = "<script>alert(1)</script>\u202e\"'&$x$"


def test_every_fragment_escapes() -> None:
    html = "".join(
        [
            facts([Fact(BAD, BAD, BAD, True)]),
            note("bad", BAD, [BAD]),
            heading(BAD, BAD),
            rows([(BAD, BAD)]),
            bars([Share(BAD, 1.0, BAD)]),
            commands([BAD]),
            quiet(BAD),
        ]
    )
    assert "<script" not in html
    assert "\u202e" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;\\u202e&quot;&#x27;&amp;$x$") == 13


@pytest.fixture
def manifest(pair_of_traces: tuple[Path, Path]) -> Manifest:
    with TraceReader(pair_of_traces[0]) as reader:
        return reader.manifest


def card_of(verdict: Verdict) -> str:
    """The card of the verdict's first root, which must be well-formed."""
    root = next(iter(verdict.roots), None)
    html = verdict_card(verdict, root, IDS, below=root_list(verdict, root))
    ElementTree.fromstring(html)
    return html


def test_the_card_of_a_fault(pair_of_traces: tuple[Path, Path]) -> None:
    verdict = diff_traces(*pair_of_traces)
    root, texts = verdict.roots[0], TokenTexts(None)
    with TraceReader(pair_of_traces[1]) as b:
        texts.learn(b.step(b.turns[0], root.place.step_b))
    html = verdict_card(verdict, root, same_texts(texts), below=root_list(verdict, root))
    ElementTree.fromstring(html)
    assert "<b>DIFFERENT: the candidate is wrong</b>" in html
    assert "The candidate rotates node " in html
    assert "position 6; tensors: positions, node " in html
    assert "turn 0 (prompt prompt-0), step 1, position 6" in html
    assert "&lt;/svg&gt;&lt;img src=x onerror=" in html
    assert "<img" not in html
    assert "the candidate violates tensors.position-is-length-plus-depth: slot 2" in html
    assert "<summary>1 cause, 1 root; 0 later steps follow</summary>" in html
    assert "compared across</dt><dd>attention: eager -&gt; fused; mode: eager -&gt; fused" in surroundings(verdict)


def test_the_boxes_of_a_drift_are_called_what_they_hold() -> None:
    def titles(verdict: Verdict) -> list[str | None]:
        divisions = ElementTree.fromstring(card_of(verdict)).iter("div")
        boxes = next(element for element in divisions if element.get("class") == "ss-values")
        return [title.text for title in boxes.iter("p")]

    drifting = verdict_of(roots=[drift_of_all()])
    assert titles(drifting) == ["wanted", "found"]
    assert "2 of the other quantities drift too; 4 later steps follow from it" in card_of(drifting)
    assert "2 further differences in this step; 4 later" in card_of(verdict_of())
    assert titles(verdict_of()) == ["baseline", "candidate"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_verdict_has_its_sign(name: str, manifest: Manifest) -> None:
    verdict = KINDS[name]
    html = card_of(verdict)
    sign = "✗" if name == "violated" else SIGNS[verdict.verdict]
    assert f">{sign}</span>" in html
    assert ("ss-calm" in html) == (verdict.exit_code == 0)
    ElementTree.fromstring(f"<div>{proof(verdict, manifest)}{command_card(next_commands(verdict, None))}</div>")


def test_equal_runs_say_so() -> None:
    assert "EQUAL: no decision differs" in card_of(verdict_of("equal", 0))


def test_a_hostile_verdict_is_text_and_of_bounded_size(manifest: Manifest) -> None:
    verdict = hostile_verdict()
    commands = next_commands(verdict, verdict.roots[0])
    markup = card_of(verdict) + proof(verdict, manifest) + command_card(commands[:1])
    ElementTree.fromstring(f"<div>{markup}</div>")
    assert "<script" not in markup
    assert "<img" not in markup
    assert "\u202e" not in markup
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert len(card_of(verdict) + proof(verdict, manifest)) < 200_000


def test_the_cascade_is_folded_and_leads_to_each_root() -> None:
    roots = [root_at(step=step) for step in range(SHOWN_ROOTS + 5)]
    card = ElementTree.fromstring(card_of(verdict_of(roots=roots, num_inherited=512)))
    folded = next(card.iter("details"))
    assert next(folded.iter("summary")).text == f"1 cause, {len(roots)} roots; 512 later steps follow"
    asked = [button.get("data-do") for button in folded.iter("button")]
    assert asked == [f"root:{number}" for number in range(SHOWN_ROOTS)]
    lines = ["".join(line.itertext()) for line in folded.iter("li")]
    assert "steps 3 and 4" in lines[3]
    assert "4 steps inherited" in lines[3]
    assert "and 5 more" in "".join(folded.itertext())
    assert [line.get("class") for line in folded.iter("li")][:2] == ["here", None]


def test_one_cause_is_named_once_a_side() -> None:
    blame = [
        Blame(side="b", invariant="tensors.position-is-length-plus-depth", witness="slot 2"),
        Blame(side="b", invariant="run.engine-checks", witness="the same"),
        Blame(side="a", invariant="commit.length", witness="7, wanted 8"),
    ]
    html = card_of(verdict_of(roots=[root_at().model_copy(update={"blame": blame})]))
    assert html.count("<dt>who is wrong</dt>") == 2
    assert "run.engine-checks" not in html


def test_the_proof_says_what_agrees_and_what_does_not(manifest: Manifest) -> None:
    allowed = verdict_of(axis=["mode: eager -> fused", "dtype: float32 -> bfloat16"])
    shown = proof(allowed, manifest)
    assert "✓ 7 of 9 that must agree do" in shown
    assert "; 1 not stated by either run" in shown
    assert "<dt>stated by neither run</dt><dd>tokenizer</dd>" in shown
    assert "✓ dtype" not in shown
    assert "✓ tree policy</dt><dd>dynamic, depth 3, top-k 2, budget 6" in shown
    assert "logits 20 roundings (1,258 values); measured on values of this pair" in shown
    refused = verdict_of("incomparable", 3, incomparable=["seed: 0 -> 5", "prompt code: 3 and 4 token ids"])
    assert "✓ seed" not in proof(refused, manifest)
    assert "✓ prompts" not in proof(refused, manifest)
    assert "not comparable</dt><dd>seed: 0 -&gt; 5" in card_of(refused)
    assert "--allow FIELD" in card_of(refused)


def test_the_proof_claims_no_agreement_that_nobody_stated(manifest: Manifest) -> None:
    bare = manifest.model_copy(update={"seed": None, "stop_rules": None, "tokenizer": None})
    shown = proof(verdict_of(num_turns=0, num_steps=0, compared={}, drift=[]), bare)
    for name in ("seed", "stop rules", "tokenizer", "prompts"):
        assert f"✓ {name}" not in shown
    assert "stated by neither run</dt><dd>seed, stop rules, tokenizer, prompts" in shown
    assert "its weights are not identified" in shown
    assert "no float was compared" in shown
    rows = dict(manifest_rows(bare))
    assert [rows[name] for name in ("seed", "stop rules", "processors", "tokenizer's digest")] == ["not stated"] * 4


def test_a_kernel_that_did_not_run_is_not_shown_as_if_it_had(manifest: Manifest) -> None:
    kernel = Kernel(name="mine", self_check=SelfCheck(outcome="failed"))
    asked = manifest.model_copy(update={"attention": "mine", "kernel": kernel})
    assert "attention mine (failed its self-check: eager ran)" in dict(manifest_rows(asked))["mode"]
    ran = asked.model_copy(update={"kernel": Kernel(name="mine", self_check=SelfCheck(outcome="passed"))})
    assert "attention mine, " in dict(manifest_rows(ran))["mode"]


def test_the_ranks_of_a_run_are_named(manifest: Manifest) -> None:
    assert dict(manifest_rows(manifest))["ranks"] == "none"
    parallel = TensorParallel(world_size=2, plan={"lm_head": "colwise"}, backend="gloo", acceptance="sharded")
    divided = manifest.model_copy(update={"tensor_parallel": parallel})
    wanted = "2 ranks that divide the teacher, sums carried by gloo, acceptance sharded"
    assert dict(manifest_rows(divided))["ranks"] == wanted


def test_commands_can_be_copied_as_they_are() -> None:
    lines = ["specscope show 'a b.jsonl' --turn 0", "specscope check <x>"]
    html = ElementTree.fromstring(command_card(lines))
    names = [button.get("data-copy") for button in html.iter("button") if "data-copy" in button.attrib]
    assert names.pop() == "address", "the link to the page"
    assert [command_names(lines)[name or ""] for name in names] == lines


def test_another_root_has_its_own_commands() -> None:
    roots = [root_at(step=1), root_at(step=7), root_at(step=9, phase="verify")]
    bisect = "specscope bisect eager.jsonl fused.jsonl --at 0/1"
    verdict = verdict_of(roots=roots, candidate="it's.jsonl")
    verdict = verdict.model_copy(update={"next": [*verdict.next, bisect]})
    report = ["specscope", "report", "eager.jsonl", "it's.jsonl", "-o", "report.html"]
    for root, wanted in ((roots[0], [bisect]), (roots[1], [bisect.replace("0/1", "0/7")]), (roots[2], [])):
        *lines, last = next_commands(verdict, root)
        assert lines == wanted
        assert shlex.split(last) == report


def test_what_no_forward_made_is_not_bisected_first() -> None:
    def names(field: str, **changes: Any) -> list[str]:
        root = root_at(phase="draft", field=field, **changes)
        bisect = "specscope bisect eager.jsonl fused.jsonl --at 0/3"
        return [line.split()[1] for line in next_commands(verdict_of(roots=[root], next=[bisect]), root)]

    assert names("inputs.tokens") == names("inputs.source_rows") == ["report", "bisect"]
    assert names("inputs.hidden_norms[1]", kind="real") == ["bisect", "report"]
    assert names("levels[1].frontier") == ["bisect", "report"]


def test_roots_of_one_cause_stand_together() -> None:
    roots = [root_at(step=1), root_at(step=2, field="mask"), root_at(step=3)]
    card = ElementTree.fromstring(card_of(verdict_of(roots=roots)))
    titles = ["".join(line.itertext()) for line in card.iter("p") if line.get("class") == "ss-cause"]
    assert titles == [
        "tensors: positions, structural, the candidate is wrong: 2 places",
        "tensors: mask, structural, the candidate is wrong: 1 place",
    ]
    asked = [button.get("data-do") for button in card.iter("button")]
    assert asked == ["root:0", "root:2", "root:1"]


class Words:
    """A tokenizer of one text for every id."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return f"{self.mark}{ids[0]}"


IDS = same_texts(TokenTexts(None))


@pytest.mark.parametrize(
    ("field", "tokens", "value", "by_id", "by_text"),
    [
        ("argmax", [7], "7", "#7", "w7  (id 7)"),
        ("positions", None, "7", "7", "7"),
        ("argmax", None, "absent", "absent", "absent"),
        ("child", [7], "token 7", "#7", "w7  (id 7)"),
        ("path", [7, 8], "[7, 8]", "#7 #8", "w7 w8  (ids 7, 8)"),
        ("path", None, "[7, 'root']", "[7, 'root']", "[7, 'root']"),
        ("path", [], "[]", "nothing", "nothing"),
        ("destination_rows", None, "[]", "nothing", "nothing"),
        ("parents", [[]], "[]", "root", "root"),
        ("levels[2].tokens", [[7, 8]], "[[7, 8]]", "only here: #7 > #8", "only here: w7 > w8"),
        ("nodes", [], "[]", "nothing", "nothing"),
        ("source_slots", [[], 40], "[[], 40]", "root, slot 40", "root, slot 40"),
        ("mask", [[7, 8], 9], "also sees [[7, 8], 9]", "also sees #7 > #8, padding 9", "also sees w7 > w8, padding 9"),
        ("mask", [], "sees nothing else", "sees nothing else", "sees nothing else"),
    ],
)
def test_token_ids_in_a_verdict_get_their_text(
    field: str, tokens: list[int | list[int]] | None, value: str, by_id: str, by_text: str
) -> None:
    found = root_at(field=field, b=value, tokens_b=tokens).difference
    assert value_text(found, "b", IDS) == by_id
    assert value_text(found, "b", same_texts(TokenTexts(Words("w")))) == by_text


def test_a_long_value_is_cut_after_the_first_tokens() -> None:
    found = root_at(field="emitted", tokens_b=list(range(40))).difference
    assert value_text(found, "b", IDS).endswith("#11 and 28 more")


def test_each_value_of_a_pair_has_the_texts_of_its_own_side() -> None:
    texts = SideTexts(TokenTexts(Words("a")), TokenTexts(Words("b")))
    root = root_at(phase="verify", field="argmax", a="7", b="8", tokens_a=[7], tokens_b=[8])
    card = verdict_card(verdict_of(roots=[root]), root, texts)
    assert "<code>a7  (id 7)</code>" in card
    assert "<code>b8  (id 8)</code>" in card


def test_the_card_of_a_tie_has_both_scores_on_both_sides_and_the_margins_beside_the_floor() -> None:
    texts = SideTexts(TokenTexts(Words("a")), TokenTexts(Words("b")))
    root = near_tie()
    html = verdict_card(verdict_of("ties", 0, roots=[root]), root, texts)
    both = (
        "<code>a7  (id 7)</code><small>a7 9.50001, a8 9.5</small>",
        "<code>b8  (id 8)</code><small>b8 9.5, b7 9.49998</small>",
    )
    assert all(part in html for part in both)
    margin = html.index("1e-05 in the baseline, 2e-05 in the candidate; noise floor 4e-05")
    assert html.index("9.49998") < margin < html.index("what to do"), "beside the values"
    unknown = root.model_copy(update={"difference": root.difference.model_copy(update={"contenders": None})})
    assert "9.5" not in verdict_card(verdict_of("ties", 0, roots=[unknown]), unknown, texts)


def test_nobody_is_sent_to_bisect_traces_that_it_cannot_run_again() -> None:
    texts = SideTexts(TokenTexts(Words("a")), TokenTexts(Words("b")))
    root = root_at(phase="verify", field="top_logits[0]", a="9.5", b="8.5", kind="real")
    ours, foreign, unsaid = (
        verdict_card(verdict_of(roots=[root], runs_again=again), root, texts) for again in (True, False, None)
    )
    assert "Run bisect on this step" in ours
    for card in (foreign, unsaid):
        assert "Run bisect" not in card
        assert "first layer whose hidden states differ" in card
    assert "bisect cannot" in foreign
    assert "bisect cannot" not in unsaid, "a verdict that does not say it is none that denies it"


def test_a_violation_beside_ties_stands_before_them() -> None:
    tie = near_tie()
    broken = Blame(side="b", invariant="commit.prefix-unchanged", witness="it changed")
    html = card_of(verdict_of(roots=[tie], violations=[broken]))
    assert "VIOLATED" in html
    assert "in phase" not in html.split("</h2>")[0]
    assert html.index("commit.prefix-unchanged") < html.index("near-tie")


@pytest.mark.parametrize(
    ("shown", "label"),
    [
        ("⏎⏎", r"\n\n"),
        ("·······", "·×7"),
        ("···", "···"),
        ("⏎····return", r"\n·×4return"),
        (r"\n", r"\\n"),
        (r"\u202e", r"\u202e"),
        ("a" * 20, "a" * 13 + "…"),
    ],
)
def test_labels_tell_line_breaks_from_what_looks_like_them(shown: str, label: str) -> None:
    assert label_text(shown) == label


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_shapes_that_carry_meaning_stand_out(palette: Palette) -> None:
    pairs = [(palette.bar, palette.paper), (palette.edge, palette.paper), (palette.on_accepted, palette.accepted)]
    for colours in pairs:
        darker, lighter = sorted(map(luminance, colours))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, colours
