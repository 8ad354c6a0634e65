"""A bundle: a static site of a run or a pair, small, opened from a disk, with the viewer's keys and links."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import expect, sync_playwright
from support.browser import BROWSER, FLAGS, LOOK, WAIT
from support.traces import EAGER, FAULTY, FUSED

from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.tokens import TokenTexts
from specscope.tracer.oracle.invariants.base import Context
from specscope.viewer.bundle.packing import MARK, Packed, pack
from specscope.viewer.bundle.write import write_bundle
from specscope.viewer.drawing.markup import NOTHING
from specscope.viewer.drawing.step.board import step_board
from specscope.viewer.runs.judge import judged_step
from specscope.viewer.runs.tokenizers import known_tokenizer

TraceMaker = Callable[..., Path]


def turn_of(folder: Path, turn: int) -> dict[str, Any]:
    """What the file of a turn holds, its boards and their notes put together."""
    packed = re.fullmatch(rf'bundle\({turn}, "([^"]*)"\);\n', (folder / "data" / f"{turn}.js").read_text())
    assert packed is not None
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed[1])))
    texts = put_together(Packed(*(content[name] for name in Packed._fields)))
    notes = texts[len(texts) - len(content["boards"]) :]
    boards = ["".join(texts[at] for at in board) for board in content["boards"]]
    return {"boards": boards, "notes": [json.loads(text) for text in notes]}


def put_together(packed: Packed) -> list[str]:
    """The texts, one number after another."""
    columns = [[column.split(",") for column in columns] for columns in packed.numbers]
    texts = []
    for letters in packed.texts:
        text = ""
        for letter in letters:
            at = ord(letter) - 0x20 - (0x800 if ord(letter) >= 0xD800 else 0)
            first, *rest = packed.templates[at].split(MARK) if columns[at] else [packed.templates[at]]
            text += first + "".join(column.pop(0) + part for column, part in zip(columns[at], rest, strict=True))
        texts.append(text)
    return texts


def test_every_step_is_in_it_and_a_thousand_are_below_ten_megabytes(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "site", [FUSED])
    boards = [board for turn in (0, 1, 2) for board in turn_of(tmp_path / "site", turn)["boards"]]
    assert len(boards) == written.num_steps == 37
    for board in boards:
        ElementTree.fromstring(board)
    num_bytes = sum(path.stat().st_size for path in (tmp_path / "site" / "data").iterdir())
    assert num_bytes / written.num_steps * 1_000 < 3.5e6, "of 16 nodes"
    assert (tmp_path / "site" / "index.html").stat().st_size < 100_000


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ['<a x="1.5">1<b/>-2</a>', '<a x="7">1<b/>-2</a>', '<a x="-0.25">12<b/>3</a>'],
        ["a5", "a\x7f", "a\x7f5", "a\x7f\x7f", "5", "-", "1.2.3", "٣٣", "1,5", "a,\n\u2028\ud7ff\ue000\U0001f600<"],
        [f"<x{'y' * at}>" for at in range(70)] * 2,
    ],
)
def test_texts_are_put_together_as_they_were(texts: list[str]) -> None:
    assert put_together(pack(texts)) == texts


def test_more_templates_than_characters_before_the_surrogates() -> None:
    texts = [f"<t{chr(0x4E00 + at % 20_000)}{'abcd'[at // 20_000]} {at}>" for at in range(60_000)]
    assert put_together(pack(texts)) == texts


def test_what_is_in_it_is_what_the_viewer_draws(tmp_path: Path) -> None:
    write_bundle(tmp_path / "site", [FUSED])
    with TraceReader(FUSED) as reader:
        for turn in reader.turns:
            held = turn_of(tmp_path / "site", turn.turn)
            texts, previous = TokenTexts.load_for(known_tokenizer(reader.manifest, FUSED), FUSED), None
            for number, step in enumerate(reader.steps(turn)):
                texts.learn(step)
                start = reader.turn_start(turn)
                context = Context(manifest=reader.manifest, turn=start, previous=previous, step=step)
                board = step_board(judged_step(context, texts), strip=NOTHING)
                assert held["boards"][number] == board.html
                assert held["notes"][number] == board.notes
                previous = step


def test_a_pair_shows_its_verdict_and_both_trees(tmp_path: Path) -> None:
    write_bundle(tmp_path / "site", [EAGER, FAULTY])
    first = turn_of(tmp_path / "site", 0)["boards"][0]
    assert first.count('class="ss-tree"') == 2
    assert "The candidate rotates node" in first


def test_what_cannot_be_bundled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wanted one, or the two of a diff"):
        write_bundle(tmp_path / "a", [EAGER, FUSED, FAULTY])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        write_bundle(tmp_path / "full", [EAGER])


@pytest.mark.skipif(not BROWSER, reason="no chromium on the PATH")
def test_it_opens_from_a_disk_with_keys_and_links_and_nothing_runs(tmp_path: Path, hostile_folder: Path) -> None:
    write_bundle(tmp_path / "site", [hostile_folder / name for name in ("sound.jsonl", "wrong.jsonl")])
    link = (tmp_path / "site" / "index.html").as_uri()
    trouble: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        own = ("file:", "blob:")  # from the disk, or made by the page itself
        page.on("request", lambda request: None if request.url.startswith(own) else trouble.append(request.url))
        page.goto(link)
        expect(page).to_have_title(re.compile("^0/1 "), timeout=WAIT)
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(re.compile("turn=0&step=2"), timeout=WAIT)
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(re.compile("turn=1&step=0"), timeout=WAIT)
        expect(page).to_have_title(re.compile("^1/0 "), timeout=WAIT)
        page.go_back()
        expect(page).to_have_title(re.compile("^0/2 "), timeout=WAIT)
        page.goto(f"{link}#turn=1&step=1&node=a3")
        expect(page.locator("svg.ss-tree .picked").first).to_be_visible(timeout=WAIT)
        for turn in (0, 1):  # the script puts together what the files hold
            held = turn_of(tmp_path / "site", turn)
            there = page.evaluate("(turn) => loaded.get(turn).boards", turn)
            assert [board["html"] for board in there] == held["boards"]
            assert [json.loads(board["notes"]) for board in there] == held["notes"]
        with page.expect_download() as saved:
            page.get_by_role("button", name=re.compile("as PNG$")).first.click()
        assert saved.value.path().read_bytes().startswith(b"\x89PNG")
        look = page.evaluate(LOOK.replace("[data-testid=stMain]", "main"))
        assert look["forbidden"] == look["attributes"] == []
        assert "<script>document.title = 'pwned'</script>" in look["text"]
        browser.close()
    assert trouble == []
