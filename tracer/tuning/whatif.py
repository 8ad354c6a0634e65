"""What another tree would have accepted, from the candidates that a run recorded.

A dynamic tree is the best of its candidates, and greedy acceptance emits the teacher's own choices, whatever tree was
verified. So at every recorded step the accepted length of another budget or a smaller depth is exact: the longest path
of the smaller or larger choice that the run's own output follows. A smaller top-k is exact where every candidate that
it would have fed was fed. What is not exact is the mean over a run: with other accepted lengths it would have stood at
other steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from specscope.schemas import Manifest, Step
from specscope.tracer.files.candidates import Candidate, candidates_of
from specscope.tracer.tuning.intervals import Mean, clusters_of, mean_of


class TreeSetting(NamedTuple):
    """How a tree is chosen from candidates."""

    budget: int  # drafted nodes
    depth: int
    top_k: int


class Outcome(NamedTuple):
    """What one setting would have accepted."""

    setting: TreeSetting
    accepted_length: Mean  # over the recorded steps
    num_exact: int  # of those steps, the ones where every candidate that the setting needs was recorded


def why_not(manifest: Manifest) -> str | None:
    """Why nothing can be told of a run; None where it can."""
    if manifest.level == "lengths":
        return "only lengths were recorded, and no candidates"
    if not manifest.knows("tree_policy.kind"):
        return "how its trees are grown is not known"
    if manifest.tree_policy.kind != "dynamic":
        return f"the trees are {manifest.tree_policy.kind}: only dynamic ones are chosen among candidates"
    if len(manifest.drafter.names) > 1:
        return "several drafters proposed its trees, and only the candidates of one are recorded"
    if manifest.sampling.rule != "greedy":
        return f"acceptance is {manifest.sampling.rule}: only greedy output is the same whatever tree is verified"
    if manifest.replay_of is not None:
        return "it is a replay, whose steps are forced"
    return None


class StepCandidates:
    """The candidates of one step, and what the run went on with.

    Args:
        candidates: all of them, by number.
        fed: numbers of those that a level was fed.
        continuation: tokens from the step on.
    """

    def __init__(self, candidates: Sequence[Candidate], fed: frozenset[int], continuation: Sequence[int]) -> None:
        self._candidates, self._fed, self.continuation = candidates, fed, continuation
        self._order = sorted(candidates, key=lambda at: (-at.score, at.number))
        self._worst: list[int] = []  # by number: the worst rank on the way from the root
        for at in candidates:
            self._worst.append(max(at.rank, self._worst[at.parent.number] if at.parent is not None else 0))
        self._choices: dict[tuple[int, int], _Choice] = {}

    @property
    def size(self) -> int:
        """How many candidates there are."""
        return len(self._candidates)

    def best_tokens(self, count: int) -> list[int]:
        """Tokens of the best ``count`` candidates, best first."""
        return [at.token for at in self._order[:count]]

    def accepted(self, setting: TreeSetting) -> int:
        """The accepted length that ``setting`` would have had here."""
        choice = self._choice(setting)
        place: int | None = None
        length = 0
        for token in self.continuation:
            following = choice.children.get((place, token))
            if following is None or choice.places[following] >= setting.budget:
                break
            place, length = following, length + 1
        return length

    def is_exact(self, setting: TreeSetting) -> bool:
        """Whether every candidate that ``setting`` would have fed was fed."""
        return self._choice(setting).is_exact

    def _choice(self, setting: TreeSetting) -> _Choice:
        key = (setting.depth, setting.top_k)
        if key not in self._choices:
            self._choices[key] = self._chosen(setting)
        return self._choices[key]

    def _chosen(self, setting: TreeSetting) -> _Choice:
        """The candidates in the order in which ``setting`` would choose them."""
        fits = [at for at in self._order if at.level < setting.depth and self._worst[at.number] < setting.top_k]
        needed: set[int] = set()
        for level in range(setting.depth - 1):
            row = [at for at in fits if at.level == level and (at.parent is None or at.parent.number in needed)]
            needed |= {at.number for at in row[: setting.top_k]}
        chosen = [at for at in fits if at.parent is None or at.parent.number in needed]
        return _Choice(
            places={at.number: place for place, at in enumerate(chosen)},
            children={(at.parent_number, at.token): at.number for at in reversed(chosen)},
            is_exact=needed <= self._fed,
        )


class _Choice(NamedTuple):
    """Candidates that one depth and top-k leave."""

    places: dict[int, int]  # by number: the place in the order of choice
    children: dict[tuple[int | None, int], int]  # by the parent's number, None for the root, and token
    is_exact: bool


@dataclass(kw_only=True)
class WhatIf:
    """Settings and what each would have accepted, over the steps that are added."""

    recorded: TreeSetting
    settings: Sequence[TreeSetting]
    lengths: dict[TreeSetting, list[list[int]]] = field(default_factory=dict)  # by turn
    exact: dict[TreeSetting, int] = field(default_factory=dict)
    real: list[list[int]] = field(default_factory=list)  # recorded accepted lengths of the same steps, by turn
    num_rebuilt: int = 0  # steps whose recorded tree is the best of their candidates
    num_left_out: int = 0  # steps without candidates, or too near to the end of their turn

    def add_turn(self, steps: Sequence[Step]) -> None:
        """Adds the steps of one turn, in order."""
        emitted = [step.stop.emitted[: step.stop.kept] if step.stop is not None else [] for step in steps]
        self.real.append([])
        for setting in self.settings:
            self.lengths.setdefault(setting, []).append([])
        for at, step in enumerate(steps):
            continuation = [token for row in emitted[at : at + self.recorded.depth + 1] for token in row]
            candidates = step_candidates(step, continuation)
            if candidates is None or step.accept is None or len(continuation) < self.recorded.depth:
                self.num_left_out += 1
                continue
            self._add(step, candidates)

    def _add(self, step: Step, candidates: StepCandidates) -> None:
        assert step.accept is not None
        assert step.tree is not None
        self.real[-1].append(min(step.accept.accepted_length, len(candidates.continuation)))
        drafted = step.tree.tokens[1:]
        self.num_rebuilt += sorted(candidates.best_tokens(len(drafted))) == sorted(drafted)
        for setting in self.settings:
            self.lengths[setting][-1].append(candidates.accepted(setting))
            self.exact[setting] = self.exact.get(setting, 0) + candidates.is_exact(setting)

    @property
    def real_length(self) -> Mean | None:
        """The recorded accepted length of the same steps."""
        return mean_of(clusters_of(self.real))

    def outcomes(self) -> list[Outcome]:
        """What each setting would have accepted, in the order of ``settings``; empty where no step could be told."""
        outcomes = []
        for setting in self.settings:
            mean = mean_of(clusters_of(self.lengths.get(setting, [])))
            if mean is not None:
                outcomes.append(Outcome(setting, mean, self.exact.get(setting, 0)))
        return outcomes


def step_candidates(step: Step, continuation: Sequence[int]) -> StepCandidates | None:
    """The candidates of ``step``; None where they were not recorded, or do not fit together."""
    levels = step.draft.levels if step.draft is not None else None
    if not levels or step.tree is None:
        return None
    try:
        candidates = candidates_of(levels)
    except ValueError:
        return None
    return StepCandidates(candidates, frozenset(at for level in levels for at in level.frontier), continuation)


def usual_settings(manifest: Manifest, num_candidates: int) -> list[TreeSetting]:
    """The recorded setting, then others that differ from it in one number: budgets by doubling up to all candidates,
    smaller depths, smaller top-k."""
    policy = manifest.tree_policy
    recorded = TreeSetting(policy.budget, policy.depth, policy.top_k)
    budgets = [2**power for power in range(1, 11) if 2**power < num_candidates]
    settings = [recorded]
    settings += [recorded._replace(budget=budget) for budget in sorted({*budgets, policy.budget, num_candidates})]
    settings += [recorded._replace(depth=depth) for depth in range(1, policy.depth)]
    settings += [recorded._replace(top_k=top_k) for top_k in range(1, policy.top_k)]
    return list(dict.fromkeys(settings))
