"""The Step page and the way between pages, run by Streamlit's own test harness."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest
from support.pages import Opener, boards_of, checked, html_of, query_of
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FAULTY, store

from specscope.viewer.runs.catalogue import Catalogue
from specscope.viewer.screens.session import MOST_INDEXES, Arguments, open_run

TraceMaker = Callable[..., Path]


def test_keys_lead_through_the_steps(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace())
    assert query_of(app) == {"page": "step", "run": "a.jsonl", "turn": "0", "step": "0"}
    assert app.button(key="previous").disabled
    assert app.button(key="first").disabled
    for key, step in (("next", "1"), ("last", "2"), ("previous", "1"), ("first", "0"), ("next", "1"), ("next", "2")):
        checked(app.button(key=key).click().run())
        assert query_of(app)["step"] == step
        assert f"draft tree of step {step}," in html_of(app)
        assert boards_of(app)[0]["now"] == int(step)
    assert app.button(key="next").disabled
    assert app.button(key="next-divergence").disabled


def test_the_next_divergence_may_lie_in_another_turn(make_trace: TraceMaker, open_app: Opener) -> None:
    def wrong(step: object) -> object:
        if (step.turn, step.step) not in ((0, 1), (2, 0)):  # type: ignore[attr-defined]
            return step
        tensors = step.tensors  # type: ignore[attr-defined]
        moved = tensors.model_copy(update={"positions": [p + 5 for p in tensors.positions]})
        return step.model_copy(update={"tensors": moved})  # type: ignore[attr-defined]

    app = open_app(make_trace(turns=[[1, 1], [1, 2], [0, 1]], change=wrong))
    places = []
    while not app.button(key="next-divergence").disabled:
        checked(app.button(key="next-divergence").click().run())
        places.append((query_of(app)["turn"], query_of(app)["step"]))
    assert places == [("0", "1"), ("2", "0")]
    checked(app.button(key="previous-divergence").click().run())
    assert (query_of(app)["turn"], query_of(app)["step"]) == ("0", "1")


def test_a_link_opens_turn_step_and_node(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(turns=[[1], [2, 0, 3, 1]]), page="step", turn="1", step="3", node="4")
    assert app.selectbox(key="turn").value == 1
    assert boards_of(app)[0]["picked"] == "4"
    assert query_of(app) == {"page": "step", "run": "a.jsonl", "turn": "1", "step": "3", "node": "4"}
    checked(app.selectbox(key="turn").set_value(0).run())
    assert query_of(app) == {"page": "step", "run": "a.jsonl", "turn": "0", "step": "0"}


def test_a_link_past_the_end_opens_the_last_step(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(), turn="99", step="99")
    assert query_of(app) == {"page": "step", "run": "a.jsonl", "turn": "0", "step": "2"}


def test_nodes_that_differ_are_marked_beside_the_baseline(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    html = html_of(open_app(*pair_of_traces, page="step", run="wrong.jsonl", step="1"))
    assert html.count("≠<tspan> first<") == 1
    assert html.count('class="sign"') >= 5
    assert "differs" not in html_of(open_app(pair_of_traces[1], step="1"))


def test_a_link_to_a_run_that_is_not_here_shows_no_other_in_its_place(make_trace: TraceMaker, open_app: Opener) -> None:
    for name in ("../../etc/passwd", "gone.jsonl", "<b>x</b>"):
        app = open_app(make_trace("a.jsonl"), page="step", run=name, turn="0", step="1")
        assert query_of(app)["page"] == "runs"
        assert f"There is no run {escape(name)} here" in html_of(app)
        assert "root:" not in html_of(app)
        checked(app.button_group(key="page").set_value("step").run())
        assert "There is no run" not in html_of(app)


def places_of(app: AppTest) -> tuple[str, str]:
    return query_of(app)["turn"], query_of(app)["step"]


def test_step_and_diff_keep_their_place_whichever_run_is_shown(open_app: Opener) -> None:
    pair = {"baseline": EAGER.name, "candidate": FAULTY.name, "turn": "1", "step": "8"}
    for run in ("baseline", "candidate"):
        app = open_app(EAGER, FAULTY, page="diff", **pair)
        assert places_of(app) == ("1", "8")
        for _ in range(2):
            checked(app.button_group(key="page").set_value("step").run())
            checked(app.selectbox(key="run").set_value(pair[run]).run())
            beside = places_of(app)
            checked(app.button_group(key="page").set_value("metrics").run())
            checked(app.button_group(key="page").set_value("diff").run())
            assert places_of(app) == ("1", "8")
        assert beside == (("1", "8") if run == "baseline" else ("1", "10"))


def test_going_back_shows_what_the_address_says(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(), page="step")
    before = query_of(app)
    checked(app.button(key="next").click().run())
    app.query_params.update(before)
    checked(app.run())
    assert query_of(app) == before
    assert boards_of(app)[0]["now"] == 0
    checked(app.button(key="next").click().run())
    assert boards_of(app)[0]["now"] == 1


def test_the_strip_tells_what_the_oracle_found_once_it_was_asked(
    pair_of_traces: tuple[Path, Path], open_app: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specscope.viewer.screens.session.LARGE_BYTES", 1000)
    app = open_app(pair_of_traces[1], page="step")
    assert app.button(key="next-divergence").disabled
    checked(app.button_group(key="page").set_value("health").run())
    checked(next(button for button in app.button if "every record" in button.label).click().run())
    checked(app.button_group(key="page").set_value("step").run())
    assert not app.button(key="next-divergence").disabled


def test_texts_do_not_outlive_the_run(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace(texts={"1": "secret"})
    assert "secret" in html_of(open_app(path))
    lines = make_trace().read_text(encoding="utf-8").replace('"run_id":"run"', '"run_id":"another"')
    path.write_text(lines, encoding="utf-8")
    assert "secret" not in html_of(open_app(path))


def test_indexes_are_shared_by_threads(make_trace: TraceMaker) -> None:
    paths = [make_trace(f"{number}.jsonl", turns=[[1]]) for number in range(2 * MOST_INDEXES)]
    arguments = Arguments(Catalogue(paths), None)

    def read(seed: int) -> int:
        count = 0
        for number in range(60):
            with open_run(arguments, f"{(seed * number) % len(paths)}.jsonl") as reader:
                count += len(reader.turns)
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, (1, 3, 5, 7))) == [60] * 4


def test_another_run_can_be_chosen(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace("a.jsonl"), make_trace("b.jsonl", turns=[[1]]), page="step")
    checked(app.selectbox(key="run").set_value("b.jsonl").run())
    assert query_of(app)["run"] == "b.jsonl"
    assert app.selectbox(key="turn").options == ["0 · prompt-0 · 1 step"]


def test_the_step_page_shows_its_parts(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace())
    html = html_of(app)
    for words in (
        "3 → 6",
        "2 of 2 layers equal their sources",
        "invariants hold at this step",
        "10.13 ms in all",
        "tree mask of 7 slots",
        "cache rows before and after the commit",
        "teacher&#x27;s top",
    ):
        assert words in html
    assert "violated" not in html.replace("violates", "")
    (board,) = boards_of(app)
    assert sorted(board["notes"]) == list("0123456")
    assert '"committed_after": 6' in board["raw"]["step"]
    for part in (board["html"], board["strip"], *board["notes"].values()):
        ElementTree.fromstring(part)  # the browser reads it as XML


def test_a_node_says_why_it_was_accepted_or_not(make_trace: TraceMaker, open_app: Opener) -> None:
    notes = boards_of(open_app(make_trace()))[0]["notes"]
    assert "the root: the step before emitted it" in notes["0"]
    assert "accepted: the teacher chose this token at slot 0" in notes["1"]
    assert "rejected: the teacher chose #1 at slot 0" in notes["2"]
    assert "rejected: the walk never reached its parent" in notes["5"]
    assert "parent slot 2, depth 2, position 5" in notes["5"]
    assert "#50 (9.500), then #99 (7.250); gap 2.25" in notes["3"]
    assert "0.741, of the whole path 0.607" in notes["3"]


def test_hostile_text_is_escaped_everywhere(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    for page in ("runs", "step", "text", "find", "diff", "metrics", "health"):
        app = open_app(*pair_of_traces, page=page)
        everything = html_of(app)
        assert "<script" not in everything
        assert "<img" not in everything
        texts = [*(e.value for e in app.markdown), *(e.value for e in app.caption), *(e.value for e in app.code)]
        texts += [str(label) for box in app.selectbox for label in box.options]
        assert "\u202e" not in "".join([everything, *texts])
        assert "$x^2$" not in "".join(e.value for e in [*app.markdown, *app.caption])
        if page in ("step", "diff"):
            assert "&lt;script&gt;" in everything


def test_hostile_prompt_ids(make_trace: TraceMaker, open_app: Opener) -> None:
    app = open_app(make_trace(prompt_ids=["<b>$x$\u202e\n"]))
    assert app.selectbox(key="turn").options == ["0 · <b>$x$\\u202e⏎ · 3 steps"]


def test_a_violation_is_named(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    html = html_of(open_app(pair_of_traces[1], step="1"))
    assert "violated: tensors.position-is-length-plus-depth" in html
    assert "slot 2: position 8, wanted 7 = 6 + depth 1" in html
    assert 'class="step violated' in html


def test_a_lossy_rule_is_seen(tmp_path: Path, open_app: Opener) -> None:
    typical = store(toy_lines(Toy("typical", levels=False, fallback_at=0)), tmp_path / "typical.jsonl")
    html = html_of(open_app(typical))
    assert "lossy (typical acceptance)" in html
    assert "full-reorder; fallback: a path that does not ascend" in html
    assert "violated" not in html


def test_rows_side_by_side_are_turns_like_any_other(tmp_path: Path, open_app: Opener) -> None:
    batch = store(toy_lines(Toy("sampling", batch_size=2)), tmp_path / "batch.jsonl")
    app = open_app(batch, turn="1", step="3")
    assert app.selectbox(key="turn").value == 1
    html = html_of(app)
    assert "lossy" not in html
    assert "tokens are drawn" in html
    assert "violated" not in html
    assert "draft tree of step 3" in html


def test_a_trace_that_grows_is_followed(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))  # its first two steps
    app = open_app(path)
    checked(app.button(key="next").click().run())
    assert app.button(key="next").disabled
    path.write_bytes(b"".join(lines))
    checked(app.run())
    checked(app.button(key="next").click().run())
    assert query_of(app)["step"] == "2"
    assert "truncated" not in html_of(app)


def test_a_truncated_trace_warns(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace(run_end=False)
    with path.open("ab") as file:
        file.write(b'{"kind":"step"')
    html = html_of(open_app(path))
    assert "This trace is truncated" in html
    assert "A torn record of 14 bytes at the end is left out" in html


@pytest.mark.parametrize(
    ("turns", "words"),
    [([], "This trace holds no turns yet"), ([[]], "This turn has no steps")],
    ids=["turns", "steps"],
)
def test_empty_traces_say_so(make_trace: TraceMaker, open_app: Opener, turns: list[list[int]], words: str) -> None:
    assert words in html_of(open_app(make_trace(turns=turns)))


def test_sections_that_were_not_recorded(make_trace: TraceMaker, open_app: Opener) -> None:
    def bare(step: object) -> object:
        names = ("tree", "tensors", "verify", "accept", "commit", "timing")
        return step.model_copy(update=dict.fromkeys(names))  # type: ignore[attr-defined]

    html = html_of(open_app(make_trace(change=bare)))
    for words in ("records no tree", "records no mask", "records no slots", "records no commit", "records no timings"):
        assert words in html


def test_a_large_tree_is_folded_until_it_is_asked_for(make_trace: TraceMaker, open_app: Opener) -> None:
    size = 100

    def large(step: object) -> object:
        tree = step.tree  # type: ignore[attr-defined]
        parents = [0, *((slot - 1) // 3 for slot in range(1, size))]
        changes = {"tokens": [tree.tokens[0], *range(1, size)], "parents": parents, "depths": [0] * size}
        scores = {"logprobs": [-1.0] * size, "scores": [-float(slot) for slot in range(size)]}
        return step.model_copy(update={"tree": tree.model_copy(update=changes | scores)})  # type: ignore[attr-defined]

    html = html_of(open_app(make_trace(change=large)))
    assert "35 unlikely nodes are folded" in html
    assert 'data-do="unfold"' in html


def test_a_file_that_vanished_is_an_error_in_words(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace()
    path.unlink()
    assert "no such file" in html_of(open_app(path))


def test_a_file_name_that_is_no_text(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace()
    odd = path.rename(path.with_name(os.fsdecode(b"half-\xff.jsonl")))
    for page in ("step", "health"):
        assert "invariants" in html_of(open_app(odd, page=page)).lower()


def test_pages_are_chosen_above(pair_of_traces: tuple[Path, Path], open_app: Opener) -> None:
    app = open_app(*pair_of_traces)
    assert query_of(app)["page"] == "diff"
    for page in ("runs", "step", "metrics", "health", "diff"):
        checked(app.button_group(key="page").set_value(page).run())
        assert query_of(app)["page"] == page


def test_a_link_beyond_the_trace_says_what_is_shown_instead(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace()
    app = open_app(path, page="step", run="a.jsonl", turn="99", step="9")
    assert "There is no step 9 in turn 99 of this trace" in html_of(app)
    assert "Turn 0, step 2 is shown instead." in html_of(app)
    assert "is shown instead" not in html_of(checked(app.run())), "said once"
    assert "is shown instead" not in html_of(open_app(path, page="step", run="a.jsonl", turn="0", step="2"))


def test_a_growing_trace_is_followed_to_its_newest_step(make_trace: TraceMaker, open_app: Opener) -> None:
    path = make_trace(turns=[[1, 1], [2, 1, 0]], run_end=False)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:4]))
    app = open_app(path, page="step")
    checked(app.toggle(key="follow").set_value(True).run())
    assert (query_of(app)["turn"], query_of(app)["step"]) == ("0", "1")
    path.write_bytes(b"".join(whole))
    checked(app.run())
    assert (query_of(app)["turn"], query_of(app)["step"]) == ("1", "2")
    checked(app.toggle(key="follow").set_value(False).run())
    checked(app.button(key="first").click().run())
    assert query_of(app)["step"] == "0", "the pause"
    assert not open_app(make_trace("b.jsonl"), page="step").toggle, "a whole trace grows no more"
