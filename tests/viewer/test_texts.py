"""The HTML pieces escape every text, and the verdict's card says what a person needs."""

from __future__ import annotations

from pathlib import Path

from support.verdicts import near_tie, verdict_of

from specscope.schemas.verdict import Blame
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.reader import TraceReader
from specscope.tracer.tokens import TokenTexts
from specscope.viewer.drawing.fragments import Fact, Share, bars, commands, facts, heading, note, quiet, rows
from specscope.viewer.drawing.verdict_card import next_commands, surroundings, value_text, verdict_card
from specscope.viewer.step_pairs import compare_pair, first_common_step, steps_at

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


def test_the_card_of_a_fault(pair_of_traces: tuple[Path, Path]) -> None:
    verdict = diff_traces(*pair_of_traces)
    root = verdict.roots[0]
    texts = TokenTexts(None)
    with TraceReader(pair_of_traces[0]) as a, TraceReader(pair_of_traces[1]) as b:
        steps = steps_at(a, b, root.place)
        assert steps is not None
        texts.learn(steps.b)
        found = compare_pair(a, b, steps, verdict.floors)
    html = verdict_card(verdict, root, texts)
    assert "DIFFERENT in phase tensors: positions" in html
    assert "prompt-0 turn 1, step 1, position 6" in html
    assert "&lt;/svg&gt;&lt;img src=x onerror=" in html
    assert "<img" not in html
    assert "the candidate violates tensors.position-is-length-plus-depth: slot 2" in html
    assert "compared across</dt><dd>mode: eager -&gt; fused" in surroundings(verdict)
    assert "--turn 0 --step 1" in next_commands(verdict, root)
    # By slot, slots 2..6 stand too far out; slot 2 is where it begins.
    assert found.slots_a == found.slots_b == frozenset({2, 3, 4, 5, 6})
    assert (found.origin_a, found.origin_b) == (2, 2)


def test_equal_runs_have_a_first_common_step(pair_of_traces: tuple[Path, Path]) -> None:
    verdict = diff_traces(pair_of_traces[0], pair_of_traces[0])
    assert "EQUAL: no decision differs" in verdict_card(verdict, None, TokenTexts(None))
    with TraceReader(pair_of_traces[0]) as a, TraceReader(pair_of_traces[0]) as b:
        steps = first_common_step(a, b)
        assert steps is not None
        assert (steps.a.step, steps.b.step) == (0, 0)
        found = compare_pair(a, b, steps, verdict.floors)
    assert not found.differences
    assert not found.slots_a | found.slots_b
    assert found.origin_a is None


def test_token_ids_in_a_verdict_get_their_text() -> None:
    assert value_text("argmax", "7", TokenTexts(None)) == "#7  (id 7)"
    assert value_text("positions", "7", TokenTexts(None)) == "7"
    assert value_text("argmax", "absent", TokenTexts(None)) == "absent"


def test_a_violation_beside_ties_stands_before_them() -> None:
    tie = near_tie()
    broken = Blame(side="b", invariant="commit.prefix-unchanged", witness="it changed")
    html = verdict_card(verdict_of(roots=[tie], violations=[broken]), tie, TokenTexts(None))
    assert "VIOLATED" in html
    assert "in phase" not in html.split("</h2>")[0]
    assert html.index("commit.prefix-unchanged") < html.index("near-tie")
