"""Nodes across runs: path keys instead of slots, so that two runs may number the same tree differently."""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

from specscope.schemas import DraftLevel, Step, TreeSection
from specscope.tracer.compare.roundings import LEAST_SIZE, STATED_SIZE, spacing
from specscope.tracer.files.candidates import Candidate, CandidateRow, candidates_of, rows_of
from specscope.tracer.oracle.invariants.proposers import outside_levels
from specscope.tracer.oracle.invariants.structure import columns

#: Tokens from below the root to the node, each with its rank among equal siblings (0 in an honest tree).
PathKey = tuple[tuple[int, int], ...]
ROOT: PathKey = ()


def key_tokens(key: PathKey) -> list[int]:
    """The tokens of a path key."""
    return [token for token, _ in key]


class Proposal(NamedTuple):
    """A candidate of the drafter."""

    score: float  # sum of log-probabilities from the root
    logprob: float  # given its parent
    size: float  # of the logits that the log-probability was made of
    grain: float  # spacing of those logits, summed from the root
    ranked: (
        float  # what its siblings were ranked by: the score, or where they were drawn, the perturbed log-probability
    )


class RowLists(NamedTuple):
    """What a row proposed, as the lists of its level have it: no token twice."""

    tokens: list[int]
    logprobs: list[float]
    logsumexp: float | None  # of the logits that they were made of


