"""The static report: well-formed, self-contained, hostile text as text, and what it chooses to draw."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.pairs import with_section
from support.row_mutants import requests_waited
from support.traces import EAGER, FAULTY, FUSED, load, store

from specscope.schemas import Step
from specscope.tracer.compare.diff import DiffOptions
from specscope.tracer.errors import UsageError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.naming.tokens import TokenTexts
from specscope.viewer.drawing.markup import NOTHING, Markup
from specscope.viewer.pairs.states import Spot
from specscope.viewer.report.choice import Wanted, choose_steps
from specscope.viewer.report.page import Group, Part, report_page
from specscope.viewer.report.pair_report import PairTexts, pair_report
from specscope.viewer.report.run_report import run_report

XHTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/2000/svg}"
VOID = {"meta"}
RUNNING = {"script", "link", "iframe", "img", "object", "embed", "form", "button", "input", "foreignobject"}
FETCHING = {"src", "srcset", "action", "xlink:href", "background", "ping"}
Maker = Callable[..., Path]


class _Tags(HTMLParser):
    """What a browser's HTML parser makes of a page: nothing runs or fetches, and every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID or "svg" in self.open, f"<{tag}/> leaves its element open in HTML"
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in RUNNING
        for name, value in attrs:
            assert not name.startswith(("on", "data-"))
            assert name not in FETCHING
            self.ids += [value or ""] if name == "id" else []
            self.links += [value or ""] if name == "href" else []


def checked(page: str) -> ElementTree.Element:
    """The page as a tree: well-formed as XML and as HTML, with nothing to fetch, nothing that runs, no dead link."""
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    assert len(tags.ids) == len(set(tags.ids))
    assert set(tags.links) <= {f"#{name}" for name in tags.ids}
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'" in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"@import|url\(|https?:|expression", style)
    assert not re.search(r'="\s*(https?:|//|javascript:|data:)', re.sub(r' xmlns="[^"]*"', "", page))
    return ElementTree.fromstring(page.partition("\n")[2])


def of_run(path: Path, **wanted: Any) -> ElementTree.Element:
    return checked(run_report(path, Wanted(**wanted), TokenTexts(None)).page)


def of_pair(a: Path, b: Path, most_roots: int = 3, **options: Any) -> ElementTree.Element:
    texts = PairTexts(TokenTexts(None), TokenTexts(None), TokenTexts(None))
    return checked(pair_report(a, b, DiffOptions(**options), most_roots=most_roots, texts=texts).page)


def parts_of(root: ElementTree.Element) -> list[str]:
    return [element.get("id", "") for element in root.iter(f"{XHTML}article")]


