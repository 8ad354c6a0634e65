"""The README does what it says: its commands run as written, its sample output is real, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import specscope
from support.traces import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("*/README.md"),
    *ROOT.glob("docs/*.md"),
    ROOT / "engine/demo_models/README.md",
]


def shell_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.slow
def test_its_specscope_commands_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    shutil.copytree(ROOT / "engine" / "demo_models" / "teacher", tmp_path / "engine" / "demo_models" / "teacher")
    shutil.copytree(ROOT / "sample_traces", tmp_path / "sample_traces")
    ran = []
    for command in shell_commands():
        program, *arguments = shlex.split(command)
        if program != "specscope" or arguments[0] == "bench":  # minutes; test_commands tries it on one prompt
            continue
        done = specscope(*arguments, cwd=tmp_path)
        broken = "F16" in command or arguments[0] == "repro"  # the failure is there
        parted = "scaled.jsonl" in command and arguments[0] in ("diff", "bisect")
        assert done.code == int(broken or parted), (command, done)
        ran.append(arguments[0])
    assert {"run", "check", "diff", "show", "report", "bisect", "replay", "repro"} <= set(ran)


def test_its_make_targets_exist() -> None:
    targets = [shlex.split(c)[1] for c in shell_commands() if c.startswith("make ")]
    assert {"demo", "test", "view"} <= set(targets)
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


def test_its_command_table_is_complete() -> None:
    listed = set(re.findall(r"^\| `specscope ([\w-]+)", README, re.MULTILINE))
    offered = set(re.findall(r"^  (\w[\w-]*)  ", specscope("--help").out, re.MULTILINE))
    assert listed == offered


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_every_number_names_its_command() -> None:
    section = README.split("## Measured")[1].split("\n## ")[0]
    for paragraph in section.split("\n### ")[1:]:
        named = any(f"`{program} " in paragraph for program in ("specscope", "pytest", "python"))
        assert named, paragraph.splitlines()[0]
