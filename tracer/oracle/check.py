"""The oracle: re-verifies a run from its trace alone. No model, no accelerator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from specscope.schemas import AnyRecord, Failure, Manifest, RunEnd, Step, TurnEnd, TurnStart
from specscope.schemas.unknown import unknown_fields
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.files.tensor_files import file_problem
from specscope.tracer.naming.text import shorten
from specscope.tracer.oracle.digests import CONVERTED, Digests, RunningDigests
from specscope.tracer.oracle.invariants.base import Context, promises
from specscope.tracer.oracle.invariants.flow import Flow
from specscope.tracer.oracle.invariants.needs import (
    NOT_RECORDED,
    absent_promises,
    missing_field,
    recorded_as,
    why_skipped,
)
from specscope.tracer.oracle.invariants.proposers import LOOKUP, levels_of
from specscope.tracer.oracle.invariants.ranks import disagreement
from specscope.tracer.oracle.invariants.registry import ON_ROWS, ON_TURNS, STATEMENTS
from specscope.tracer.oracle.invariants.rows import RowLedger
from specscope.tracer.oracle.invariants.turn import TurnTally
from specscope.tracer.oracle.report import MOST_KEPT, OracleReport, RecordPlace, Tally, Violation
from specscope.tracer.oracle.step import LONGEST_WITNESS, SKIPPED, judge_step, witness_of

if TYPE_CHECKING:
    from _typeshed import StrPath

MOST_UNKNOWN = 100  # names of unknown fields that are counted one by one
OTHERS = "others"


def shown(number: int) -> str:
    """``number`` in digits, or how long it is: Python refuses to print what a hostile record may well hold."""
    return str(number) if abs(number) < 10**30 else f"a number of {number.bit_length()} bits"


@dataclass(kw_only=True)
class _OpenTurn:
    """A turn between its start and its end."""

    tally: TurnTally
    previous: Step | None = None
    overdue: bool = False  # its end is missing, and that was reported
    prefixes: dict[int, str] = field(default_factory=dict)  # by layer, as the prefill or a step left it
    text: list[int] | None = None  # prompt and output so far, where a drafter looks them up; None: not known

    def __post_init__(self) -> None:
        self.prefixes |= enumerate(self.tally.start.prefill.prefix_digests or ())

    def add(self, step: Step) -> None:
        """Takes note of a step that was judged."""
        self.tally.add(step)
        self.previous = step
        if step.stop is None:
            self.text = None
        elif self.text is not None:
            self.text += step.stop.emitted
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
    """Feeds on records one by one; memory does not grow with the trace except for the open turns."""

    def __init__(self, path: Path, manifest: Manifest, required: tuple[str, ...] = ()) -> None:
        tallies = {name: Tally(statement=statement) for name, statement in STATEMENTS.items()}
        self.report = OracleReport(path=path, manifest=manifest, invariants=tallies, required=required)
        self._manifest = manifest
        self._open: dict[int, _OpenTurn] = {}  # by number, in the order in which they started
        self._seen_turns: set[tuple[str, int]] = set()
        self._is_replay = manifest.replay_of is not None
        self._next_turn = 0
        self._files = _FileTally()
        self._first_coins: dict[float, _FirstCoin] = {}
        self._rows = RowLedger(remembers_tokens=not self._is_replay)

    def turn_start(self, record: TurnStart, line: int) -> None:
        """Begins a turn."""
        # A replay may leave turns out, and keeps the numbers of the others.
        wanted = max(record.turn, self._next_turn) if self._is_replay else self.report.num_turns
        self._number(wanted, record.turn, "turn", line)
        self._next_turn = record.turn + 1
        self.report.num_turns += 1
        self.report.judge("run.order", self._misplaced(record), RecordPlace(line=line))
        self._seen_turns.add((record.prompt_id, record.prompt_turn))
        self._open[record.turn] = _OpenTurn(tally=self._tally(record), text=self._text_of(record))
        self._judge_coins(record, line)
        self._judge_row(record, line)

    def _judge_row(self, record: TurnStart, line: int) -> None:
        """What the row that the turn takes still holds."""
        taken = self._rows.take(record)
        for invariant in ON_ROWS:
            if not invariant.applies(taken):
                continue
            missing = missing_field(record, invariant.needs)
            if missing is not None:
                self.report.skip(invariant.id, f"{NOT_RECORDED}{missing}")
            else:
                self.report.judge(invariant.id, witness_of(invariant, taken), RecordPlace(record.turn, None, line))

    def _text_of(self, start: TurnStart) -> list[int] | None:
        """The prompt and the first token, where a lookup among several drafters is judged by them."""
        looked_up = levels_of(self._manifest) is not None and LOOKUP in self._manifest.drafter.names
        return [*start.prompt_ids, *start.first_output] if looked_up else None

    def _judge_coins(self, record: TurnStart, line: int) -> None:
        """Two turns draw the same first coin where one generator is begun anew for both; that their seeds are equal is
        for the writer to say."""
        draw = record.prefill.draw
        if draw is None or self._is_replay:
            return
        other = self._first_coins.get(draw.coin)
        same_seed = other is not None and None not in (other.seed, record.generator_seed)
        same_seed = same_seed and other is not None and other.seed == record.generator_seed
        witness = None
        if other is not None and not same_seed:
            witness = f"turn {record.turn} draws its first token with coin {draw.coin:.9g}, as turn {other.turn} does"
        self.report.judge("run.coins-fresh", witness, RecordPlace(record.turn, None, line))
        if witness is None and len(self._first_coins) < MOST_KEPT:
            self._first_coins[draw.coin] = _FirstCoin(record.turn, record.generator_seed)

    def _tally(self, start: TurnStart) -> TurnTally:
        manifest = self._manifest
        return TurnTally(
            start=start,
            sampling=manifest.sampling,
            is_guided=manifest.grammar is not None,
            flow=Flow.of(manifest, start.pipeline),
            forced=self._is_replay,
            stop_rules=manifest.stop_rules,
            max_positions=manifest.teacher.max_positions,
            policy_depth=manifest.tree_policy.depth,
            in_part=frozenset(section for section in ("commit", "stop") if not promises(manifest, section)),
        )

    def _misplaced(self, record: TurnStart) -> str | None:
        """Why a turn may not start here."""
        open_turns = [turn for turn in self._open.values() if not turn.overdue]
        before = next((t.tally.start for t in open_turns if t.tally.start.prompt_id == record.prompt_id), None)
        most = self._manifest.batch_size or 1
        if len(open_turns) >= most or record.turn in self._open:
            late = self._open.get(record.turn, open_turns[0] if open_turns else None)
            assert late is not None
            late.overdue = True
            self._rows.forget(late.tally.start.turn)
            allowed = "one turn" if most == 1 else f"{most} turns"
            rows = f", and by the manifest's batch_size {allowed} may be open at once"
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
        place = RecordPlace(record.turn, record.step, line)
        context = Context(
            manifest=self._manifest,
            turn=turn.tally.start,
            previous=turn.previous,
            step=record,
            prefixes=turn.prefixes,
            text=turn.text,
        )
        for invariant, witness in judge_step(context):
            if witness is SKIPPED:
                self.report.skip(invariant.id, why_skipped(context, invariant))
            else:
                self.report.judge(invariant.id, witness, place)
        self.report.absent.update(name for name in self.report.required if missing_field(record, (name,)))
        self._rows.step(record)
        self._judge_promises(record, place)
        self._judge_file(record, place)
        turn.add(record)

    def _judge_promises(self, record: Step, place: RecordPlace) -> None:
        absent = absent_promises(self._manifest, record)
        self.report.judge("run.capabilities", f"promised and absent: {', '.join(absent)}" if absent else None, place)
        if record.invariants is None:
            self.report.skip("run.engine-checks", "not recorded: invariants")
            return
        reported = "; ".join(f"{failure.id}: {failure.witness}" for failure in record.invariants.failed)
        self.report.judge("run.engine-checks", shorten(reported, LONGEST_WITNESS), place)

    def _judge_file(self, record: Step, place: RecordPlace) -> None:
        if record.tensor_files is None:
            return
        problem = file_problem(self.report.path.parent, record.tensor_files)
        witness = problem and shorten(problem.witness, LONGEST_WITNESS)
        if problem is not None and problem.absent:
            self._files.absent += 1
            absent = Violation("run.tensor-files", witness, **place._asdict()) if witness else None
            self._files.first_absent = self._files.first_absent or absent
        else:
            self._files.num_there += 1
            self.report.judge("run.tensor-files", witness, place)

    def finish(self) -> None:
        """Judges what only the whole file can tell: a trace without any of its files was moved alone."""
        tally, files = self.report.invariants["run.tensor-files"], self._files
        if not files.num_there:
            tally.skipped += files.absent
            tally.why_skipped = "none of the files is there" if files.absent else None
        elif files.first_absent is not None:
            self.report.fail(files.first_absent)
            tally.failed += files.absent - 1

    def turn_end(self, record: TurnEnd, line: int) -> None:
        """Judges the turn as a whole."""
        turn = self._open.pop(record.turn, None)
        if turn is None:
            self._fail("run.step-numbers", f"an end of turn {record.turn} outside that turn", line)
            return
        turn.tally.end = record
        self._rows.leave(record)
        if turn.tally.flow is not None and record.pipeline is not None:
            turn.tally.flow.add(record.pipeline)
        for invariant in ON_TURNS:
            if not invariant.applies(turn.tally):
                continue
            if not turn.tally.complete:
                self.report.skip(invariant.id, "not recorded in every step: tree, accept or stop")
                continue
            witness = witness_of(invariant, turn.tally)
            missing = missing_field(turn.tally, invariant.needs)
            if witness is None and missing is not None:
                self.report.skip(invariant.id, f"{NOT_RECORDED}{recorded_as(missing)}")
                continue
            self.report.judge(invariant.id, witness, RecordPlace(record.turn, None, line))

    def failure(self, record: Failure, line: int) -> None:
        """Notes a failure; ranks that parted in it have no step that says so."""
        self.report.failures.append(record)
        if record.ranks:
            problem = disagreement(record.ranks)
            witness = problem and shorten(problem, LONGEST_WITNESS)
            self.report.judge("ranks.agree", witness, RecordPlace(record.turn, record.step, line))

    def _number(self, wanted: int, got: int, unit: str, line: int) -> None:
        witness = None if got == wanted else f"got {unit} {shown(got)}, wanted {shown(wanted)}"
        self.report.judge("run.step-numbers", witness, RecordPlace(line=line))

    def _fail(self, name: str, witness: str, line: int) -> None:
        self.report.judge(name, witness, RecordPlace(line=line))

    def sequence(self, got: int, wanted: int, line: int) -> None:
        """Judges a record's number."""
        witness = None if got == wanted else f"got seq {shown(got)}, wanted {shown(wanted)}"
        self.report.judge("run.sequence", witness, RecordPlace(line=line))

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
        judged = (("run.counts", record.counts, counts, ""), ("run.digest", record.digest, digest.as_is, hint))
        for name, got, wanted, more in judged:
            if got is None:
                self.report.skip(name, "not recorded: run_end.digest")
                continue
            witness = None if got == wanted else f"got {got}, wanted {wanted}{more}"
            self.report.judge(name, witness, RecordPlace(line=line))


def check_trace(
    path: StrPath, required: tuple[str, ...] = (), *, watch: Callable[[int], None] | None = None
) -> OracleReport:
    """Judges every record of the trace at ``path``; ``required`` names sections, or section.field, whose absence from
    steps is counted. ``watch`` is called with the bytes of each record.

    Raises:
        TraceError: where it cannot be read as a trace.
    """
    with TraceReader(path) as reader:
        return check_records(reader, required, watch=watch)


def check_records(
    reader: TraceReader, required: tuple[str, ...] = (), *, watch: Callable[[int], None] | None = None
) -> OracleReport:
    """As ``check_trace``, of a trace that is open."""
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
                oracle.failure(record, number)
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
