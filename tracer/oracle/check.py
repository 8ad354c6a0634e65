"""The oracle: re-verifies a run from its trace alone. No model, no accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from specscope.schemas import AnyRecord, Failure, Manifest, RunEnd, Step, TurnEnd, TurnStart
from specscope.schemas.unknown import unknown_fields
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.tensor_files import file_problem
from specscope.tracer.oracle.invariants.base import Context, Invariant, promises
from specscope.tracer.oracle.invariants.commit import COMMIT
from specscope.tracer.oracle.invariants.decisions import DECISIONS
from specscope.tracer.oracle.invariants.registry import (
    ALL_INVARIANTS,
    absent_promises,
    arrays_of,
    missing_draw,
    missing_field,
    missing_need,
    why_skipped,
)
from specscope.tracer.oracle.invariants.structure import SIZES, STRUCTURE
from specscope.tracer.oracle.invariants.turns import TURNS, TurnTally
from specscope.tracer.words.text import shorten

if TYPE_CHECKING:
    from _typeshed import StrPath

MOST_KEPT = 10_000  # violated steps that are remembered one by one; behind that they are only counted
#: Where lists do not fit together, a step cannot be compared; those are always remembered.
MISSHAPEN = ("tensors.sizes", "verify.sizes")


MOST_UNKNOWN = 100  # names of unknown fields that are counted one by one
OTHERS = "others"
LONGEST_WITNESS = 2000  # characters; a record may be as long as it likes


class Violation(NamedTuple):
    """One violated invariant at one place."""

    invariant: str
    witness: str
    turn: int | None
    step: int | None
    line: int | None


@dataclass
class Tally:
    """How often one invariant passed, failed and was skipped, and its first violation."""

    statement: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    why_skipped: str | None = None  # the first time
    first: Violation | None = None


@dataclass
class OracleReport:
    """What the oracle found in one trace."""

    path: Path
    manifest: Manifest
    invariants: dict[str, Tally]
    num_turns: int = 0
    num_steps: int = 0
    truncated: bool = False
    torn_bytes: int = 0
    end_reason: str | None = None
    failures: list[Failure] = field(default_factory=list)
    by_step: dict[tuple[int, int], list[Violation]] = field(default_factory=dict)  # by turn and step; see MOST_KEPT
    by_turn: dict[int, list[Violation]] = field(default_factory=dict)  # of turns as a whole
    unknown: Counter[tuple[str, str]] = field(default_factory=Counter)  # (record's kind, dotted name) -> records
    required: tuple[str, ...] = ()  # sections, or section.field, that the caller wants in every step
    absent: Counter[str] = field(default_factory=Counter)  # of those, how many steps do not have them
    forgetful: bool = False  # whether a violated step is missing there

    @property
    def num_violations(self) -> int:
        """Violations over all invariants."""
        return sum(tally.failed for tally in self.invariants.values())

    @property
    def unmet(self) -> list[str]:
        """The requirements that a step does not meet; all of them where there is no step."""
        return [name for name in self.required if self.absent[name] or not self.num_steps]

    def count(self, invariant: str, violation: Violation | None) -> None:
        """Adds one pass or failure."""
        tally = self.invariants[invariant]
        if violation is None:
            tally.passed += 1
            return
        tally.failed += 1
        tally.first = tally.first or violation
        if violation.turn is None:
            return
        if violation.step is None:
            if len(self.by_turn) < MOST_KEPT:
                self.by_turn.setdefault(violation.turn, []).append(violation)
            return
        place = (violation.turn, violation.step)
        if place in self.by_step or len(self.by_step) < MOST_KEPT or invariant in MISSHAPEN:
            self.by_step.setdefault(place, []).append(violation)
        else:
            self.forgetful = True


#: Rules about the file as a whole, judged while it is read.
RUN_RULES = {
    "run.sequence": "records are numbered one after another",
    "run.step-numbers": "turns are numbered one after another, and steps in their turn",
    "run.order": "one manifest first, one run_end last; every turn ends, none stands twice, no more at once than rows",
    "run.capabilities": "every step has the sections and fields that the manifest promises",
    "run.coins-fresh": "turns that draw by seeds of their own do not draw the same coin first",
    "run.engine-checks": "the engine's own checks found nothing",
    "run.tensor-files": "each file of tensors lies in the trace's folder as written; skipped where none is there",
    "run.counts": "run_end counts the records",
    "run.digest": "run_end digests every byte before it",
}
#: What holds in an honest run, by invariant, in the order of a step's phases.
STATEMENTS = {invariant.id: invariant.statement for invariant in ALL_INVARIANTS} | RUN_RULES


def step_violations(context: Context) -> Iterator[Violation]:
    """The violated invariants of one step."""
    for invariant, witness in judge_step(context):
        if witness is not None and witness is not SKIPPED:
            yield Violation(invariant.id, witness, context.step.turn, context.step.step, None)


#: What is said where a file's digest fits but for its line ends.
CONVERTED = (
    "; only the line ends are others: a transfer made CRLF of LF. Nothing else has changed; turn them back with "
    "sed -i 's/\\r$//' FILE"
)


class Digests(NamedTuple):
    """Of every byte so far."""

    as_is: str
    with_lf: str | None  # as if lines that end in CRLF ended in LF; None where the first one does not


class RunningDigests:
    """Digests a file line by line."""

    def __init__(self) -> None:
        self._as_is = xxhash.xxh3_128()
        self._with_lf: xxhash.xxh3_128 | None = None
        self._is_first = True

    def update(self, line: bytes) -> None:
        """Takes in the next line, its end included."""
        self._as_is.update(line)
        if self._is_first and line.endswith(b"\r\n"):
            self._with_lf = xxhash.xxh3_128()
        self._is_first = False
        if self._with_lf is not None:
            self._with_lf.update(line[:-2] + b"\n" if line.endswith(b"\r\n") else line)

    def digests(self) -> Digests:
        """The digests so far."""
        return Digests(self._as_is.hexdigest(), None if self._with_lf is None else self._with_lf.hexdigest())


SKIPPED = "skipped"


def judge_step(context: Context) -> Iterator[tuple[Invariant[Any], str | None]]:
    """Every invariant of a step with its witness, None where it holds, ``SKIPPED`` where it cannot be judged.

    Those that say nothing of such a step, as of trials under rule greedy, are left out.
    """
    arrays = arrays_of(context)
    misshapen = None if arrays is None else _judge(SIZES, arrays)
    for structural in STRUCTURE:
        if structural is SIZES and arrays is not None:
            yield structural, misshapen
        else:
            judged = arrays is not None and misshapen is None and missing_need(context, structural.needs) is None
            yield structural, _judge(structural, arrays) if judged else SKIPPED
    for invariant in (*DECISIONS, *COMMIT):
        if not invariant.applies(context):
            continue
        missing = missing_need(context, invariant.needs) or missing_draw(context, invariant)
        unjudged = missing is not None or (misshapen is not None and _needs_tree(invariant.needs))
        yield invariant, SKIPPED if unjudged else _judge(invariant, context)


def shown(number: int) -> str:
    """``number`` in digits, or how long it is: Python refuses to print what a hostile record may well hold."""
    return str(number) if abs(number) < 10**30 else f"a number of {number.bit_length()} bits"


@cache
def _needs_tree(needs: tuple[str, ...]) -> bool:
    return any(need.split(".")[0] in ("tree", "tensors") for need in needs)


def _judge(invariant: Invariant[Any], subject: Any) -> str | None:
    """The witness. A record too malformed for the rule to be evaluated violates it."""
    try:
        witness = invariant.check(subject)
        return None if witness is None else shorten(witness, LONGEST_WITNESS)
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError, MemoryError) as error:
        return f"the record does not fit together ({type(error).__name__}: {error})"


@dataclass
class _OpenTurn:
    """A turn between its start and its end."""

    tally: TurnTally
    previous: Step | None = None
    overdue: bool = False  # its end is missing, and that has been said
    prefixes: dict[int, str] = field(default_factory=dict)  # by layer, as the prefill or a step left it

    def __post_init__(self) -> None:
        self.prefixes |= enumerate(self.tally.start.prefill.prefix_digests or ())

    def add(self, step: Step) -> None:
        """Takes note of a step that was judged."""
        self.tally.add(step)
        self.previous = step
        commit = step.commit
        if commit is not None and commit.prefix_layer is not None:
            # A digest that was not taken leaves nothing to hold the next one against.
            self.prefixes.pop(commit.prefix_layer, None)
            if commit.prefix_committed is not None:
                self.prefixes[commit.prefix_layer] = commit.prefix_committed


class _FirstCoin(NamedTuple):
    """Whose first coin it was."""

    turn: int
    seed: int | None


@dataclass
class _FileTally:
    """The files of tensors so far."""

    num_there: int = 0
    absent: int = 0
    first_absent: Violation | None = None


class Oracle:
    """Feeds on records one by one; memory does not grow with the trace but for the open turns."""

    def __init__(self, path: Path, manifest: Manifest, required: tuple[str, ...] = ()) -> None:
        tallies = {name: Tally(statement) for name, statement in STATEMENTS.items()}
        self.report = OracleReport(path, manifest, tallies, required=required)
        self._manifest = manifest
        self._open: dict[int, _OpenTurn] = {}  # by number, in the order in which they started
        self._seen_turns: set[tuple[str, int]] = set()
        self._is_replay = manifest.replay_of is not None
        self._next_turn = 0
        self._files = _FileTally()
        self._first_coins: dict[float, _FirstCoin] = {}

    def turn_start(self, record: TurnStart, line: int) -> None:
        """Begins a turn."""
        # A replay may leave turns out, and keeps the numbers of the others.
        wanted = max(record.turn, self._next_turn) if self._is_replay else self.report.num_turns
        self._number(wanted, record.turn, "turn", line)
        self._next_turn = record.turn + 1
        self.report.num_turns += 1
        witness = self._misplaced(record)
        if witness is None:
            self.report.count("run.order", None)
        else:
            self._fail("run.order", witness, line)
        self._seen_turns.add((record.prompt_id, record.prompt_turn))
        self._open[record.turn] = _OpenTurn(self._tally(record))
        self._judge_coins(record, line)

    def _judge_coins(self, record: TurnStart, line: int) -> None:
        """Two turns draw the same first coin where one generator is begun anew for both; that their seeds are equal is
        for the writer to say."""
        draw = record.prefill.draw
        if draw is None or self._is_replay:
            return
        other = self._first_coins.get(draw.coin)
        same_seed = other is not None and None not in (other.seed, record.generator_seed)
        same_seed = same_seed and other is not None and other.seed == record.generator_seed
        if other is not None and not same_seed:
            said = f"turn {record.turn} draws its first token with coin {draw.coin:.9g}, as turn {other.turn} does"
            self.report.count("run.coins-fresh", Violation("run.coins-fresh", said, record.turn, None, line))
            return
        self.report.count("run.coins-fresh", None)
        if len(self._first_coins) < MOST_KEPT:
            self._first_coins[draw.coin] = _FirstCoin(record.turn, record.generator_seed)

    def _tally(self, start: TurnStart) -> TurnTally:
        said = self._manifest
        part = frozenset(section for section in ("commit", "stop") if not promises(said, section))
        return TurnTally(start, said.sampling, self._is_replay, said.stop_rules, said.teacher.max_positions, part)

    def _misplaced(self, record: TurnStart) -> str | None:
        """Why a turn may not start here."""
        open_turns = [turn for turn in self._open.values() if not turn.overdue]
        before = next((t.tally.start for t in open_turns if t.tally.start.prompt_id == record.prompt_id), None)
        most = self._manifest.batch_size or 1
        if len(open_turns) >= most or record.turn in self._open:
            late = self._open.get(record.turn, open_turns[0] if open_turns else None)
            assert late is not None
            late.overdue = True
            rows = "" if most == 1 else f", and {most} turns may be open at once"
            return f"turn {late.tally.start.turn} has no turn_end{rows}"
        if (record.prompt_id, record.prompt_turn) in self._seen_turns:
            return f"turn {record.turn} is a turn of prompt {record.prompt_id!r} that the run holds already"
        if before is not None:
            return f"turn {record.turn} continues prompt {record.prompt_id!r}, whose turn {before.turn} is still open"
        return None

    def step(self, record: Step, line: int) -> None:
        """Judges a step."""
        turn = self._open.get(record.turn)
        if turn is None:
            self._fail("run.step-numbers", f"a step of turn {record.turn} outside that turn", line)
            return
        self._number(turn.tally.num_steps, record.step, "step", line)
        self.report.num_steps += 1
        context = Context(self._manifest, turn.tally.start, turn.previous, record, turn.prefixes)
        for invariant, witness in judge_step(context):
            if witness is SKIPPED:
                self._skip(invariant.id, why_skipped(context, invariant))
            else:
                found = Violation(invariant.id, witness, record.turn, record.step, line) if witness else None
                self.report.count(invariant.id, found)
        self.report.absent.update(name for name in self.report.required if missing_field(record, (name,)))
        self._judge_promises(record, line)
        self._judge_file(record, line)
        turn.add(record)

    def _skip(self, name: str, why: str) -> None:
        tally = self.report.invariants[name]
        tally.skipped += 1
        tally.why_skipped = tally.why_skipped or why

    def _judge_promises(self, record: Step, line: int) -> None:
        absent = absent_promises(self._manifest, record)
        where = (record.turn, record.step, line)
        found = Violation("run.capabilities", f"promised and absent: {', '.join(absent)}", *where) if absent else None
        self.report.count("run.capabilities", found)
        if record.invariants is None:
            self._skip("run.engine-checks", "not recorded: invariants")
            return
        reported = shorten("; ".join(f"{f.id}: {f.witness}" for f in record.invariants.failed), LONGEST_WITNESS)
        self.report.count("run.engine-checks", Violation("run.engine-checks", reported, *where) if reported else None)

    def _judge_file(self, record: Step, line: int) -> None:
        if record.tensor_files is None:
            return
        problem = file_problem(self.report.path.parent, record.tensor_files)
        witness = problem and shorten(problem.witness, LONGEST_WITNESS)
        found = Violation("run.tensor-files", witness, record.turn, record.step, line) if witness else None
        if problem is not None and problem.absent:
            self._files.absent += 1
            self._files.first_absent = self._files.first_absent or found
        else:
            self._files.num_there += 1
            self.report.count("run.tensor-files", found)

    def finish(self) -> None:
        """Judges what only the whole file can tell: a trace without any of its files was moved alone."""
        tally, files = self.report.invariants["run.tensor-files"], self._files
        if not files.num_there:
            tally.skipped += files.absent
            tally.why_skipped = "none of the files is there" if files.absent else None
        elif files.first_absent is not None:
            self.report.count("run.tensor-files", files.first_absent)
            tally.failed += files.absent - 1

    def turn_end(self, record: TurnEnd, line: int) -> None:
        """Judges the turn as a whole."""
        turn = self._open.pop(record.turn, None)
        if turn is None:
            self._fail("run.step-numbers", f"an end of turn {record.turn} outside that turn", line)
            return
        turn.tally.end = record
        for invariant in TURNS:
            if not invariant.applies(turn.tally):
                continue
            if not turn.tally.complete:
                self._skip(invariant.id, "not recorded in every step: tree, accept or stop")
                continue
            witness = _judge(invariant, turn.tally)
            missing = missing_field(turn.tally.start, invariant.needs)
            if witness is None and missing is not None:
                self._skip(invariant.id, f"not recorded: {missing}")
                continue
            found = Violation(invariant.id, witness, record.turn, None, line) if witness else None
            self.report.count(invariant.id, found)

    def _number(self, wanted: int, got: int, unit: str, line: int) -> None:
        if got == wanted:
            self.report.count("run.step-numbers", None)
        else:
            self._fail("run.step-numbers", f"got {unit} {shown(got)}, wanted {shown(wanted)}", line)

    def _fail(self, name: str, witness: str, line: int) -> None:
        self.report.count(name, Violation(name, witness, None, None, line))

    def sequence(self, got: int, wanted: int, line: int) -> None:
        """Judges a record's number."""
        if got == wanted:
            self.report.count("run.sequence", None)
        else:
            self._fail("run.sequence", f"got seq {shown(got)}, wanted {shown(wanted)}", line)

    def note_unknown(self, record: AnyRecord) -> None:
        """Counts the fields that the format does not have: of a newer version, or misspelt."""
        for name in dict.fromkeys(unknown_fields(record)):
            known = (record.kind, name) in self.report.unknown or len(self.report.unknown) < MOST_UNKNOWN
            self.report.unknown[(record.kind, name) if known else (record.kind, OTHERS)] += 1

    def stray(self, record: AnyRecord, counts: dict[str, int], line: int) -> None:
        """Judges whether a record may stand where it does, given those before it."""
        if record.kind == "manifest" and line > 1:
            self._fail("run.order", "a second manifest", line)
        if counts.get("run_end"):
            self._fail("run.order", f"a {record.kind} behind run_end", line)

    def run_end(self, record: RunEnd, counts: dict[str, int], digest: Digests, line: int) -> None:
        """Judges the last line against what came before."""
        fits = record.digest == digest.as_is
        hint = CONVERTED if not fits and record.digest == digest.with_lf else ""
        self.report.end_reason = record.reason
        late = [number for number, turn in self._open.items() if not turn.overdue]
        if late and record.reason == "complete":
            self._fail("run.order", f"turn {late[0]} has no turn_end", line)
        for name, got, wanted in (("run.counts", record.counts, counts), ("run.digest", record.digest, digest.as_is)):
            if got == wanted:
                self.report.count(name, None)
            else:
                more = hint if name == "run.digest" else ""
                self._fail(name, f"got {got}, wanted {wanted}{more}", line)


