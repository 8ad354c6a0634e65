"""Where nobody is blamed: which invariant was skipped that would have told who is wrong, and what to record or run."""

from __future__ import annotations

from specscope.schemas.phases import Phase
from specscope.schemas.verdict import TIES, Root
from specscope.tracer.compare.commands import COMPUTED, runs_again
from specscope.tracer.oracle.invariants.needs import NOT_RECORDED
from specscope.tracer.oracle.invariants.registry import phase_of
from specscope.tracer.oracle.report import OracleReport

MOST_NAMED = 3  # skipped invariants
#: Fields that the default trace level leaves out.
_OF_SCORES = ("verify.logsumexp", "verify.top_tokens", "verify.top_logits")
#: What of the teacher's cache has to be recorded, by the invariant that judges it.
_OF_CACHES = {
    "commit.prefix-kept": "commit.kv_digests_before, commit.kv_digests_after",
    "commit.content-moved": "commit.source_checksums, commit.written_checksums",
    "commit.prefix-unchanged": "commit.prefix_before, commit.prefix_after",
}


def with_deciding(root: Root, report_a: OracleReport, report_b: OracleReport) -> Root:
    """``root`` with what would have decided it, where it is not a tie and neither side is blamed."""
    if root.wrong != "neither" or root.difference.kind in TIES:
        return root
    can_run = runs_again(report_a.manifest) and runs_again(report_b.manifest)
    what_next = [_to_run(root)] if can_run else _to_record(root, report_a, report_b)
    skipped = _skipped(root.difference.phase, report_a, report_b)
    # Without what the caches hold, a forward's inputs are not known to be equal: nothing says more.
    lines = [*skipped, *what_next] if can_run else [*what_next, *skipped]
    return root.model_copy(update={"deciding": lines})


def _skipped(phase: Phase, report_a: OracleReport, report_b: OracleReport) -> list[str]:
    """The invariants of ``phase`` that were never judged on a side, with what to record."""
    skipped: dict[tuple[str, str], list[str]] = {}
    for side, report in (("baseline", report_a), ("candidate", report_b)):
        for name, tally in report.invariants.items():
            if tally.skipped and not tally.passed and phase_of(name) == phase and not name.startswith("run."):
                skipped.setdefault((name, tally.why_skipped or "not said"), []).append(side)
    lines = [
        f"{name} would tell, and was skipped in the {' and the '.join(sides)} ({why}){_remedy(why)}"
        for (name, why), sides in skipped.items()
    ]
    more = len(lines) - MOST_NAMED
    return lines[:MOST_NAMED] + ([f"and {more} more skipped invariants of phase {phase}"] if more > 0 else [])


def _remedy(why: str) -> str:
    field = why.removeprefix(NOT_RECORDED)
    if field == why:
        return ""
    return ": record it with --trace-level scores" if field in _OF_SCORES else f": have the engine record {field}"


def _to_run(root: Root) -> str:
    """What asks for more than the two records hold."""
    difference = root.difference
    if difference.phase in COMPUTED and difference.kind == "real":
        return (
            "no record can tell two forwards apart: specscope bisect names layer and operation, "
            "and diff --noise GOOD_RUN measures what is noise"
        )
    if difference.phase in COMPUTED:
        return "specscope bisect runs this step in both configurations"
    return "specscope replay in eager mode gives a third opinion from equal state"


def _to_record(root: Root, report_a: OracleReport, report_b: OracleReport) -> list[str]:
    """The same where a trace cannot be run again: what of the caches is not recorded in both, which forwards read."""
    if root.difference.phase not in COMPUTED:
        return []
    absent = [
        fields
        for name, fields in _OF_CACHES.items()
        if not all(report.invariants[name].passed or report.invariants[name].failed for report in (report_a, report_b))
    ]
    lines = [f"a stale or overwritten cache would show: have the engine record {', '.join(absent)}"] if absent else []
    if root.difference.kind == "real":
        lines.append("no record can tell two forwards apart; diff --noise GOOD_RUN measures what is noise")
    return lines
