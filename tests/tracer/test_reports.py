"""Reports: every format names the same first root, fails where the verdict does, and shows hostile text literally."""

from __future__ import annotations

import html
import json
import re
import unicodedata
import xml.etree.ElementTree as Xml
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.called import specscope
from support.traces import EAGER, FAULTY, FUSED
from support.verdicts import HOSTILE, KINDS, drift_of_all, hostile_verdict, near_tie, verdict_of

from specscope.schemas.verdict import Blame, Verdict
from specscope.tracer.cli.diff import diff
from specscope.tracer.errors import UsageError
from specscope.tracer.report.card import Card, card_of
from specscope.tracer.report.formats import FORMATS, check_targets, parse_target, write_whole
from specscope.tracer.report.github import escape_message, escape_property
from specscope.tracer.report.markdown import MAX_BYTES
from specscope.tracer.report.report import Report

FORMS = list(FORMATS)


def rendered(form: str, verdict: Verdict) -> str:
    return FORMATS[form].render(Report(verdict, seconds=1.25))


def plain(form: str, page: str) -> str:
    """The words that a reader of ``page`` sees."""
    if form == "github":
        return unquote(page)
    if form == "junit":
        texts = (" ".join([*element.attrib.values(), element.text or ""]) for element in Xml.fromstring(page).iter())
        return " ".join(texts)
    return html.unescape(page) if form in ("markdown", "html") else page


def words_alone(form: str, verdict: Verdict) -> str:
    """The words of a page without what sets them apart: tags, lines, stars, bars and colons."""
    page = re.sub(r"<[^>]*>", " ", rendered(form, verdict)) if form in ("html", "markdown") else rendered(form, verdict)
    return re.sub(r"[\s*|│`:]+", " ", plain(form, page))


