"""Absent is not different: any optional field that one writer leaves out proves nothing, and hides nothing unsaid.

The fields are those of the schema, so that a new one is tried too.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from support.toy_run import Toy, toy_lines
from support.traces import EAGER, FUSED, Lines, load, store

from specscope.schemas import Manifest, Section, Step, TreePolicy, TurnEnd, TurnStart
from specscope.schemas.verdict import Verdict
from specscope.tracer.compare.coverage import not_compared
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.compare.manifests import same_policy

Names = tuple[str, ...]
RECORDS: tuple[tuple[str, type[Section]], ...] = (
    ("manifest", Manifest),
    ("turn_start", TurnStart),
    ("step", Step),
    ("turn_end", TurnEnd),
)
#: Sections without which no decision can be judged.
DECISIVE = ("tree", "accept", "stop")
#: Fields whose rows say what their absence means, where the writer promises the whole section: a writer that does not
#: record them lists the section's other fields.
MEANINGFUL: frozenset[Names] = frozenset(
    [
        *(("accept", "visited", *rest) for rest in ((), ("child",), ("trials",), ("trials", "coin"))),
        *(("accept", "bonus_draw"), ("stop", "reason"), ("commit", "fallback")),
    ]
)
#: Absent, they say 1, 0, and that the first root is the prompt's last token: leaving them out where that is not so is
#: no honest trace.
SAID_BY_ABSENCE: frozenset[Names] = frozenset(
    [("manifest", "batch_size"), ("turn_end", "num_fallbacks"), ("turn_start", "prefill", "pending_token")]
)


def sections(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def optional_fields(model: type[Section], above: Names) -> Iterator[Names]:
    """Every optional field below ``model``, by its name on disk."""
    for name, field in model.model_fields.items():
        here = (*above, field.alias or name)
        if not field.is_required() and name != "kind":
            yield here
        for section in sections(field.annotation):
            yield from optional_fields(section, here)


FIELDS = [path for kind, model in RECORDS for path in optional_fields(model, (kind,))]


def drop(value: Any, path: Names) -> int:
    """Takes a field out wherever it stands; how often it stood there."""
    if isinstance(value, list):
        return sum(drop(entry, path) for entry in value)
    if not isinstance(value, dict) or path[0] not in value:
        return 0
    if len(path) > 1:
        return drop(value[path[0]], path[1:])
    del value[path[0]]
    return 1


def without(lines: Lines, *paths: Names) -> Lines | None:
    """A copy of the trace by a writer that records all but those fields, and promises no more; None where one of them
    is not there."""
    lines = copy.deepcopy(lines)
    counts = [sum(drop(line, path[1:]) for line in lines if line["kind"] == path[0]) for path in paths]
    if 0 in counts:
        return None
    for section, *rest in (path[1:] for path in paths if path[0] == "step"):
        promised = lines[0]["capabilities"]
        if not rest:
            promised[:] = [name for name in promised if name.partition(".")[0] != section]
        elif section in promised and (section, *rest) in MEANINGFUL:
            promised.remove(section)
            step = next(line for line in lines if line["kind"] == "step" and section in line)
            promised += [f"{section}.{name}" for name in step[section] if name != rest[0]]
        lines[0]["capabilities"] = [name for name in promised if name != ".".join([section, *rest])]
    return lines


class Pair(NamedTuple):
    """Two honest runs that are equal."""

    a: Lines
    b: Lines


@cache
def pairs() -> dict[str, Pair]:
    """Real ones, and a toy's for the rules that draw; the toy's lines stand for two runs of it."""
    found = {"recorded": Pair(short(load(EAGER)), short(load(FUSED)))}
    for name, toy in (
        ("greedy", Toy(fallback_at=1, batch_size=2)),
        ("sampling", Toy(rule="sampling", draft="sampled")),
        ("typical", Toy(rule="typical")),
        ("lookup", Toy(kind="chain", choices=((0,), (0, 0)), levels=False)),
    ):
        found[name] = Pair(toy_lines(toy), toy_lines(toy))
    return found


def short(lines: Lines) -> Lines:
    """The trace's first turn alone."""
    turn = [line for line in lines if line.get("turn") in (None, 0) and line["kind"] != "run_end"]
    counts = {
        kind: sum(line["kind"] == kind for line in turn) for kind in ("manifest", "turn_start", "step", "turn_end")
    }
    return [*turn, {**lines[-1], "seq": len(turn), "counts": counts}]


