"""The pytest plugin, in pytest runs inside this one, with every warning an error."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from support.traces import EAGER, FAULTY, FUSED, ROOT, load, store

pytest_plugins = ("pytester",)

IMPORTS = "from pathlib import Path\nfrom specscope.tracer.pytest_plugin import assert_traces_match\n"


def run(pytester: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    """Runs ``body`` as a test file."""
    pytester.makepyfile(test_it=IMPORTS + body)
    return pytester.runpytest_inprocess("-W", "error", "-p", "no:cacheprovider", *arguments)


@pytest.fixture(autouse=True, scope="module")
def _loaded_once() -> None:
    """An inner run forgets what it imported; what is here before it is not imported again in each."""
    for name in ("specscope.tracer.cli.check", "specscope.tracer.cli.diff"):
        importlib.import_module(name)


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def test_traces_that_match_pass_and_others_fail_with_the_card(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        f"def test_same():\n    assert_traces_match({str(EAGER)!r}, Path({str(FUSED)!r}))\n"
        f"def test_other():\n    assert_traces_match(Path({str(EAGER)!r}), Path({str(FAULTY)!r}))\n",
        "--color=yes",
    )
    done.assert_outcomes(passed=1, failed=1)
    text = done.stdout.str()
    for words in ("the traces do not match", "DIFFERENT", "tensors: positions", "the candidate violates", "impact"):
        assert words in text
    assert "def assert_traces_match" not in text, "the traceback ends in the test"


def test_runs_that_are_not_comparable_or_not_covered_do_not_match(pytester: pytest.Pytester) -> None:
    lines = load(FUSED)
    store(lines[:-1], pytester.path / "cut.jsonl")
    lines[0]["run_id"] = "again"
    store(lines, pytester.path / "again.jsonl")
    lines[0] |= {"run_id": "seed", "seed": 5}
    store(lines, pytester.path / "seed.jsonl")
    fused = f"Path({str(FUSED)!r})"
    done = run(
        pytester,
        f"def test_seed():\n    assert_traces_match({fused}, Path('seed.jsonl'))\n"
        f"def test_cut():\n    assert_traces_match({fused}, Path('cut.jsonl'))\n"
        "def test_allowed():\n    again = Path('again.jsonl')\n"
        f"    assert_traces_match({fused}, Path('seed.jsonl'), allow=['seed'], noise=again)\n"
        f"def test_none():\n    assert_traces_match({fused}, Path('none.jsonl'))\n"
        "def test_noise():\n"
        "    import pytest\n"
        "    from specscope.tracer.errors import UsageError\n"
        "    with pytest.raises(UsageError, match='seed: 0 -> 5'):\n"
        f"        assert_traces_match({fused}, {fused}, noise=Path('seed.jsonl'))\n",
    )
    done.assert_outcomes(passed=2, failed=3)
    for words in ("INCOMPARABLE", "seed: 0 -> 5", "NOT JUDGED", "it has no run_end", "none.jsonl: no such file"):
        assert words in done.stdout.str()


def test_a_baseline_is_written_on_request_and_then_held_against(pytester: pytest.Pytester) -> None:
    body = (
        "def test_it(specscope_baseline):\n"
        f"    assert_traces_match(specscope_baseline('greedy'), Path({str(FUSED)!r}))\n"
    )
    baseline = pytester.path / "traces" / "greedy.jsonl"
    done = run(pytester, body)
    done.assert_outcomes(failed=1)
    assert "no baseline at" in done.stdout.str()
    assert not baseline.exists()
    run(pytester, body, "--specscope-update").assert_outcomes(passed=1)
    assert baseline.read_bytes() == FUSED.read_bytes()
    run(pytester, body).assert_outcomes(passed=1)
    other = body.replace(str(FUSED), str(FAULTY))
    run(pytester, other).assert_outcomes(failed=1)
    assert baseline.read_bytes() == FUSED.read_bytes()


def test_an_unsound_run_is_no_baseline_and_names_are_names(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        f"def test_faulty(specscope_baseline):\n"
        f"    assert_traces_match(specscope_baseline('x'), Path({str(FAULTY)!r}))\n"
        "def test_name(specscope_baseline):\n    specscope_baseline('../x')\n"
        f"def test_elsewhere(specscope_baseline):\n"
        f"    assert_traces_match(Path('y.jsonl'), Path({str(FUSED)!r}))\n",
        "--specscope-update",
    )
    done.assert_outcomes(failed=3)
    assert "tensors.position-is-length-plus-depth" in done.stdout.str()
    assert "got the baseline name '../x'" in done.stdout.str()
    assert not list(pytester.path.rglob("*.jsonl")), "only what specscope_baseline gave is written"


@pytest.mark.parametrize(("ci", "refused"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_an_update_is_refused_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, refused: bool
) -> None:
    monkeypatch.setenv("CI", ci)
    done = run(pytester, "def test_it(): pass\n", "--specscope-update")
    assert done.ret == (pytest.ExitCode.USAGE_ERROR if refused else pytest.ExitCode.OK)
    assert ("--specscope-update is refused" in done.stderr.str()) == refused


@pytest.mark.slow
def test_record_runs_the_command_and_fails_with_what_it_said(pytester: pytest.Pytester) -> None:
    done = run(
        pytester,
        "def test_works(specscope_record, tmp_path):\n"
        "    trace = specscope_record('--prompt', 'def f(', '--max-new-tokens', 4)\n"
        "    assert trace.parent == tmp_path\n"
        "    assert_traces_match(trace, trace, fail_on='near-tie')\n"
        "def test_fails(specscope_record):\n    specscope_record('--no-such-option')\n",
    )
    done.assert_outcomes(passed=1, failed=1)
    assert "specscope run --no-such-option exited 2:" in done.stdout.str()
    assert "no such option" in done.stdout.str().split("exited 2:")[1]


def test_the_option_has_a_group_of_its_own(pytester: pytest.Pytester) -> None:
    text = pytester.runpytest_inprocess("--help").stdout.str()
    assert "traces of speculative decoding (specscope):\n  --specscope-update" in text


def test_the_plugin_is_light() -> None:
    """It is loaded into every pytest run of everyone who has SpecScope installed."""
    script = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport specscope.tracer.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.anchor)
    assert set(done.stdout.split()) <= {"specscope", "specscope.tracer", "specscope.tracer.pytest_plugin"}


def test_it_is_registered_once() -> None:
    from importlib.metadata import entry_points

    assert [e.value for e in entry_points(group="pytest11", name="specscope")] == ["specscope.tracer.pytest_plugin"]
    assert Path(sys.modules["specscope.tracer.pytest_plugin"].__file__ or "") == ROOT / "tracer" / "pytest_plugin.py"