def check_trace(
    path: StrPath, required: tuple[str, ...] = (), *, watch: Callable[[int], None] | None = None
) -> OracleReport:
    """Judges every record of the trace at ``path``; ``required`` names sections, or section.field, whose absence from
    steps is counted. ``watch`` is called with the bytes of each record.

    Raises:
        TraceError: where it cannot be read as a trace.
    """
    with TraceReader(path) as reader:
        oracle = Oracle(reader.path, reader.manifest, required)
        counts: dict[str, int] = {}
        digest = RunningDigests()
        wanted_seq = 0
        for number, record, line in reader.numbered_lines():
            oracle.sequence(record.seq, wanted_seq, number)
            wanted_seq = record.seq + 1
            oracle.stray(record, counts, number)
            oracle.note_unknown(record)
            match record:
                case TurnStart():
                    oracle.turn_start(record, number)
                case Step():
                    oracle.step(record, number)
                case TurnEnd():
                    oracle.turn_end(record, number)
                case Failure():
                    oracle.report.failures.append(record)
                case RunEnd():
                    oracle.run_end(record, counts, digest.digests(), number)
            counts[record.kind] = counts.get(record.kind, 0) + 1
            digest.update(line)
            if watch is not None:
                watch(len(line))
        oracle.finish()
        oracle.report.torn_bytes = reader.torn_bytes
        oracle.report.truncated = oracle.report.end_reason is None
        return oracle.report