class Tags(HTMLParser):
    """Collects every tag with its attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("form", FORMS)
def test_every_format_names_the_same_first_root(form: str) -> None:
    page = plain(form, rendered(form, verdict_of()))
    if form == "json":
        first = json.loads(page)["roots"][0]
        assert (first["place"]["prompt_id"], first["place"]["step_b"]) == ("code", 4)
        assert (first["difference"]["phase"], first["difference"]["field"]) == ("tensors", "positions")
        return
    for words in (
        "turn 0 (prompt code), steps 3 and 4, position 29",
        "tensors: positions  node #5 > #7",
        "structural; inputs equal",
        "the candidate violates tensors.position-is-length-plus-depth: slot 2: position 31",
        "accepted length 2.297 -> 1.340, steps 37 -> 53, output tokens different (120 -> 119)",
        "1 root, 4 inherited",
        "specscope show fused.jsonl --turn 0 --step 4",
    ):
        assert words in page, words


@pytest.mark.parametrize("form", [form for form in FORMS if form != "json"])
def test_a_bound_on_noise_is_not_called_a_value_of_the_baseline(form: str) -> None:
    page = words_alone(form, verdict_of(roots=[drift_of_all()]))
    assert "wanted 16 roundings at most" in page
    assert "found 1,770 roundings on the whole" in page
    assert "baseline 16" not in page
    assert "baseline 30" in words_alone(form, verdict_of()), "a value of one side is called by it"


@pytest.mark.parametrize("form", [form for form in FORMS if form != "json"])
def test_a_root_in_the_prompt_is_not_said_to_be_in_a_step(form: str) -> None:
    page = words_alone(form, verdict_of(roots=[drift_of_all()]))
    assert "turn 0 (prompt code), prefill, position 29" in page
    assert "turn 0 (prompt code), step" not in page


@pytest.mark.parametrize("form", ["text", "junit", "markdown", "html"])
def test_floors_and_margins_are_stated(form: str) -> None:
    page = plain(form, rendered(form, verdict_of("ties", 0, roots=[near_tie()])))
    source = "measured on values of this pair with equal inputs, 1,258 values"
    assert f"logits: 20 roundings ({source}, 1.2 on the whole, 16 allowed)" in page
    assert "1e-05 in the baseline, 2e-05 in the candidate; noise floor 4e-05" in page
    assert "in the baseline #7 9.50001, #8 9.5; in the candidate #8 9.5, #7 9.49998" in page
    assert "neither side violates an invariant at this step" in page


@pytest.mark.parametrize("kind", list(KINDS))
def test_junit_fails_exactly_where_the_verdict_does_and_adds_up(kind: str) -> None:
    verdict = KINDS[kind]
    document = Xml.fromstring(rendered("junit", verdict))
    assert document.tag == "testsuites"
    (suite,) = document
    cases = suite.findall("testcase")
    for name, found in (
        ("tests", cases),
        ("failures", suite.findall("testcase/failure")),
        ("errors", suite.findall("testcase/error")),
        ("skipped", suite.findall("testcase/skipped")),
    ):
        assert int(suite.attrib[name]) == int(document.attrib[name]) == len(found), name
    assert (int(suite.attrib["failures"]) > 0) == (verdict.exit_code != 0)
    assert int(suite.attrib["tests"]) > int(suite.attrib["skipped"])
    assert sum(float(case.attrib["time"]) for case in cases) == float(suite.attrib["time"]) == 1.25
    names = [case.attrib["name"] for case in cases]
    assert len(set(names)) == len(names)
    assert len(names) < 300


def test_junit_has_an_error_where_there_is_no_verdict() -> None:
    (suite,) = Xml.fromstring(FORMATS["junit"].render_error("bad.jsonl: not JSON\x00"))
    assert (suite.attrib["errors"], suite.attrib["failures"]) == ("1", "0")
    assert suite.find("testcase/error") is not None


@pytest.mark.parametrize("kind", list(KINDS))
def test_github_gets_at_most_one_annotation(kind: str) -> None:
    verdict = KINDS[kind]
    (line,) = rendered("github", verdict).splitlines()
    level = "error" if verdict.exit_code else "notice"
    assert line.startswith("specscope: EQUAL" if verdict.verdict == "equal" else f"::{level} title=specscope diff%3A ")


def violated_beside_ties() -> Verdict:
    """Every root is a tie, and the candidate breaks an invariant: the verdict is ``different``."""
    return verdict_of(
        roots=[near_tie(), near_tie()],
        violations=[Blame(side="b", invariant="commit.length", witness="7, wanted 8")],
        uncovered=["turn 3 was cut off"],
    )


def values_of(card: Card, name: str) -> list[str]:
    return [row.value for row in [*card.rows, *card.notes] if row.name == name]


def test_where_all_roots_are_ties_the_card_is_about_what_is_violated() -> None:
    card = card_of(Report(violated_beside_ties()))
    assert card.title == "VIOLATED: the runs differ in ties alone, and break an invariant"
    assert ("violated", "the candidate: commit.length: 7, wanted 8") in card.rows
    assert not {row.name for row in card.rows} & {"where", "kind", "wrong", "roots"}
    assert [row.name for row in card.notes].count("tie") == 2
    assert (card.roots, card.num_roots) == ([], 2)
    assert "VIOLATED" not in card_of(Report(KINDS["ties"])).title
    real = card_of(Report(violated_beside_ties().model_copy(update={"roots": [*verdict_of().roots, near_tie()]})))
    assert real.title == "DIFFERENT: the candidate rotates node #5 > #7 by position 31, wanted 30"
    assert (real.rows[0].name, len(real.roots)) == ("where", 2)
    assert values_of(real, "also violated") == ["the candidate violates commit.length: 7, wanted 8"]


@pytest.mark.parametrize("form", ["text", "junit", "github", "markdown", "html"])
def test_every_format_names_what_is_violated_beside_ties(form: str) -> None:
    page = rendered(form, violated_beside_ties())
    words = plain(form, page)
    assert "VIOLATED" in words
    assert "commit.length: 7, wanted 8" in words
    if form == "github":
        assert page.startswith("::error title=specscope diff%3A VIOLATED")
        assert "near-tie" not in page


@pytest.mark.parametrize("kind", ["uncovered", "different", "beside ties"])
def test_one_name_for_what_is_not_judged_and_one_for_what_is_not_recorded(kind: str) -> None:
    verdict = violated_beside_ties() if kind == "beside ties" else KINDS[kind]
    verdict = verdict.model_copy(update={"uncovered": ["turn 3 was cut off"], "unjudged": ["no probabilities"]})
    card = card_of(Report(verdict))
    assert values_of(card, "not judged") == ["turn 3 was cut off"]
    assert values_of(card, "not recorded") == ["no probabilities"]
    assert "not judged: turn 3 was cut off" in rendered("junit", verdict)


def test_github_escapes_as_documented() -> None:
    assert escape_message("a%b\r\nc:d,e") == "a%25b%0D%0Ac:d,e"
    assert escape_property("a%b\r\nc:d,e") == "a%25b%0D%0Ac%3Ad%2Ce"


@pytest.mark.parametrize("form", FORMS)
def test_no_format_lets_a_hidden_character_through(form: str) -> None:
    hidden = {c for c in set(rendered(form, hostile_verdict())) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn")}
    assert hidden == {"\n"}


@pytest.mark.parametrize("form", ["text", "github"])
def test_no_line_of_a_log_begins_with_a_command_of_a_traces_making(form: str) -> None:
    lines = rendered(form, hostile_verdict()).splitlines()
    commands = [line for line in lines if line.lstrip().startswith(("::", "##["))]
    assert len(commands) == (form == "github")


def test_hostile_text_is_shown_literally_in_html() -> None:
    tags = Tags()
    page = rendered("html", hostile_verdict())
    tags.feed(page)
    assert set(tags.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2"),
        *("table", "tr", "th", "td", "p"),
    }
    assert not tags.open
    assert "script" not in tags.tags
    assert not [name for name, _ in tags.attributes if name in ("src", "href") or name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    for text in ("<script>alert(1)</script>", "]]><evil/>", "\\u202egnp.exe", "\\u0000\\u0001\\u001b[2J"):
        assert text in tags.text
    assert "prefers-color-scheme: dark" in page


def test_hostile_text_is_data_in_xml() -> None:
    document = Xml.fromstring(rendered("junit", hostile_verdict()))
    assert {element.tag for element in document.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure", "system-out"),
    }
    for case in document.iter("testcase"):
        for name in ("name", "classname"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+", case.attrib[name]), case.attrib[name]
    assert "]]><evil/>" in plain("junit", rendered("junit", hostile_verdict()))


def test_hostile_text_is_no_markup_in_markdown() -> None:
    page = rendered("markdown", hostile_verdict())
    assert len(page.encode()) < MAX_BYTES
    tags = Tags()
    tags.feed(page)
    assert set(tags.tags) == {"code", "details", "summary"}
    for line in page.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 8), line[:200]
            assert not set(re.sub(r"</?code>|&#\d+;", "", line)) & set("<>`*[]_\\~:@$&#")
    assert HOSTILE[0] in html.unescape(page)


def test_the_pages_bound_holds_where_sections_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specscope.tracer.report.markdown.MAX_BYTES", 20_000)
    page = rendered("markdown", hostile_verdict())
    assert len(page.encode()) <= 20_000
    assert "More was left out" in page
    assert page.startswith("## ❌ specscope diff: DIFFERENT")


@pytest.mark.parametrize("form", FORMS)
def test_reports_stay_small_whatever_the_traces_hold(form: str) -> None:
    if form != "json":
        assert len(rendered(form, hostile_verdict()).encode()) < 3_000_000


def test_files_are_written_whole_and_keep_their_mode(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text("old")
    path.chmod(0o640)
    link = tmp_path / "link.xml"
    link.symlink_to(path)
    write_whole(link, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half \ud800")
    assert path.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.xml", "report.xml"]


@pytest.mark.parametrize("value", ["junit", "=x", "pdf=x", "junit="])
def test_a_target_of_another_shape_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="wanted FORMAT=FILE"):
        parse_target(value)


def test_targets_that_cannot_be_written_are_refused_before_anything_is_compared(tmp_path: Path) -> None:
    trace = tmp_path / "a.jsonl"
    (tmp_path / "loop").symlink_to(tmp_path / "pool")
    (tmp_path / "pool").symlink_to(tmp_path / "loop")
    for values, words in (
        ([f"html={tmp_path}"], "no regular file"),
        (["html=/dev/null"], "no regular file"),
        ([f"html={tmp_path}/none/x"], "does not exist"),
        ([f"html={trace}"], "one of the traces"),
        ([f"html={tmp_path}/x", f"json={tmp_path}/./x"], "two reports"),
        ([f"html={tmp_path}/loop"], "in a circle"),
        ([f"html={tmp_path}/loop/x"], "does not exist"),
    ):
        with pytest.raises(UsageError, match=words):
            check_targets([parse_target(value) for value in values], [trace])


def test_diff_writes_every_format_beside_what_it_prints(tmp_path: Path) -> None:
    outs = [argument for form in FORMS for argument in ("--out", f"{form}={tmp_path / form}")]
    (tmp_path / "junit").write_text("the report of yesterday")
    done = specscope("diff", EAGER, FAULTY, "--format", "github", *outs)
    assert done.code == 1
    assert done.out == (tmp_path / "github").read_text()
    assert json.loads((tmp_path / "json").read_text())["verdict"] == "different"
    assert Xml.parse(tmp_path / "junit").getroot().attrib["failures"] != "0"
    for form in ("text", "junit", "markdown", "html"):
        page = plain(form, (tmp_path / form).read_text())
        assert "tensors: positions  node ·return" in page, "the token's text, from the trace"
    assert (tmp_path / "text").read_text() == specscope("diff", EAGER, FAULTY).out


def test_where_there_is_no_verdict_the_reports_say_why(tmp_path: Path) -> None:
    outs = [argument for form in FORMS for argument in ("--out", f"{form}={tmp_path / form}")]
    for form in FORMS:
        (tmp_path / form).write_text("the report of yesterday")
    done = specscope("diff", FUSED, tmp_path / "none.jsonl", *outs)
    assert (done.code, done.out) == (2, "")
    for form in FORMS:
        assert "none.jsonl: no such file" in plain(form, (tmp_path / form).read_text())


def test_where_a_bug_ends_the_comparison_the_reports_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "junit.xml"
    path.write_text("the report of yesterday")

    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("specscope.tracer.cli.diff.make_report", fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        diff.main([str(EAGER), str(FUSED), "--out", f"junit={path}"], standalone_mode=False)
    assert Xml.parse(path).getroot().attrib["errors"] == "1"
    assert "RuntimeError: no such luck" in plain("junit", path.read_text())


def test_a_page_that_cannot_be_rendered_leaves_no_stale_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_text("the report of yesterday")
    monkeypatch.setattr("specscope.tracer.report.text.card_of", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        diff.main([str(EAGER), str(FUSED), "--out", f"text={path}"], standalone_mode=False)
    assert path.read_text() == "error: ZeroDivisionError: division by zero\n"