def judge(tmp_path: Path, a: Lines, b: Lines) -> Verdict:
    return diff_traces(store(a, tmp_path / "a.jsonl"), store(b, tmp_path / "b.jsonl"))


def wrong(verdict: Verdict, *paths: Names) -> str | None:
    """What is wrong with the verdict on an honest pair of which one side does not record ``paths``."""
    decisive = any(path[0] == "step" and path[1] in DECISIVE and len(path) == 2 for path in paths)
    wanted = ("uncovered", 4) if decisive else ("equal", 0)
    if (verdict.verdict, verdict.exit_code, verdict.roots, verdict.violations) == (*wanted, [], []):
        return None
    roots = [(root.difference.field, root.difference.a, root.difference.b) for root in verdict.roots[:1]]
    return f"{paths}: {verdict.verdict}, {verdict.incomparable[:2]}, {roots}, {verdict.violations[:1]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", pairs())
def test_what_one_writer_leaves_out_is_no_difference(tmp_path: Path, name: str) -> None:
    pair, problems, tried = pairs()[name], [], 0
    for path in (path for path in FIELDS if path not in SAID_BY_ABSENCE):
        for side in (0, 1):
            lines = without(pair[side], path)
            if lines is not None:
                tried += 1
                problems.append(wrong(judge(tmp_path, *((lines, pair.b) if side == 0 else (pair.a, lines))), path))
    assert not list(filter(None, problems))
    assert tried > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", pairs())
def test_nor_are_two_fields_that_it_leaves_out(tmp_path: Path, name: str) -> None:
    pair = pairs()[name]
    there = [path for path in FIELDS if path not in SAID_BY_ABSENCE and without(pair.b, path) is not None]
    twos = list(itertools.combinations(there, 2))
    problems = []
    for paths in random.Random(name).sample(twos, 60):
        lines = without(pair.b, *paths)
        if lines is not None:  # the second may lie within the first
            problems.append(wrong(judge(tmp_path, pair.a, lines), *paths))
    assert not list(filter(None, problems))


@pytest.mark.parametrize("other", [EAGER, FUSED], ids=["compared", "the same byte by byte"])
def test_what_neither_writer_records_of_the_forward_is_named(tmp_path: Path, other: Path) -> None:
    names = ("top_tokens", "top_logits", "logsumexp", "entropy")
    pair = [short(load(path)) for path in (FUSED, other)]
    assert not any("neither side" in line for line in judge(tmp_path, *pair).unjudged)
    left = [without(lines, *(("step", "verify", name) for name in names)) for lines in pair]
    assert left[0] is not None
    assert left[1] is not None
    num_steps = sum(line["kind"] == "step" for line in left[0])
    words = f"neither side records {', '.join(f'verify.{name}' for name in names)} in {num_steps} places"
    assert judge(tmp_path, left[0], left[1]).unjudged == [words]
    bare = [without(lines, ("turn_start", "prefill", "top_logits")) or [] for lines in pair]
    assert judge(tmp_path, *bare).unjudged == ["neither side records prefill.top_logits in 1 place"]
    (step, *_) = (line for line in left[0] if line["kind"] == "step")
    words = f"Not compared: {', '.join(f'verify.{name}' for name in names)}, which neither side records."
    assert not_compared(Step.model_validate(step), Step.model_validate(step)) == [words]


# What is broken is found, or said not to have been judged.


def shifted_drafter(lines: Lines) -> None:
    step = [line for line in lines if line["kind"] == "step"][1]
    step["commit"]["drafter_after"] += 4


