"""A kernel of the user's, by one function and one name: recorded, found again, judged; and the document about it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from support.commands import Outcome, specscope
from support.traces import ROOT

from specscope.engine import decode
from specscope.engine.backends import kernels
from specscope.engine.backends.attention import ATTENTION, dispatch_log, eager_attention, registered_name
from specscope.engine.backends.choice import kernel_of
from specscope.engine.backends.cpu import Cpu
from specscope.engine.lab.rerun.recorded_run import Overrides, load_recorded
from specscope.schemas import Manifest
from specscope.tracer import TraceReader, check_trace, diff_traces
from specscope.tracer.errors import EngineError, UsageError

DOCUMENT = ROOT / "docs" / "your-kernel.md"
EXAMPLE = ROOT / "docs" / "examples" / "my_kernel.py"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with the example in it, and nothing left of it afterwards."""
    shutil.copy(EXAMPLE, tmp_path / "my_kernel.py")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    modules = sys.modules
    modules.pop("my_kernel", None)
    sys.path[:] = path


def run(folder: Path, name: str, *arguments: str, attention: str = "my_kernel:attention") -> Outcome:
    return specscope(
        *("run", "--prompt", "def parse(line):", "--max-new-tokens", "40", "--trace", name, "--overwrite"),
        *("--attention", attention),
        *arguments,
        cwd=folder,
    )


def manifest(path: Path) -> Manifest:
    with TraceReader(path) as reader:
        return reader.manifest


@pytest.mark.slow
def test_the_documents_commands_find_the_bug(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE.parent, tmp_path / "docs" / "examples")
    text = DOCUMENT.read_text(encoding="utf-8")
    outcomes: dict[str, list[Outcome]] = {}
    place = tmp_path
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for command in block.splitlines():
            program, *arguments = shlex.split(command, comments=True)
            if program == "cd":
                place = place / arguments[0]
                continue
            outcomes.setdefault(arguments[0], []).append(specscope(*arguments, cwd=place))
    refused, eager, unchecked = outcomes["run"]
    assert [o.code for o in (refused, eager, unchecked)] == [2, 0, 0]
    assert not (place / "checked.jsonl").exists()
    (line,) = refused.err.splitlines()
    quoted = re.search(r"```text\n(error: .*) \.\.\.\n```", text)
    assert quoted is not None
    assert line.startswith(quoted[1])
    assert (eager.err, unchecked.err) == ("", "")
    assert outcomes["check"][0].code == 0
    broken, repaired = outcomes["diff"]
    assert (broken.code, repaired.code) == (1, 0)
    assert "neither side violates an invariant" in broken.out
    assert outcomes["bisect"][0].code == 1
    assert outcomes["bisect"][0].out.startswith("different: layer 0 attention\n")
    assert "different: layer 0 attention" in text
    assert outcomes["replay"][0].code == 0
    assert manifest(place / "repaired.jsonl").attention == "my_kernel:attention"


def test_a_kernel_is_recorded_with_where_it_came_from_and_is_not_violated(folder: Path) -> None:
    assert run(folder, "t.jsonl").code == 0
    recorded = manifest(folder / "t.jsonl")
    assert (recorded.mode, recorded.attention) == ("fused", "my_kernel:attention")
    assert recorded.kernel is not None
    assert recorded.kernel.file == "my_kernel.py"
    assert recorded.kernel.self_check is not None
    assert recorded.kernel.self_check.outcome == "passed"
    assert check_trace(folder / "t.jsonl").num_violations == 0
    with TraceReader(folder / "t.jsonl") as reader:
        dispatch = reader.step(reader.turns[0], 0).verify.dispatch  # type: ignore[union-attr]
    assert dispatch is not None
    assert set(dispatch) == {"my_kernel:attention"}


def test_a_trace_whose_kernel_did_not_run_is_violated(folder: Path) -> None:
    run(folder, "t.jsonl", "--max-new-tokens", "6")
    lines = (folder / "t.jsonl").read_text(encoding="utf-8")
    head, rest = lines.split("\n", 1)
    (folder / "other.jsonl").write_text(head + "\n" + rest.replace('"my_kernel:attention"', '"sdpa-flash"'), "utf-8")
    report = check_trace(folder / "other.jsonl")
    assert {name for name, result in report.invariants.items() if result.failed} == {
        "verify.dispatch",
        "run.digest",  # the file was changed, too
    }


def test_a_kernel_that_was_named_and_fails_its_check_is_refused_and_never_replaced(folder: Path) -> None:
    name = "my_kernel:forgets_the_mask"
    with pytest.raises(UsageError, match=r"in the case 'a tree after 24 keys' .*: it was not run"):
        decode("a = 1\n", attention=name, max_new_tokens=8, trace="refused.jsonl")
    assert not (folder / "refused.jsonl").exists()


