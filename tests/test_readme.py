"""The README and the documents do what they say: their commands run as written, the sample output is real, numbers have
their commands, links lead somewhere, and the README stays short."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import specscope
from support.traces import ROOT

from specscope.tracer.oracle.invariants import ALL_INVARIANTS
from specscope.tracer.oracle.invariants.run import RUN_RULES

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
LARGEST_README = 8192  # bytes
#: Those whose commands run one after another in one folder: all of them build on the traces that the README records.
RUNNABLE = [ROOT / name for name in ("README.md", "docs/commands.md", "docs/viewer.md", "docs/engine.md")]
ENGINE = RUNNABLE[-1].read_text(encoding="utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *ROOT.glob("*/README.md"),
    *ROOT.glob("docs/*.md"),
    ROOT / "engine/demo_models/README.md",
]


def shell_commands(document: Path) -> list[str]:
    """The lines of the document's shell blocks, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def exit_code_of(command: str) -> int:
    """What a documented ``specscope`` command exits with."""
    name = shlex.split(command)[1]
    if name == "report":
        return 0
    is_stopped = "F16" in command or name == "repro"  # the failure is there
    parts = "scaled.jsonl" in command and name in ("diff", "bisect")
    is_stale = "stale.jsonl" in command and name in ("check", "diff")
    return int(is_stopped or parts or is_stale)


#: Minutes, or until it is interrupted.
TOO_LONG = ("bench", "train", "view")


@pytest.mark.slow
def test_the_specscope_commands_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    shutil.copytree(ROOT / "engine" / "demo_models" / "teacher", tmp_path / "engine" / "demo_models" / "teacher")
    shutil.copytree(ROOT / "sample_traces", tmp_path / "sample_traces")
    (arrivals,) = re.findall(r"^```json\n(.*?arrives_at.*?)^```", ENGINE, re.MULTILINE | re.DOTALL)
    (tmp_path / "arrivals.jsonl").write_text(arrivals, encoding="utf-8")
    ran = []
    for command in [command for document in RUNNABLE for command in shell_commands(document)]:
        program, *arguments = shlex.split(command)
        if "--calibrate" in arguments:  # minutes, but for one load
            arguments += ["--rows", "1", "--contexts", "32", "--rounds", "1"]
        elif program != "specscope" or arguments[0] in TOO_LONG:
            continue
        done = specscope(*arguments, cwd=tmp_path)
        assert done.code == exit_code_of(command), (command, done)
        ran.append(arguments[0])
    assert {"run", "check", "diff", "show", "report", "bisect", "replay", "repro"} <= set(ran)


def test_the_make_targets_exist() -> None:
    commands = [command for document in DOCUMENTS for command in shell_commands(document)]
    targets = [shlex.split(command)[1] for command in commands if command.startswith("make ")]
    in_readme = [shlex.split(command)[1] for command in shell_commands(DOCUMENTS[0]) if command.startswith("make ")]
    assert {"demo", "test", "view"} <= set(in_readme)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in script
    assert "make check" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_its_card_is_what_diff_prints() -> None:
    (card,) = re.findall(r"^```text\n(╭.*?)^```", README, re.MULTILINE | re.DOTALL)
    printed = specscope("diff", "sample_traces/eager.jsonl", "sample_traces/fused-F16.jsonl").out
    for line in card.splitlines():
        assert line in printed.splitlines()
    assert card in printed, "lines are missing"


def test_it_is_short() -> None:
    assert len(README.encode()) <= LARGEST_README, f"got {len(README.encode())} bytes, wanted {LARGEST_README} at most"


def test_it_counts_the_invariants() -> None:
    number = len(ALL_INVARIANTS) + len(RUN_RULES)
    assert f"recomputes {number} invariants" in README


def test_the_command_table_is_complete() -> None:
    listed = set(re.findall(r"^\| `specscope ([\w-]+)", COMMANDS, re.MULTILINE))
    offered = set(re.findall(r"^  (\w[\w-]*)  ", specscope("--help").out, re.MULTILINE))
    assert listed == offered
    in_readme = re.findall(r"\| `specscope ([\w-]+)", README)
    assert in_readme == ["run", "check", "diff", "view", "bisect"]


# Links, to files and into them.


def anchors(document: Path) -> set[str]:
    """The names by which a document's headings are linked, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        times = names.count(name)
        names.append(f"{name}-{times}" if times else name)
    return set(names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked), target


def prose(document: Path) -> str:
    """The document without its blocks of code, and without code in a line."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        if document in reached or document.suffix != ".md" or not document.exists():
            continue
        reached.add(document)
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose(document))
        todo += [(document.parent / link).resolve() for link in links]
    assert set(ROOT.glob("docs/*.md")) <= reached


# Numbers.


def section(text: str, anchor: str) -> str:
    """The part of a document under the heading with that anchor, sub-headings included."""
    for match in re.finditer(r"^(#+) (.*)\n", text, re.MULTILINE):
        if re.sub(r"[^\w\- ]", "", match[2].lower()).replace(" ", "-") == anchor:
            following = re.compile(rf"^#{{1,{len(match[1])}}} ", re.MULTILINE).search(text, match.end())
            return text[match.end() : following.start() if following else None]
    raise AssertionError(anchor)


def test_every_number_names_its_command() -> None:
    _, *sections = MEASUREMENTS.split("\n## ")
    assert len(sections) >= 7
    for paragraph in [part for text in sections for part in text.split("\n### ")]:
        named = any(f"`{program} " in paragraph for program in ("specscope", "pytest", "python"))
        assert named, paragraph.splitlines()[0]


def test_the_readmes_numbers_are_those_of_the_section_that_each_links_to() -> None:
    rows = re.findall(r"^\| \[[^]]*\]\((docs/[\w-]+\.md)#([\w-]+)\)(.*)$", section(README, "numbers"), re.MULTILINE)
    assert len(rows) >= 6
    for path, anchor, row in rows:
        measured = section((ROOT / path).read_text(encoding="utf-8"), anchor)
        for number in re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*", row):
            assert re.search(rf"(?<![\w.]){re.escape(number)}(?![\d.]*\d)", measured), (anchor, number)


def test_where_accepted_length_is_tabulated_tokens_per_step_are_beside_it() -> None:
    for document in DOCUMENTS:
        for head in re.findall(r"^(\|.*\|)\n\|[ -|]*\|$", document.read_text(encoding="utf-8"), re.MULTILINE):
            cells = [cell.strip() for cell in head.strip("|").split("|")]
            if "accepted length" in cells:
                assert cells[cells.index("accepted length") + 1] == "tokens per step", document
