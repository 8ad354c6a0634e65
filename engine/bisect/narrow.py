"""Runs one step of two traces in both configurations, and narrows: phase, layer, operation; then grafts.

One side after the other, so that only one model is loaded at a time: of the baseline's side what is needed is kept on
the host. Each layer of the candidate is then run by itself, and each of its operations fed what the baseline's was fed,
behind the baseline's own keys and values: so an operation that differs does so by itself, and not by what an earlier
layer, the prefill or an earlier step handed on. That the committed keys and values differ is told apart from it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from specscope.engine.bisect.conclusion import Case, conclude, floors_of
from specscope.engine.bisect.floors import coarser, position_errors, relative_error
from specscope.engine.bisect.grafts import (
    Baseline,
    ForwardGraft,
    draft_gap,
    forward_grafts,
    graft_forward,
    graft_pairs,
)
from specscope.engine.bisect.operations import (
    BEFORE,
    BEHIND,
    Captures,
    Operation,
    Parts,
    capture,
    run_end,
    run_layer,
)
from specscope.engine.bisect.report import STATE_SCHEMA, Bisection, Compared, State
from specscope.engine.bisect.sides import Side, moved, prefix_cache, run_side
from specscope.engine.bisect.state import StateKeeper
from specscope.engine.decoding import ForwardInputs
from specscope.engine.digests import digest_file
from specscope.engine.recorded_run import Overrides, StepPlace, check_readable
from specscope.engine.replay import earlier_turns
from specscope.engine.tracing import RUN_ERRORS
from specscope.schemas import Manifest
from specscope.schemas.verdict import TIES, Difference
from specscope.tracer.compare.drafts import compare_trees
from specscope.tracer.compare.judge import FloatJudge
from specscope.tracer.compare.manifests import is_teacher_only
from specscope.tracer.compare.nodes import StepNodes
from specscope.tracer.compare.noise import measure_gaps, measured_floors
from specscope.tracer.compare.phases import compare_steps
from specscope.tracer.compare.steps import StepPair
from specscope.tracer.errors import EngineError, IncomparableError, UsageError
from specscope.tracer.index import TurnEntry
from specscope.tracer.reader import TraceReader

Advance = Callable[[str], None]


@dataclass(frozen=True)
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
        baseline = self._baseline(advance)
        place = (self._entry, self._request.place.step)
        side = run_side(self._a, place, case.candidate_manifest, self._request.overrides, advance)
        _check_alike(baseline, side)
        advance("the candidate's step")
        if self._state.compared is None:
            self._keeper.put(compared=self._compare(baseline, side))
        if baseline.captures:
            self._layers(baseline, side, advance)
            self._ends(baseline, side)
        self._grafts(case, baseline, side)

    def _baseline(self, advance: Advance) -> Baseline:
        """The baseline's side; its models are let go of when this returns."""
        place = (self._entry, self._request.place.step)
        side = run_side(self._a, place, self._a.manifest, self._request.overrides, advance)
        notes: list[str] = list(side.notes)
        captures: Captures = {}
        try:
            captures = capture(Parts(side.teacher), side.given, prefix_cache(side.teacher, side.prefix))
        except UsageError as error:
            notes.append(str(error))
        given = ForwardInputs(*(tensor.cpu() for tensor in side.given))
        advance("the baseline's step")
        return Baseline(side.record, side.own_tree, side.fed, given, side.logits, side.prefix, captures, notes)

    def _compare(self, baseline: Baseline, side: Side) -> Compared:
        given = moved(baseline.given, side.teacher)
        # Infinities of a mask are compared as what they are: seen or not.
        inputs_equal = (
            torch.equal(given.token_ids, side.given.token_ids)
            and torch.equal(given.position_ids, side.given.position_ids)
            and given.mask.shape == side.given.mask.shape
            and torch.equal(given.mask == 0, side.given.mask == 0)
        )
        judge = self._judge()
        lengths = [baseline.prefix.shape[3], side.prefix.shape[3]]
        ours, theirs = (prefix[:, :, :, : min(lengths)] for prefix in (baseline.prefix, side.prefix))
        notes = list(dict.fromkeys([*baseline.notes, *side.notes]))
        if lengths[0] != lengths[1]:
            notes.append(f"the baseline holds {lengths[0]} committed positions, the candidate {lengths[1]}")
        return Compared(
            difference=self._first_difference(baseline, side, judge),
            inputs_equal=inputs_equal,
            logits_error=relative_error(baseline.logits, side.logits),
            prefix_errors=[relative_error(a, b) for a, b in zip(ours, theirs, strict=True)],
            position_errors=position_errors(ours, theirs),
            draft_gap=draft_gap(baseline, side.record.draft, side.own_tree),
            draft_floor=judge.floors["draft-scores"],
            committed=lengths[0],
            lengths_equal=lengths[0] == lengths[1],
            notes=notes,
        )

    def _judge(self) -> FloatJudge:
        dtype = coarser([self._a.manifest.dtype, self._b.manifest.dtype])
        return FloatJudge.of(measured_floors(dtype, measure_gaps(self._a, self._b), "this-pair"), self._a.manifest)

    def _first_difference(self, baseline: Baseline, side: Side, judge: FloatJudge) -> Difference | None:
        """By the records of both runs of the step, in the order of the phases."""
        number = self._request.place.step
        previous = StepNodes(self._a.step(self._entry, number - 1)) if number else None
        trees = not is_teacher_only(self._a.manifest) and not is_teacher_only(self._b.manifest)
        pair = StepPair(StepNodes(baseline.record), StepNodes(side.record), previous, previous, judge, trees)
        found = compare_steps(pair)
        if trees:  # both ran on the recorded tree, whatever their drafters had found
            drafts = [d for d in found if d.phase == "draft"]
            own = [StepNodes(s.record.model_copy(update={"tree": s.own_tree})) for s in (baseline, side)]
            chosen = list(compare_trees(replace(pair, a=own[0], b=own[1]), drafts_equal=not drafts))
            found = drafts + chosen + [d for d in found if d.phase not in ("draft", "tree")]
        return next((d for d in found if d.kind not in TIES), None)

    def _layers(self, baseline: Baseline, side: Side, advance: Advance) -> None:
        parts, given = Parts(side.teacher), moved(baseline.given, side.teacher)
        cache = prefix_cache(side.teacher, baseline.prefix)
        for number in range(parts.num_layers):
            if str(number) in self._state.layers:
                continue
            found = run_layer(parts, number, baseline.captures, given, cache)
            errors = {o.name: relative_error(baseline.captures[o].gave, value.gave) for o, value in found.items()}
            self._keeper.put(layers={**self._state.layers, str(number): errors})
            advance(f"layer {number}")

    def _ends(self, baseline: Baseline, side: Side) -> None:
        if self._state.ends is not None:
            return
        parts, given = Parts(side.teacher), moved(baseline.given, side.teacher)
        errors = {}
        for name in (*BEFORE, *BEHIND):
            own = run_end(parts, name, baseline.captures, given)
            errors[name] = relative_error(baseline.captures[Operation(None, name)].gave, own.gave)
        self._keeper.put(ends=errors)

    def _grafts(self, case: Case, baseline: Baseline, side: Side) -> None:
        """Those that the findings ask for; none where nothing differs."""
        compared = self._state.compared
        assert compared is not None
        floors = floors_of(case, self._state)
        found = []
        both_draft = not (is_teacher_only(self._a.manifest) or is_teacher_only(self._b.manifest))
        if both_draft and compared.draft_gap > compared.draft_floor:
            found.append(graft_pairs(baseline, side, compared.draft_floor))
        prefix_differs = max(compared.prefix_errors, default=0.0) > floors.of_forward
        always = ForwardGraft(not compared.inputs_equal, prefix_differs or not compared.lengths_equal)
        for graft in forward_grafts(floors.above, always, together=not compared.lengths_equal):
            found.append(graft_forward(baseline, side, graft, floors.of_forward))
        self._keeper.put(grafts=found)


def _fresh(request: BisectRequest) -> State:
    said = request.overrides
    settings = [f"{name}={value}" for name, value in sorted(vars(said).items()) if value not in (None, False)]
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
        raise UsageError(f"got turn {place.turn}, wanted one of {reader.path}: {numbers}")
    reader.step(entry, place.step)  # refuses a step that is not there
    return entry


def _check_alike(baseline: Baseline, side: Side) -> None:
    """Refuses teachers of two shapes: no value of one fits into the other."""
    ours, theirs = baseline.prefix.shape, side.prefix.shape
    if ours[:3] != theirs[:3] or ours[4] != theirs[4] or baseline.logits.shape[2] != side.logits.shape[2]:
        raise IncomparableError("the two traces' teachers have other shapes: no layer of one can be held to the other")