class StepNodes:
    """A step whose slots are addressed by path key."""

    def __init__(self, step: Step, levels_by: str | None = None) -> None:
        self.step = step
        self._levels_by = levels_by  # the drafter whose levels are recorded, where it is one of several

    def with_tree(self, tree: TreeSection) -> StepNodes:
        """The same step with another tree."""
        return StepNodes(self.step.model_copy(update={"tree": tree}), self._levels_by)

    @cached_property
    def keys(self) -> list[PathKey]:
        """Per slot, its path key."""
        tree = self.step.tree
        if tree is None:
            return []
        keys: list[PathKey] = [ROOT]
        ranks: dict[tuple[PathKey, int], int] = {}
        for slot in range(1, len(tree.tokens)):
            parent = tree.parents[slot] if slot < len(tree.parents) else len(tree.tokens)  # none: no slot either
            above = keys[parent] if 0 <= parent < slot else ((parent, 1),)  # no slot: keep it apart from all others
            token = tree.tokens[slot]
            rank = ranks[above, token] = ranks.get((above, token), -1) + 1
            keys.append((*above, (token, rank)))
        return keys

    @cached_property
    def slots(self) -> dict[PathKey, int]:
        """Path key to slot."""
        return {key: slot for slot, key in enumerate(self.keys)}

    @property
    def num_slots(self) -> int:
        """Real slots, the root included; 0 where the tree is not recorded."""
        return 0 if self.step.tree is None else max(1, len(self.step.tree.tokens))

    @cached_property
    def outside_levels(self) -> set[PathKey]:
        """Nodes that the drafter of the levels did not propose, but another one did."""
        return {self.keys[slot] for slot in outside_levels(self.step.tree, self._levels_by) if slot < len(self.keys)}

    def kept_score(self, key: PathKey) -> float | None:
        """A node's score, by which it was kept: where several drafters propose, the best that they give it. None where
        it was not recorded."""
        tree, slot = self.step.tree, self.slots[key]
        if self._levels_by is not None and tree is not None and tree.scores is not None and slot < len(tree.scores):
            return tree.scores[slot]
        return self.proposals[key].score if key in self.proposals else None

    def key_of(self, slot: int) -> PathKey | None:
        """The key of ``slot``; None where there is no such slot."""
        return self.keys[slot] if 0 <= slot < len(self.keys) else None

    @cached_property
    def visible(self) -> dict[PathKey, frozenset[PathKey | int]]:
        """Per real slot, the keys of the slots that it sees; a padding column stands as its number."""
        tensors = self.step.tensors
        if tensors is None:
            return {}
        rows = {}
        for key, text in zip(self.keys, tensors.mask_rows, strict=False):
            row = int.from_bytes(bytes.fromhex(text), "little")
            rows[key] = frozenset(self.keys[c] if c < len(self.keys) else c for c in columns(row))
        return rows

    @cached_property
    def numbered(self) -> list[Candidate]:
        """What the drafter proposed; none where its levels were not recorded, or are malformed."""
        return candidates_of(self._levels)

    @cached_property
    def _levels(self) -> list[DraftLevel]:
        """The drafter's; none where they were not recorded, or are malformed."""
        return [] if self.rows is None or self.step.draft is None else self.step.draft.levels or []

    @cached_property
    def rows(self) -> list[CandidateRow] | None:
        """What each row proposed; None where the levels are malformed."""
        levels = self.step.draft.levels if self.step.draft is not None else None
        try:
            return rows_of(levels or [])
        except ValueError:
            return None  # the oracle says what is wrong with them

    @cached_property
    def _candidate_keys(self) -> list[PathKey]:
        """Per candidate, its path key."""
        keys: list[PathKey] = []
        for row in self.rows or []:
            above = ROOT if row.parent is None else keys[row.parent]
            keys += [(*above, (token, 0)) for token in self._levels[row.level].tokens[row.start : row.stop]]
        return keys

    @cached_property
    def row_lists(self) -> dict[PathKey, RowLists]:
        """Per row that proposed, by the key of what it was fed, its lists. None at all where some row proposed a token
        twice, or one was fed twice: a key then stands for several candidates, and ``proposals`` says which counts."""
        rows: dict[PathKey, RowLists] = {}
        for row in self.rows or []:
            level = self._levels[row.level]
            tokens, totals = level.tokens[row.start : row.stop], level.logsumexp or []
            key = ROOT if row.parent is None else self._candidate_keys[row.parent]
            if key in rows or len(set(tokens)) != len(tokens):
                return {}
            total = totals[row.row] if row.row < len(totals) else None
            rows[key] = RowLists(tokens, level.logprobs[row.start : row.stop], total)
        return rows

    @cached_property
    def proposals(self) -> dict[PathKey, Proposal]:
        """Every candidate that the drafter proposed, in order; none where it has no levels. Of equal siblings the last
        counts."""
        proposals: list[Proposal] = []
        for candidate in self.numbered:
            above = 0.0 if candidate.parent is None else proposals[candidate.parent.number].grain
            proposals.append(self._proposal(candidate, above))
        return dict(zip(self._candidate_keys, proposals, strict=True))

    @cached_property
    def proposed_below(self) -> dict[PathKey, dict[PathKey, Proposal]]:
        """The candidates under each row that proposed, in order."""
        rows: dict[PathKey, dict[PathKey, Proposal]] = {}
        for key, proposal in self.proposals.items():
            rows.setdefault(key[:-1], {})[key] = proposal
        return rows

    def _proposal(self, candidate: Candidate, grain_above: float) -> Proposal:
        assert self.step.draft is not None
        assert self.step.draft.levels is not None
        level = self.step.draft.levels[candidate.level]
        size = self._size(candidate, level.logsumexp or [])
        perturbed = level.perturbed or []
        return Proposal(
            score=candidate.score,
            logprob=candidate.logprob,
            size=size,
            grain=grain_above + spacing(size),
            ranked=perturbed[candidate.entry] if candidate.entry < len(perturbed) else candidate.score,
        )

    def _size(self, candidate: Candidate, totals: list[float]) -> float:
        """Of the logits that the log-probability was made of; ``totals`` are their logsumexps, per row."""
        total = totals[candidate.row] if candidate.row < len(totals) else None
        return self.logit_size(total, candidate.logprob)

    def logit_size(self, logsumexp: float | None, logprob: float) -> float:
        """Of the logits that a log-probability was made of."""
        return abs(self._usual_logit) if logsumexp is None else max(abs(logsumexp), abs(logsumexp + logprob))

    def logit_sizes(self, level: DraftLevel, widths: list[int]) -> list[float]:
        """``logit_size`` of all that a level proposed; ``widths`` (R,) are how many its rows did."""
        totals = (level.logsumexp or [])[: len(widths)]
        of_each = [total for total, width in zip(totals, widths, strict=False) for _ in range(width)]
        # What is asked first holds of nearly all, and the sum is then no larger than the total.
        sizes = [
            total if total >= 0.0 and x <= 0.0 and -total <= total + x else max(abs(total), abs(total + x))
            for total, x in zip(of_each, level.logprobs, strict=False)
        ]
        return sizes + [abs(self._usual_logit)] * (len(level.logprobs) - len(sizes))

    def least_in_level(self, level: DraftLevel, num_rows: int) -> float:
        """None of the logits of a level is smaller, as ``logit_sizes`` has it; not finite where one of their sums is
        not."""
        totals = level.logsumexp or []
        if not math.isfinite(sum(totals)):
            return math.inf
        known = [abs(total) for total in totals]
        return min(known if len(known) >= num_rows else [*known, abs(self._usual_logit)])

    def least_logit_size(self, row: RowLists) -> float:
        """None of the logits of a row is smaller, as ``logit_size`` has it."""
        return abs(self._usual_logit) if row.logsumexp is None else abs(row.logsumexp)

    @cached_property
    def _usual_logit(self) -> float:
        """The size of the teacher's logits at the root: it stands in for the drafter's where those are not known."""
        verify = self.step.verify
        best = verify.best_logits(0)[:1] if verify is not None and verify.top_logits else []
        return max(abs(best[0]), LEAST_SIZE) if best else STATED_SIZE

    @cached_property
    def candidates(self) -> dict[PathKey, float]:
        """Every candidate that the drafter proposed, with its cumulative score; none where it has no levels."""
        return {key: proposal.score for key, proposal in self.proposals.items()}

    @cached_property
    def frontiers(self) -> list[list[PathKey]]:
        """Per level, the keys of the candidates that were fed; the root at the first, and at all malformed ones."""
        levels = self.step.draft.levels if self.step.draft is not None else None
        keys = self._candidate_keys
        fed = ([keys[number] for number in level.frontier if 0 <= number < len(keys)] for level in levels or [])
        return [rows or [ROOT] for rows in fed]


def numbered_alike(a: StepNodes, b: StepNodes) -> bool:
    """Whether a slot stands for the same node in both steps. Nearly always the lists tell, and no key is made."""
    ours, theirs = a.step.tree, b.step.tree
    if ours is not None and theirs is not None and ours.tokens[1:] == theirs.tokens[1:]:
        return ours.parents[1:] == theirs.parents[1:] or a.keys == b.keys
    return a.keys == b.keys


def fed_in_same_slots(a: StepNodes, b: StepNodes) -> bool:
    """Whether two steps fed the same nodes in the same slots, with the same ids, positions and mask: most do, and then
    no node need be looked at. False where a list is too short to tell."""
    ours, theirs = a.step.tensors, b.step.tensors
    if ours is None or theirs is None or not numbered_alike(a, b):
        return False
    lists = (
        (ours.token_ids, theirs.token_ids),
        (ours.positions, theirs.positions),
        (ours.prefix_visible, theirs.prefix_visible),
        (ours.mask_rows, theirs.mask_rows),
    )
    return all(len(left) >= a.num_slots and left == right for left, right in lists)