def part(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return next(element for element in root.iter(f"{XHTML}article") if element.get("id") == name)


def words_of(root: ElementTree.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def drawn(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [svg for svg in root.iter(f"{SVG}svg") if f"ss-{kind}" in (svg.get("class") or "").split()]


def with_wrong_positions(trace: Path, places: set[tuple[int, int]], copy: Path) -> Path:
    """A copy whose steps at ``places``, turn and step, took slots for depths: a violation that the oracle finds."""
    lines = load(trace)
    for line in lines:
        if line["kind"] == "step" and (line["turn"], line["step"]) in places:
            tensors = line["tensors"]
            tensors["positions"] = [tensors["committed_length"] + slot for slot in range(len(tensors["positions"]))]
    return store(lines, copy)


def test_a_sound_run_shows_its_first_turn(make_trace: Maker) -> None:
    root = of_run(make_trace(turns=[[2, 0, 3], [1]]))
    assert parts_of(root) == ["t0s0", "t0s1", "t0s2"]
    words = words_of(root)
    assert "mean accepted length 1.500 nodes per step, without root and bonus token" in words
    assert "tokens per step 2.500 with the bonus token: accepted length + 1" in words
    assert "3 of 4 steps are drawn." in words
    assert [len(drawn(root, kind)) for kind in ("strip", "tree", "mask", "ribbon")] == [1, 3, 3, 3]


def test_a_turn_says_when_its_request_came_and_went(tmp_path: Path) -> None:
    says = words_of(of_run(store(requests_waited(load(FUSED)), tmp_path / "waited.jsonl"), every_step=True))
    for words in (
        "request: arrived at step 0, waited 0 steps (0 ms), row 0 from step 0 on",
        "request: arrived at step 2, waited 3 steps (1500 ms), row 1 from step 5 on",
        "request: arrived at step 2 with its first turn, row 0 from step 18 on; cancelled after",
    ):
        assert says.count(words) == 1
    assert says.count("in a batch of 2: times of a step are those of all its rows") == 3
    assert "request: " not in words_of(of_run(FUSED))


def test_violated_steps_come_with_two_around_each(tmp_path: Path) -> None:
    root = of_run(with_wrong_positions(FUSED, {(1, 5)}, tmp_path / "wrong.jsonl"))
    assert parts_of(root) == [f"t1s{step}" for step in (3, 4, 5, 6, 7)]
    found = [name for name in parts_of(root) if "violated: tensors.position" in words_of(part(root, name))]
    assert found == ["t1s5"]
    table = next(root.iter(f"{XHTML}table"))
    assert "tensors.position-is-length-plus-depth" in words_of(table)
    assert [link.get("href") for link in table.iter(f"{XHTML}a")] == ["#t1s5"]


def test_the_report_of_one_run_says_what_the_health_page_says(tmp_path: Path) -> None:
    health = next(box for box in of_run(FAULTY).iter(f"{XHTML}section") if "ss-card-health" in box.get("class", ""))
    assert "Fault F16 was injected into this run" in words_of(health)
    assert "The engine itself recorded violated invariants in 53 steps" in words_of(health)
    assert {link.get("href") for link in health.iter(f"{XHTML}a")} == {"#t0s0"}
    far = of_run(with_wrong_positions(FUSED, {(1, 5)}, tmp_path / "wrong.jsonl"), turn=0)
    table = next(far.iter(f"{XHTML}table"))
    assert "turn 1, step 5" in words_of(table), "a step that is not drawn is named, with no dead link"
    assert not list(table.iter(f"{XHTML}a"))


def test_steps_can_be_chosen(make_trace: Maker) -> None:
    trace = make_trace(turns=[[1] * 4, [2] * 8])
    assert parts_of(of_run(trace, turn=1, step=4)) == [f"t1s{step}" for step in range(2, 7)]
    assert len(parts_of(of_run(trace, turn=1))) == 8
    assert len(parts_of(of_run(trace, every_step=True))) == 12
    few = of_run(trace, every_step=True, most_steps=5)
    assert parts_of(few) == ["t0s0", "t0s1", "t0s2", "t0s3", "t1s0"]
    assert "5 of 12 steps are drawn; --max-steps 5 is the limit." in words_of(few)


@pytest.mark.parametrize(("asked", "words"), [({"turn": 3}, "0..1"), ({"step": 9}, "turn 0: 0..3")])
def test_a_place_that_is_not_there_is_refused(make_trace: Maker, asked: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        of_run(make_trace(turns=[[1] * 4, [2]]), **asked)


def test_neighbours_of_two_violations_are_drawn_once() -> None:
    turns = [TurnEntry(turn=4, prompt_id="p", prompt_turn=0, start=0, steps=list(range(9)))]
    choice = choose_steps(turns, [Spot(4, 1), Spot(4, 3), Spot(4, 8)], Wanted(most_roots=2))
    assert choice.steps == {4: [0, 1, 2, 3, 4, 5]}
    assert choice.focus == {Spot(4, 1), Spot(4, 3)}


def test_a_folded_tree_has_nothing_to_press(make_trace: Maker) -> None:
    def large(step: Step) -> Step:
        """100 drafted nodes in a star, of which most are folded."""
        assert step.tree is not None
        size = 101
        tree = {
            "tokens": [step.tree.tokens[0], *range(1, size)],
            "parents": [0] * size,
            "depths": [0] + [1] * (size - 1),
            "logprobs": [0.0, *(-0.1 * slot for slot in range(1, size))],
            "scores": [0.0, *(-0.1 * slot for slot in range(1, size))],
        }
        return with_section(step, "tree", **tree).model_copy(update={"tensors": None, "verify": None, "accept": None})

    a, b = make_trace("a.jsonl", turns=[[0]], change=large), make_trace("b.jsonl", turns=[[0]], change=large)
    for root in (of_run(a), of_pair(a, b)):
        assert "unlikely nodes are folded" in words_of(root)
        assert "Show every node" not in words_of(root)


def test_many_nodes_are_drawn_plainly_and_the_page_stays_small(make_trace: Maker) -> None:
    def large(step: Step) -> Step:
        """64 drafted nodes, each with a text of 12 characters."""
        assert step.tree is not None
        size = 65
        tokens = [step.tree.tokens[0], *range(1, size)]
        parents = [0, *((slot - 1) // 4 for slot in range(1, size))]
        depths = [0] * size
        for slot in range(1, size):
            depths[slot] = depths[parents[slot]] + 1
        scores = {"logprobs": [-0.5] * size, "scores": [-1.0] * size}
        tree = step.tree.model_copy(update={"tokens": tokens, "parents": parents, "depths": depths, **scores})
        texts = {str(token): f"token {token:06}" for token in tokens}
        return step.model_copy(update={"tree": tree, "tensors": None, "verify": None, "texts": texts})

    trace = make_trace(turns=[[0] * 100], change=large)
    page = run_report(trace, Wanted(every_step=True, most_roots=1), TokenTexts(None)).page
    assert len(page.encode()) < 3_000_000
    root = checked(page)
    assert len(drawn(root, "tree")) == 100
    assert "drawn plainly" in words_of(root)
    boxes = [g for g in drawn(root, "tree")[50].iter(f"{SVG}g") if "node" in (g.get("class") or "").split()]
    assert len(boxes) == 65
    whole = of_run(trace, step=50)
    assert "draft probability: 0.607" in words_of(whole)


def test_the_pair_leads_with_the_verdict_and_shows_both_trees_of_each_root() -> None:
    root = of_pair(EAGER, FAULTY)
    words = words_of(root)
    assert "The candidate rotates node" in words, "the same card as in the viewer"
    assert words.index("DIFFERENT") < words.index("What was compared") < words.index("Root 1: tensors: positions")
    assert "the candidate violates tensors.position-is-length-plus-depth" in words
    assert "also violated the candidate violates run.engine-checks" in words
    assert parts_of(root) == ["t0s0", "t1s0"]
    for name in parts_of(root):
        found = part(root, name)
        assert "≠ first" in words_of(found)
        assert len(drawn(found, "tree")) == 2 + 2 * 2  # the root's pair, and the two pairs behind it
        assert len(drawn(found, "strip")) == 1
        assert len(drawn(found, "margin")) == 1
        assert len(list(found.iter(f"{XHTML}details"))) >= 2
    assert parts_of(of_pair(EAGER, FAULTY, most_roots=1)) == ["t0s0"]


def test_equal_runs_say_so_and_show_the_first_pair() -> None:
    root = of_pair(EAGER, FUSED)
    assert "EQUAL: no decision differs" in words_of(root)
    assert parts_of(root) == ["t0s0"]
    assert "Nothing differs between these two steps" in words_of(root)


def test_runs_that_agree_and_break_an_invariant_show_where(tmp_path: Path) -> None:
    pair = [with_wrong_positions(path, {(1, 2)}, tmp_path / path.name) for path in (EAGER, FUSED)]
    root = of_pair(pair[0], pair[1])
    assert "VIOLATED: the runs agree, and break an invariant" in words_of(root)
    assert parts_of(root) == ["t1s2"]
    assert "The baseline violates" in words_of(part(root, "t1s2"))
    assert "violated: tensors.position-is-length-plus-depth" in words_of(part(root, "t1s2"))


def test_runs_that_cannot_be_compared_still_give_a_report(tmp_path: Path) -> None:
    lines = load(FUSED)
    lines[0]["teacher"]["weights_digest"] = "0" * 32
    root = of_pair(EAGER, store(lines, tmp_path / "other.jsonl"))
    words = words_of(root)
    assert "INCOMPARABLE" in words
    assert "teacher.weights_digest" in words
    assert "Nothing was compared, so no trees are drawn" in words
    assert not parts_of(root)


def test_a_root_in_the_prompt_shows_the_first_steps_of_its_turn(tmp_path: Path) -> None:
    lines = load(FUSED)
    start = next(line for line in lines if line["kind"] == "turn_start")
    start["prefill"]["top_logits"] = [logit + 1 for logit in start["prefill"]["top_logits"]]
    found = part(of_pair(EAGER, store(lines, tmp_path / "shifted.jsonl")), "root1")
    words = words_of(found)
    assert "It begins in the prompt's own forward" in words
    assert "The prompt's own forward, before this step, differs." in words
    assert len(drawn(found, "tree")) == 2 + 2 * 2  # of step 0, and of the two after it
    assert "≠" in words_of(drawn(found, "strip")[0])


def test_two_roots_at_the_first_step_draw_it_once(make_trace: Maker) -> None:
    def wrong(step: Step) -> Step:
        return with_section(step, "tensors", positions=[9] * 7) if step.step == 0 else step

    a, b = make_trace("a.jsonl"), make_trace("b.jsonl", change=wrong)
    lines = load(b)
    lines[1]["prefill"] |= {"top_logits": [2.0, 1.0]}
    root = of_pair(a, store(lines, b))
    assert parts_of(root) == ["root1", "t0s0"]
    assert "Step 0 is drawn elsewhere on this page." in words_of(part(root, "root1"))
    assert [len(drawn(part(root, name), "tree")) for name in parts_of(root)] == [0, 2 + 2 * 2]


def test_what_the_candidate_alone_violates_is_marked_on_the_strip(make_trace: Maker) -> None:
    def broken(step: Step) -> Step:
        return with_section(step, "tensors", padded_slots=99) if step.step == 1 else step

    root = of_pair(make_trace("a.jsonl", mode="eager"), make_trace("b.jsonl", change=broken))
    assert parts_of(root) == ["t0s1"]
    assert "The candidate violates" in words_of(part(root, "t0s1"))
    assert "✗" in words_of(drawn(part(root, "t0s1"), "strip")[0])


def test_equal_steps_whose_lists_do_not_fit_are_drawn_as_they_are(make_trace: Maker) -> None:
    def short(step: Step) -> Step:
        return with_section(step, "verify", argmax=[50, 51])

    root = of_pair(make_trace("a.jsonl", change=short), make_trace("b.jsonl", change=short))
    assert "These two steps are equal, but their lists do not fit together" in words_of(root)


def test_hostile_texts_stand_literally(make_trace: Maker, pair_of_traces: tuple[Path, Path]) -> None:
    evil = "</style><script>alert(1)</script>"
    trace = make_trace("<b>&amp;.jsonl", prompt_ids=[evil], texts={"1": evil, "2": '" data-x="', "3": "\u202egnp"})
    root = of_run(trace)
    words = words_of(root)
    assert evil in words
    assert "SpecScope report: <b>&amp;.jsonl" in words
    assert '" data-x="' in words
    assert "\u202e" not in words
    assert "<script>document.title = 'pwned'</script>" in words_of(of_pair(*pair_of_traces))


def test_a_run_that_was_cut_off_says_so(make_trace: Maker) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b'{"kind": "st')
    words = words_of(of_run(path))
    assert "TRUNCATED" in words
    assert "A torn record of 12 bytes at the end is left out" in words


def test_traces_with_little_in_them(make_trace: Maker) -> None:
    nothing = make_trace(turns=[])
    assert "This trace holds no turns" in words_of(of_run(nothing))
    assert "This trace holds no turns" not in words_of(of_run(make_trace("b.jsonl", turns=[[]])))
    assert "This turn has no steps It ended with the token that the prompt's own forward gave." in words_of(
        of_run(make_trace("c.jsonl", turns=[[]]))
    )
    sections = dict.fromkeys(("tree", "tensors", "verify", "accept", "commit", "stop", "timing"))
    bare = make_trace("d.jsonl", change=lambda step: step.model_copy(update=sections))
    words = words_of(of_run(bare))
    assert "This step records no tree" in words
    assert "This step records no mask" in words
    treeless = make_trace("e.jsonl", change=lambda step: step.model_copy(update={"tree": None}))
    assert "This step records no tree" in words_of(of_pair(treeless, treeless))
    of_pair(bare, nothing)
    of_pair(bare, bare)


def test_only_the_scripts_attributes_are_left_out() -> None:
    body = '<p data-node="a1" class="x">data-do=&quot;1&quot; is text</p>'
    root = checked(report_page("a < b", NOTHING, [Group("", "", NOTHING, [Part("one", "One", "", Markup(body))])]))
    found = next(root.iter(f"{XHTML}p"))
    assert found.attrib == {"class": "x"}
    assert found.text == 'data-do="1" is text'
    assert root.findtext(f"{XHTML}head/{XHTML}title") == "a < b"
