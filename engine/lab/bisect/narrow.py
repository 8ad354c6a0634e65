"""Runs one step of two traces in both configurations, and narrows: phase, layer, operation; then grafts.

One side after the other, so that only one model is loaded at a time: of the baseline's side what is needed is kept on
the host. Each layer of the candidate is then run by itself, and each of its operations fed what the baseline's was fed,
after the baseline's own keys and values: so an operation that differs does so by itself, and not by what an earlier
layer, the prefill or an earlier step handed on. That the committed keys and values differ is told apart from it. Where
every operation by itself is right, the two whole forwards of the step are held together; and where nothing is found,
the recordings say whether there was anything to find.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specscope.engine.digests import digest_file
from specscope.engine.lab.bisect.alike import check_alike, inputs_equal, pairs_equal, unsteady
from specscope.engine.lab.bisect.conclusion import Case, conclude, floors_of
from specscope.engine.lab.bisect.floors import position_errors, relative_error
from specscope.engine.lab.bisect.grafts import (
    Baseline,
    ForwardGraft,
    draft_gap,
    forward_grafts,
    graft_forward,
    graft_of,
)
from specscope.engine.lab.bisect.operations import (
    BEFORE,
    BEHIND,
    Operation,
    Parts,
    run_end,
    run_layer,
)
from specscope.engine.lab.bisect.recorded import Held, Rerun, aligned_step, first_difference, lacking
from specscope.engine.lab.bisect.redraft import narrow_draft, narrow_in_place, redraft
from specscope.engine.lab.bisect.schedule import plan_batch
from specscope.engine.lab.bisect.sides import Course, Side, moved, prefix_cache, run_side
from specscope.engine.lab.bisect.state import StateKeeper
from specscope.engine.lab.bisect.whole import find_departure
from specscope.engine.lab.rerun.recorded_run import Overrides, check_readable
from specscope.engine.lab.rerun.replay import earlier_turns
from specscope.engine.loop.phases import ForwardInputs
from specscope.engine.record.target import RUN_ERRORS
from specscope.schemas import Manifest, Step
from specscope.schemas.bisection import (
    STATE_SCHEMA,
    Bisection,
    Compared,
    Recordings,
    State,
)
from specscope.schemas.phases import Phase
from specscope.schemas.verdict import TIES, Difference
from specscope.tracer.compare.align import Aligned
from specscope.tracer.compare.drafts import compare_drafts
from specscope.tracer.compare.drift import measure_drift
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.manifests import is_teacher_only
from specscope.tracer.compare.noise import measured_floors
from specscope.tracer.compare.steps import RecordedSteps, StepPair
from specscope.tracer.errors import EngineError, NoSuchStepError, SpecScopeError
from specscope.tracer.files.index import TurnEntry
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.naming.places import StepPlace

Advance = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BisectRequest:
    """What is to be bisected."""

    baseline: Path
    candidate: Path
    place: StepPlace  # of the baseline
    overrides: Overrides  # of both sides
    state: Path | None = None


class Bisect:
    """A bisection that is ready to run. A context manager: it holds both traces open.

    Raises:
        UsageError: where a trace cannot be run again, or has no such step, or the state file is another's.
    """

    def __init__(self, request: BisectRequest) -> None:
        self._request = request
        self._stack = ExitStack()
        try:
            self._a = self._stack.enter_context(TraceReader(request.baseline))
            self._b = self._stack.enter_context(TraceReader(request.candidate))
            check_readable(request.baseline, self._a.manifest)
            check_readable(request.candidate, self._b.manifest)
            self._entry = _turn_of(self._a, request.place)
            self._keeper = StateKeeper(request.state, _fresh(request))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Bisect:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def num_units(self) -> int:
        """Units of work: steps of both sides and layers; fewer where the state holds some already."""
        if self._state.grafts is not None:
            return 0
        steps = sum(len(entry.steps) for entry in earlier_turns(self._a.turns, self._entry)) + self._request.place.step
        return 2 * (steps + 1) + (self._a.manifest.teacher.num_layers or 0) - len(self._state.layers)

    def run(self, advance: Advance) -> Bisection:
        """Narrows as far as it goes; ``advance`` is called after each unit of work.

        Raises:
            UsageError, IncomparableError, EngineError: where one of the sides cannot be run.
        """
        case = Case(self._request.baseline, self._request.candidate, self._a.manifest, self._manifest_b())
        if self._state.grafts is None:
            try:
                self._work(case, advance)
            except SpecScopeError:
                raise
            except RUN_ERRORS as error:
                raise EngineError(f"the step cannot be narrowed: {type(error).__name__}: {error}") from error
        return conclude(case, self._state, self._a, self._entry)

    @property
    def _state(self) -> State:
        return self._keeper.state

    def _manifest_b(self) -> Manifest:
        """The candidate's configuration. Where it alone drafts nothing, with the baseline's drafter: its trees are run,
        and nothing of the drafter but its pairs is compared."""
        a, b = self._a.manifest, self._b.manifest
        if not is_teacher_only(b) or is_teacher_only(a):
            return b
        mode = "eager" if b.attention == "eager" else "fused"
        return b.model_copy(update={"mode": mode, "drafter": a.drafter, "tree_policy": a.tree_policy})

    def _work(self, case: Case, advance: Advance) -> None:
        partner = aligned_step(self._a, self._b, self._request.place)
        baseline = self._baseline(advance)
        course = self._course(case.candidate_manifest, partner)
        side = run_side(course, case.candidate_manifest, self._request.overrides, advance)
        check_alike(baseline, side)
        advance("the candidate's step")
        if self._state.compared is None:
            self._keeper.put(compared=self._compare(baseline, side, partner, case))
        if self._state.draft_graft is None:
            self._draft(case, baseline, side)
        if self._state.draft is None or self._state.draft.culprit is None:
            self._teacher(case, baseline, side, advance)
        self._grafts(case, baseline, side)

    def _course(self, manifest: Manifest, partner: Aligned | None) -> Course:
        """What a side of ``manifest`` is run along: the baseline's recording, with the rows beside it that there were;
        where the candidate alone ran in a batch, its own."""
        step = self._request.place.step
        record, plan = self._a.step(self._entry, step), None
        if _in_batch(manifest):
            if _in_batch(self._a.manifest):
                plan = plan_batch(self._a, self._entry.turn, step)
            elif partner is not None:
                plan = plan_batch(self._b, partner.b.turn, partner.step_b)
                if plan is not None:
                    return Course(
                        recording=self._b,
                        entry=plan.members[plan.row].entry,
                        step=partner.step_b,
                        record=record,
                        plan=plan,
                    )
        return Course(recording=self._a, entry=self._entry, step=step, record=record, plan=plan)

    def _baseline(self, advance: Advance) -> Baseline:
        """The baseline's side; its models are let go of when this returns."""
        side = run_side(self._course(self._a.manifest, None), self._a.manifest, self._request.overrides, advance)
        given = ForwardInputs(*(tensor.cpu() for tensor in side.given))
        advance("the baseline's step")
        return Baseline(
            record=side.record,
            own_tree=side.own_tree,
            fed=side.fed,
            num_earlier=side.num_earlier,
            drafted=redraft(side, side.fed, side.num_earlier, side.prefix),
            given=given,
            sees_beyond=side.sees_beyond,
            logits=side.logits,
            in_place=side.in_place,
            drafting=side.drafting,
            alone=side.alone,
            prefix=side.prefix,
            circumstances=side.circumstances,
            notes=list(side.notes),
        )

    def _compare(self, baseline: Baseline, side: Side, partner: Aligned | None, case: Case) -> Compared:
        judge, (length_a, length_b) = self._judge(), (baseline.prefix.shape[3], side.prefix.shape[3])
        ours, theirs = (prefix[:, :, :, : min(length_a, length_b)] for prefix in (baseline.prefix, side.prefix))
        notes = list(dict.fromkeys([*baseline.notes, *side.notes]))
        if length_a != length_b:
            notes.append(f"the baseline holds {length_a} committed positions, the candidate {length_b}")
        return Compared(
            difference=self._first_difference(baseline, side, judge),
            inputs_equal=inputs_equal(baseline, side),
            logits_error=relative_error(baseline.logits, side.logits),
            alone_error=relative_error(baseline.alone.logits, side.alone.logits),
            prefix_errors=[relative_error(a, b) for a, b in zip(ours, theirs, strict=True)],
            position_errors=position_errors(ours, theirs),
            draft_gap=draft_gap(baseline.record, baseline.own_tree, side.record.draft, side.own_tree),
            draft_floor=judge.floors["draft-scores"],
            committed=length_a,
            lengths_equal=length_a == length_b,
            neighbours=side.circumstances.neighbours,
            recordings=self._recordings(baseline, side, partner=partner, judge=judge, case=case),
            unsteady=unsteady(baseline, side),
            notes=notes,
        )

    def _recordings(
        self, baseline: Baseline, side: Side, partner: Aligned | None, judge: FloatJudge, case: Case
    ) -> Recordings:
        number = self._request.place.step
        before = self._a.step(self._entry, number - 1) if number else None
        held = Held(
            a=self._a, b=self._b, step=self._a.step(self._entry, number), before=before, partner=partner, judge=judge
        )
        recordings = held.to(Rerun(baseline.record, baseline.own_tree), Rerun(side.record, side.own_tree))
        return recordings.model_copy(
            update={
                "lacking": [
                    *lacking(self._a.manifest, "baseline", baseline.circumstances, recordings.baseline),
                    *lacking(case.candidate_manifest, "candidate", side.circumstances, recordings.candidate),
                ]
            }
        )

    def _judge(self) -> FloatJudge:
        floors = measured_floors(measure_drift(self._a, self._b), self._a.manifest.teacher.num_layers)
        return FloatJudge.of(floors, self._a.manifest)

    @property
    def _both_draft(self) -> bool:
        return not is_teacher_only(self._a.manifest) and not is_teacher_only(self._b.manifest)

    def _pair(self, a: Step, b: Step, judge: FloatJudge) -> StepPair:
        """Two runs of the step, each after the recorded step before it."""
        number = self._request.place.step
        previous = self._a.step(self._entry, number - 1) if number else None
        steps = RecordedSteps(a, b, previous, previous)
        return StepPair.of(steps, self._a.manifest, self._b.manifest, judge=judge)

    def _first_difference(self, baseline: Baseline, side: Side, judge: FloatJudge) -> Difference | None:
        """By the records of both runs of the step, in the order of the phases."""
        return first_difference(
            self._pair(baseline.record, side.record, judge), [baseline.own_tree, side.own_tree]
        )  # fmt: skip

    def _draft(self, case: Case, baseline: Baseline, side: Side) -> None:
        """Has the candidate draft from the baseline's pairs, and narrows where that does not heal it."""
        compared = self._state.compared
        assert compared is not None
        if not self._both_draft or compared.draft_gap <= compared.draft_floor:
            return
        wanted, fed = baseline.drafted, baseline.fed
        again = redraft(side, fed, baseline.num_earlier, baseline.prefix)
        findings: dict[str, Any] = {}
        if not pairs_equal(fed, side.fed, case.dtype):
            after = draft_gap(baseline.record, baseline.own_tree, again.draft, again.tree)
            findings["draft_graft"] = graft_of(
                "draft pairs", "draft scores", before=compared.draft_gap, after=after, floor=compared.draft_floor
            )  # fmt: skip
        ours, theirs = (baseline.record.model_copy(update={"draft": d.draft}) for d in (wanted, again))
        differing = compare_drafts(self._pair(ours, theirs, self._judge()))
        if any(d.kind not in TIES for d in differing):
            parts = side.lane.trees.parts()
            findings["draft"] = narrow_draft(wanted.calls, again.calls, parts, case.dtype)
        elif "draft_graft" not in findings and _is_of(compared.difference, "draft"):
            findings["draft"] = narrow_in_place(baseline.drafting, side.drafting, case.dtype)
        self._keeper.put(**findings)

    def _teacher(self, case: Case, baseline: Baseline, side: Side, advance: Advance) -> None:
        if baseline.alone.captures and side.alone.captures:
            self._layers(baseline, side, advance)
            self._ends(baseline, side)
            floors, compared = floors_of(case, self._state), self._state.compared
            assert compared is not None
            floor = floors.of_forward
            # What an operation does by itself explains nothing that the forward by itself does not show.
            unexplained = not floors.above or compared.alone_error <= floor
            if unexplained and compared.inputs_equal and compared.logits_error > floor:
                prefix = next((n for n, error in enumerate(compared.prefix_errors) if error > floor), None)
                self._keeper.put(departure=find_departure(baseline.in_place, side.in_place, floor, prefix))

    def _layers(self, baseline: Baseline, side: Side, advance: Advance) -> None:
        parts, given = Parts(side.teacher), moved(baseline.given, side.teacher)
        cache, captures = prefix_cache(side.teacher, baseline.prefix), baseline.alone.captures
        for number in range(parts.num_layers):
            if str(number) in self._state.layers:
                continue
            outputs = run_layer(parts, number, captures=captures, given=given, cache=cache)
            errors = {o.name: relative_error(captures[o].gave, value.gave) for o, value in outputs.items()}
            self._keeper.put(layers={**self._state.layers, str(number): errors})
            advance(f"layer {number}")

    def _ends(self, baseline: Baseline, side: Side) -> None:
        if self._state.ends is not None:
            return
        parts, given = Parts(side.teacher), moved(baseline.given, side.teacher)
        errors, captures = {}, baseline.alone.captures
        for name in (*BEFORE, *BEHIND):
            if Operation(None, name) not in parts.modules:
                continue
            output = run_end(parts, name, captures, given)
            errors[name] = relative_error(captures[Operation(None, name)].gave, output.gave)
        self._keeper.put(ends=errors)

    def _grafts(self, case: Case, baseline: Baseline, side: Side) -> None:
        """Those that the findings ask for; none where nothing differs."""
        state = self._state
        assert state.compared is not None
        grafts = [state.draft_graft] if state.draft_graft is not None else []
        if state.draft is None or state.draft.culprit is None:
            compared, floors = state.compared, floors_of(case, state)
            prefix_differs = max(compared.prefix_errors, default=0.0) > floors.of_forward
            always = ForwardGraft(not compared.inputs_equal, prefix_differs or not compared.lengths_equal)
            above = floors.above if state.departure is None else []
            for graft in forward_grafts(above, always, together=not compared.lengths_equal):
                grafts.append(graft_forward(baseline, side, graft, floors.of_forward))
        self._keeper.put(grafts=grafts)


def _is_of(difference: Difference | None, phase: Phase) -> bool:
    return difference is not None and difference.phase == phase


def _in_batch(manifest: Manifest) -> bool:
    return (manifest.batch_size or 1) > 1


def _fresh(request: BisectRequest) -> State:
    overrides = request.overrides
    settings = [f"{name}={value}" for name, value in sorted(vars(overrides).items()) if value not in (None, False)]
    return State(
        schema=STATE_SCHEMA,
        baseline=digest_file(request.baseline),
        candidate=digest_file(request.candidate),
        turn=request.place.turn,
        step=request.place.step,
        settings=settings,
    )


def _turn_of(reader: TraceReader, place: StepPlace) -> TurnEntry:
    entry = next((turn for turn in reader.turns if turn.turn == place.turn), None)
    if entry is None:
        numbers = f"0..{reader.turns[-1].turn}" if reader.turns else "none"
        raise NoSuchStepError(f"got turn {place.turn}, wanted one of {reader.path}: {numbers}")
    reader.step(entry, place.step)  # refuses a step that is not there
    return entry
