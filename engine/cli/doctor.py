"""``specscope doctor``: what this installation would run, and whether it works; to be pasted in an issue."""

from __future__ import annotations

import os
import platform
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from specscope.engine.cli.computing import ATTENTION_NAME, DEVICE
from specscope.engine.cli.trace_folder import FolderReport, probe_folder
from specscope.tracer.cli.console import echo_document, echo_words, working
from specscope.tracer.errors import EXIT_DIFFERENT, EXIT_EQUAL, UsageError
from specscope.tracer.naming.text import counted, printable

if TYPE_CHECKING:
    from specscope.engine.backends.report import AttentionFacts, CheckFacts

DOCTOR_SCHEMA = "specscope.doctor/1.0"
WIDTH = 80
SHOWN_CASES = 3  # of those that failed in one dtype
PACKAGES = ("torch", "transformers", "safetensors", "torch_npu", "streamlit")


@click.command(short_help="What would run here, and does it work?")
@click.option("--device", type=DEVICE, metavar="NAME", default="auto", show_default=True, help="The device to examine.")
@click.option(
    "--attention", type=ATTENTION_NAME, metavar="NAME", default="fused", show_default=True, help="As for run."
)
@click.option(
    "--trace-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="Write traces here to examine it.  [default: the current folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def doctor(device: str, attention: str, trace_folder: Path, as_json: bool) -> None:
    """Print versions, devices, which attention would run and why, and what the trace folder does to traces.

    The attention is compared with the eager one in every dtype that it takes. Traces are written to the folder for a
    moment, one of them by a process that is killed, and removed again.

    Exits 0 when everything that was examined works, 1 where something does not, 2 for a usage error.
    """
    with working("examining this installation"):
        facts = examine_installation(device, attention, trace_folder)
    if as_json:
        echo_document(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        for line in text_lines(facts):
            echo_words(printable(line))
    sys.exit(facts["exit_code"])


def examine_installation(device: str, attention: str, folder: Path) -> dict[str, Any]:
    """Everything that is printed, as JSON."""
    facts: dict[str, Any] = {
        "schema": DOCTOR_SCHEMA,
        "versions": _versions(),
        "platform": {"system": platform.platform(), "machine": platform.machine(), "num_cpus": os.cpu_count()},
        "asked": {"device": device, "attention": attention},
        "devices": [],
        "attention": None,
        "graph": None,
        "products": None,
        "trace_folder": {"path": str(folder.resolve())},
        "problems": [],
    }
    if find_spec("torch") is None:
        asked = [f"--{name} {value}" for name, value in facts["asked"].items() if value not in ("auto", "fused")]
        facts["problems"] += [f"torch is not installed, so {' and '.join(asked)} cannot be examined"] * bool(asked)
    else:
        _examine_attention(facts)
    try:
        _add_folder(facts, probe_folder(folder))
    except UsageError as error:
        facts["problems"].append(str(error))
    facts["exit_code"] = EXIT_DIFFERENT if facts["problems"] else EXIT_EQUAL
    return facts


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"specscope": version("specscope"), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package) if find_spec(package) is not None else None
        except PackageNotFoundError:
            versions[package] = "of unknown version"
    return versions


def _examine_attention(facts: dict[str, Any]) -> None:
    try:
        from specscope.engine.backends.report import examine, list_devices
    except (ImportError, OSError, RuntimeError) as error:  # a library of torch's, or an extension that it loads
        facts["problems"].append(f"torch cannot be imported: {type(error).__name__}: {error}")
        return
    try:
        examined = examine(facts["asked"]["device"], facts["asked"]["attention"])
    except UsageError as error:
        facts["problems"].append(str(error))
    else:
        facts["attention"] = _attention_json(examined)
        facts["graph"] = None if examined.graph is None else examined.graph._asdict()
        share = examined.packed_share
        facts["products"] = None if share is None else {"packed_share": round(share, 3)}
        if examined.graph is not None and examined.graph.problem is not None:
            facts["problems"].append(f"a forward cannot be captured in a graph: {examined.graph.problem}")
        facts["problems"] += [
            f"the attention differs from the eager one in {check['dtype']}, so eager would run in its place"
            for check in facts["attention"]["checks"]
            if check["outcome"] == "failed"
        ]
    # The extension of an asked-for device is imported by now, so that its devices are seen.
    facts["devices"] = [device._asdict() for device in list_devices()]


def _attention_json(examined: AttentionFacts) -> dict[str, Any]:
    kernel = examined.kernel
    return {
        "device": examined.device,
        "kernel": None if kernel is None else kernel.name,
        "origin": "the engine's own reference: explicit softmax in float32" if kernel is None else kernel.origin,
        "dtypes": None if kernel is None or kernel.dtypes is None else sorted(kernel.dtypes),
        "checks": [_check_json(check) for check in examined.checks],
    }


def _check_json(facts: CheckFacts) -> dict[str, Any]:
    check = facts.check
    finite = [outcome.error for outcome in check.outcomes if outcome.reason is None]
    return {
        "dtype": facts.dtype,
        "outcome": "failed" if check.failures else "passed",
        "limit": check.limit,
        "worst": max(finite, default=None),
        "seconds": round(facts.seconds, 3),
        "cases": [
            {"case": outcome.case, "error": None if outcome.reason else outcome.error, "reason": outcome.reason}
            for outcome in check.outcomes
        ],
        "failed_cases": [outcome.case for outcome in check.failures],
    }


def _add_folder(facts: dict[str, Any], report: FolderReport) -> None:
    survival = report.survival
    facts["trace_folder"] |= {
        "mb_per_s": round(report.speed.mb_per_s, 1),
        "records_per_s": round(report.speed.records_per_s),
        "survives_kill": survival.survives,
        "records_before_kill": survival.num_seen,
        "records_after_kill": survival.num_kept,
    }
    if survival.problem is not None:
        facts["problems"].append(f"a trace in the folder does not survive its writer: {survival.problem}")


def text_lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people, no line longer than 80 columns."""
    versions, where = facts["versions"], facts["platform"]
    packages = [f"{name} {versions[name] or 'not installed'}" for name in PACKAGES]
    entries = [
        ("specscope", f"{versions['specscope']}, Python {versions['python']}"),
        ("system", f"{where['system']}, {counted(where['num_cpus'], 'CPU')}"),
        ("packages", ", ".join(packages)),
        *[("device", _device_text(device)) for device in facts["devices"]],
    ]
    if versions["torch"] is None:
        entries.append(("attention", "nothing can be decoded without torch: pip install 'specscope[engine]'"))
    elif facts["attention"] is not None:
        entries += [*_attention_lines(facts), _graph_line(facts["graph"]), _products_line(facts["products"])]
    entries += _folder_lines(facts["trace_folder"])
    entries += [("problem", problem) for problem in facts["problems"]] or [("problems", "none")]
    return [line for name, text in entries for line in _wrapped(name, text)]


def _attention_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    attention, asked = facts["attention"], facts["asked"]
    lines = [("attention", f"{asked['attention']} on {attention['device']}: {attention['origin']}")]
    if attention["dtypes"] is not None:
        lines.append(("takes", ", ".join(attention["dtypes"]) + "; in another dtype the eager attention runs"))
    for check in attention["checks"]:
        cases = len(check["cases"])
        seconds = f"{check['seconds']:.2f} s"
        worst = "none" if check["worst"] is None else f"{check['worst']:.1e}"
        passed = cases - len(check["failed_cases"])
        text = f"equals eager in {passed} of {cases} cases; error {worst}, limit {check['limit']:g}; {seconds}"
        lines.append((check["dtype"], text))
        failed = [case for case in check["cases"] if case["case"] in check["failed_cases"]]
        lines += [("", f"FAILED {_case_text(case)}") for case in failed[:SHOWN_CASES]]
        if len(failed) > SHOWN_CASES:
            lines.append(("", f"and {len(failed) - SHOWN_CASES} more; --json lists them"))
    return lines


def _graph_line(graph: dict[str, Any] | None) -> tuple[str, str]:
    if graph is None:
        return ("graphs", "none on this device")
    when = "verify forwards are captured unless --no-graph" if graph["captures"] else "only with --graph"
    works = "a captured call reads new inputs" if graph["problem"] is None else f"FAILED {graph['problem']}"
    return ("graphs", f"{graph['kind']}, {when}; {works}")


def _products_line(products: dict[str, Any] | None) -> tuple[str, str]:
    if products is None:
        return ("products", "torch's own: weights are packed in float32 on a CPU only")
    share = f"packed ones take {products['packed_share']:.2f} times as long as torch's own"
    return ("products", f"{share}; which run is measured for each model, and --products says otherwise")


def _case_text(case: dict[str, Any]) -> str:
    return f"{case['case']}: {case['reason'] or 'error {:.2g}'.format(case['error'])}"


def _folder_lines(folder: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("traces", folder["path"])]
    if "mb_per_s" in folder:
        lines.append(("write", f"{folder['mb_per_s']} MB/s, {folder['records_per_s']} records/s"))
        kept = f"{folder['records_after_kill']} whole records, {folder['records_before_kill']} had been seen"
        lines.append(("kill -9", f"{'survives' if folder['survives_kill'] else 'DOES NOT SURVIVE'}: {kept}"))
    return lines


def _device_text(device: dict[str, Any]) -> str:
    total = device["memory_total"]
    memory = f", {total / 2**30:.1f} GiB" if total is not None else ""
    return f"{device['name']}: {device['description']}{memory}"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11, break_on_hyphens=False)


if __name__ == "__main__":  # python -m specscope.engine.cli.doctor
    doctor()