def test_the_devices_own_attention_that_fails_its_check_is_replaced_and_the_trace_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(kernels.find_kernel("my_kernel:forgets_the_mask"), name="of-the-device")
    with monkeypatch.context() as patch:
        patch.setattr(Cpu, "kernel", wrong)
        with pytest.warns(UserWarning, match=r"attention fused differs from .* the eager attention runs instead"):
            decode("a = 1\n", max_new_tokens=8, trace="fell.jsonl")
    decode("a = 1\n", mode="eager", max_new_tokens=8, trace="eager.jsonl")
    recorded = manifest(folder / "fell.jsonl")
    assert recorded.kernel is not None
    assert recorded.kernel.fell_back
    assert check_trace(folder / "fell.jsonl").num_violations == 0
    verdict = diff_traces("eager.jsonl", "fell.jsonl")
    assert verdict.exit_code == 0
    assert any("ran the eager one" in remark for remark in verdict.remarks)


def test_without_the_check_nothing_is_compared_and_that_is_recorded(folder: Path) -> None:
    decode("a = 1\n", attention="my_kernel:forgets_the_mask", self_check=False, max_new_tokens=8, trace="t.jsonl")
    kernel = manifest(folder / "t.jsonl").kernel
    assert kernel is not None
    assert kernel.self_check is not None
    assert kernel.self_check.outcome == "skipped"
    assert check_trace(folder / "t.jsonl").num_violations == 0


def test_replay_finds_the_kernel_again_and_says_what_is_missing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run(folder, "t.jsonl", "--no-self-check", attention="my_kernel:forgets_the_mask")
    again = specscope("replay", "t.jsonl", "--out", "again.jsonl", cwd=folder)
    assert again.code == 0
    assert "every step as recorded" in again.out
    assert specscope("diff", "t.jsonl", "again.jsonl", cwd=folder).code == 0
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    lost = specscope("replay", folder / "t.jsonl", "--out", "lost.jsonl", cwd=elsewhere)
    assert lost.code == 2
    assert "my_kernel.py), which is not to be found from here" in lost.err


def test_code_that_changed_since_is_run_only_when_it_is_named(folder: Path) -> None:
    decode("a = 1\n", attention="my_kernel:attention", max_new_tokens=4, trace="t.jsonl")
    source = folder / "my_kernel.py"
    source.write_text(source.read_text(encoding="utf-8") + "\nraise SystemExit('ran')\n", encoding="utf-8")
    with pytest.raises(
        UsageError, match="has changed since the run was recorded: give --attention my_kernel:attention"
    ):
        load_recorded(manifest(folder / "t.jsonl"), Overrides())
    shutil.copy(EXAMPLE, source)
    source.write_text(source.read_text(encoding="utf-8") + "\n# as good as new\n", encoding="utf-8")
    loaded = load_recorded(manifest(folder / "t.jsonl"), Overrides(attention="my_kernel:attention"))
    assert loaded.choice.attention == "my_kernel:attention"