def moved_position(lines: Lines) -> None:
    step = [line for line in lines if line["kind"] == "step"][1]
    step["tensors"]["positions"][1] += 1


def other_bonus(lines: Lines) -> None:
    step = [line for line in lines if line["kind"] == "step"][1]
    step["accept"]["bonus_token"] = step["stop"]["emitted"][-1] = step["accept"]["bonus_token"] ^ 1


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [shifted_drafter, moved_position, other_bonus])
def test_a_break_is_found_or_what_was_not_judged_is_said(tmp_path: Path, breaks: Callable[[Lines], None]) -> None:
    pair = pairs()["recorded"]
    broken = copy.deepcopy(pair.b)
    breaks(broken)
    missed = []
    for path in FIELDS:
        for left_out, other, first in ((pair.a, broken, True), (broken, pair.a, False)):
            lines = without(left_out, path)
            if lines is None:
                continue
            verdict = judge(tmp_path, *((lines, other) if first else (other, lines)))
            if verdict.exit_code not in (1, 4) and not any(path[-1] in line for line in verdict.unjudged):
                missed.append((path, verdict.verdict, verdict.unjudged))
    assert not missed


# Names are for people; policies are what they allow.


def changed(lines: Lines, **sections: dict[str, Any]) -> Lines:
    lines = copy.deepcopy(lines)
    for name, values in sections.items():
        lines[0][name] |= values
    return lines


def test_names_prove_nothing_where_both_digests_are_equal(tmp_path: Path) -> None:
    lines = pairs()["recorded"].b
    renamed = changed(lines, teacher={"name": "mine"}, drafter={"name": "yours"})
    verdict = judge(tmp_path, lines, renamed)
    assert (verdict.exit_code, verdict.incomparable) == (0, [])
    other = changed(renamed, drafter={"weights_digest": "0" * 32})
    assert len(judge(tmp_path, lines, other).incomparable) == 2, "another drafter, and its name"
    del other[0]["drafter"]["weights_digest"]
    assert len(judge(tmp_path, lines, other).incomparable) == 1, "the name is all that tells"
    other = changed(renamed, teacher={"weights_digest": "0" * 32})
    assert len(judge(tmp_path, lines, other).incomparable) == 1, "another teacher; its name is never judged"
    del other[0]["teacher"]["weights_digest"]
    unknown = judge(tmp_path, lines, other)
    assert (unknown.exit_code, unknown.incomparable) == (0, [])
    assert any("the teachers' names differ" in line for line in unknown.remarks)


CHOICES = [[0], [0, 0]]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ({"name": "chain-2", "choices": CHOICES}, {}, True),
        ({"choices": CHOICES}, {"name": "chain-2"}, True),
        ({"name": "a", "choices": CHOICES}, {"name": "b", "choices": CHOICES[::-1]}, True),
        ({"name": "a"}, {"name": "b"}, False),
        ({"choices": CHOICES}, {"choices": [[0], [1]]}, False),
        ({"budget": 3}, {}, False),
    ],
)
def test_policies_are_compared_by_what_they_allow(left: dict[str, Any], right: dict[str, Any], same: bool) -> None:
    base: dict[str, Any] = {"kind": "chain", "depth": 2, "top_k": 1, "budget": 2}
    assert same_policy(TreePolicy(**base | left), TreePolicy(**base | right)) is same


def test_another_tree_is_found_where_one_writer_does_not_name_its_policy(tmp_path: Path) -> None:
    ours = pairs()["lookup"].a
    theirs = changed(ours, tree_policy={"name": None, "choices": None})
    theirs[0] |= {"engine": "theirs 1", "run_id": "theirs"}
    step = next(line for line in theirs if line["kind"] == "step" and len(line["tree"]["tokens"]) > 2)
    token = (step["tree"]["tokens"][-1] + 1) % 16
    step["tree"]["tokens"][-1] = step["tensors"]["token_ids"][-1] = token
    for pair in ((ours, theirs), (theirs, ours)):
        assert judge(tmp_path, *pair).roots[0].difference.field == "nodes"