def test_a_trace_cannot_have_code_run_that_it_does_not_prove_to_know(folder: Path) -> None:
    """The name alone, as a stranger's trace may state it, imports nothing."""
    decode("a = 1\n", attention="my_kernel:attention", max_new_tokens=4, trace="t.jsonl")
    (folder / "trap.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    recorded = manifest(folder / "t.jsonl")
    for kernel in (None, recorded.kernel):
        with pytest.raises(UsageError, match=r"name the kernel with --attention|has changed since"):
            load_recorded(recorded.model_copy(update={"attention": "trap:run", "kernel": kernel}), Overrides())


@pytest.mark.slow
def test_bench_runs_the_kernel(folder: Path) -> None:
    source = folder / "my_kernel.py"
    counting = "\nimport atexit\natexit.register(lambda: open('called', 'w').write(str(calls)))\ncalls = 0\n"
    counted = "def counted(*a, **k):\n    global calls\n    calls += 1\n    return attention(*a, **k)\n"
    source.write_text(source.read_text(encoding="utf-8") + counting + counted, encoding="utf-8")
    (folder / "prompts.jsonl").write_text('{"prompt": "a = 1"}\n', encoding="utf-8")
    arguments = ("--prompts", "prompts.jsonl", "--max-new-tokens", "4", "--rounds", "1")
    done = specscope("bench", *arguments, "--attention", "my_kernel:counted", cwd=folder)
    assert done.code == 0, done
    assert "fused" in done.out
    assert int((folder / "called").read_text(encoding="utf-8")) > 100  # of which the self-check makes 14


def test_repro_runs_a_failed_step_with_the_kernel_again(folder: Path) -> None:
    failed = run(folder, "t.jsonl", "--inject", "F16", "--strict")
    assert failed.code == 1
    again = specscope("repro", "t.jsonl", cwd=folder)
    assert again.code == 1
    assert again.out.startswith("reproduced: ViolationError at check")
    (folder / "my_kernel.py").unlink()
    lost = specscope("repro", "t.jsonl", cwd=folder)
    assert lost.code == 2
    assert "not to be found from here" in lost.err


def test_a_function_itself_may_be_given(folder: Path) -> None:
    calls = []

    def mine(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        calls.append(query.shape)
        return eager_attention(query, key, value, mask, scale)

    (turn,) = decode("a = 1\n", attention=mine, max_new_tokens=8, trace="t.jsonl")
    (eager,) = decode("a = 1\n", mode="eager", max_new_tokens=8)
    assert calls
    assert turn.result.output_ids == eager.result.output_ids
    assert check_trace(folder / "t.jsonl").num_violations == 0  # its calls of the eager attention are its own affair
    name = manifest(folder / "t.jsonl").attention
    assert name.endswith("mine")
    kernels._REGISTERED.pop(name)
    with pytest.raises(UsageError, match="a function of the running program that recorded it"):
        load_recorded(manifest(folder / "t.jsonl"), Overrides())


def test_an_entry_point_names_a_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "my_kernel:attention", kernels.GROUP)
    monkeypatch.setattr(kernels, "_all_entries", lambda: {"mine": entry})
    monkeypatch.syspath_prepend(str(folder))
    (turn,) = decode("a = 1\n", attention="mine", max_new_tokens=4, trace="t.jsonl")
    recorded = manifest(folder / "t.jsonl")
    assert turn.result.output_ids
    assert recorded.attention == "mine"
    assert recorded.kernel is not None
    assert recorded.kernel.origin == "entry point my_kernel:attention"
    assert load_recorded(recorded, Overrides()).choice.attention == "mine"
    with pytest.raises(UsageError, match="did you mean mine"):
        kernels.check_kernel_name("mien")


def test_a_mask_comes_in_the_form_that_the_kernel_takes() -> None:
    seen = []

    def visible(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        seen.append(mask)
        return eager_attention(query, key, value, torch.where(mask, 0.0, -torch.inf), scale)

    visible.mask_form = "visible"  # type: ignore[attr-defined]
    kernel_of(kernels.register_kernel(visible, "takes-booleans"), CPU)
    q, mask = torch.randn(1, 2, 3, 4), torch.zeros(1, 1, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
    got = ATTENTION["takes-booleans"](q, q, q, mask, 0.5)
    assert torch.equal(got, eager_attention(q, q, q, mask, 0.5))
    assert torch.equal(seen[0][0, 0], torch.ones(3, 3).tril().bool())


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda q, k, v, m, scale: (q, None), "returned tuple, wanted [1, 2, 3, 4] float32"),
        (lambda q, k, v, m, scale: q.transpose(1, 2), "returned [1, 3, 2, 4] float32, wanted [1, 2, 3, 4] float32"),
        (lambda q, k, v, m, scale: q.double(), "returned [1, 2, 3, 4] float64, wanted"),
    ],
)
def test_what_a_kernel_may_not_return_is_named(function: object, says: str) -> None:
    kernel_of(kernels.register_kernel(function, "odd"), CPU)  # type: ignore[arg-type]
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(EngineError, match=re.escape(says)):
        ATTENTION["odd"](q, q, q, None, 0.5)


def test_a_path_replaced_by_hand_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface

    monkeypatch.setitem(ATTENTION, "fused", lambda q, k, v, m, scale: q)
    name = registered_name("fused")
    q = torch.randn(1, 2, 3, 4)
    with dispatch_log() as log:
        AttentionInterface()[name](torch.nn.Module(), q, q, q, None, scaling=0.5)
    assert log == {"fused": 1}
    monkeypatch.undo()
    registered_name("fused")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine", "or MODULE:FUNCTION, a kernel of your own"),
        ("fusde", "did you mean fused?"),
        ("my_kernel:nothing", "my_kernel has no nothing"),
        ("my_kernel:MASKED_KEYS", "which is int, wanted a function"),
        ("nowhere_at_all:kernel", "there is no module nowhere_at_all in"),
        ("broken:kernel", "cannot import broken for attention 'broken:kernel': ZeroDivisionError"),
        ("lacking:kernel", "No module named 'no_such_dependency'"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_is_missing(folder: Path, name: str, says: str) -> None:
    (folder / "broken.py").write_text("1 / 0\n", encoding="utf-8")
    (folder / "lacking.py").write_text("import no_such_dependency\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        kernels.find_kernel(name)
    assert says in str(caught.value)


def test_the_engines_own_names_are_taken() -> None:
    with pytest.raises(UsageError, match="the engine's own"):
        kernels.register_kernel(lambda: None, "eager")
