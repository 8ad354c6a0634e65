"""Nodes across runs: path keys instead of slots, so that two runs may number the same tree differently."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from specscope.schemas import DraftLevel, Step
from specscope.tracer.compare.roundings import LEAST_SIZE, STATED_SIZE, spacing
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


_NOTHING = Proposal(0.0, 0.0, 0.0, 0.0, 0.0)


class StepNodes:
    """A step whose slots are addressed by path key."""

    def __init__(self, step: Step) -> None:
        self.step = step

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
    def proposals(self) -> dict[PathKey, Proposal]:
        """Every candidate that the drafter proposed, in order; none where it has no levels. Of equal siblings the last
        counts."""
        draft = self.step.draft
        if draft is None:
            return {}
        numbered: list[PathKey] = []
        found: dict[PathKey, Proposal] = {}
        for level in draft.levels or []:
            rows = [numbered[n] if 0 <= n < len(numbered) else ROOT for n in level.frontier] or [ROOT]
            width = max(1, len(level.tokens) // len(rows))
            proposed = []
            for at, (token, logprob) in enumerate(zip(level.tokens, level.logprobs, strict=False)):
                row = min(at // width, len(rows) - 1)
                key = (*rows[row], (token, 0))
                proposed.append(key)
                found[key] = self._proposal(level, at, row, logprob, found.get(rows[row], _NOTHING))
            numbered += proposed
        return found

    @cached_property
    def proposed_below(self) -> dict[PathKey, dict[PathKey, Proposal]]:
        """The candidates under each row that proposed, in order."""
        found: dict[PathKey, dict[PathKey, Proposal]] = {}
        for key, proposal in self.proposals.items():
            found.setdefault(key[:-1], {})[key] = proposal
        return found

    def _proposal(self, level: DraftLevel, at: int, row: int, logprob: float, above: Proposal) -> Proposal:
        totals, perturbed = level.logsumexp, level.perturbed
        known = totals is not None and row < len(totals)
        total = totals[row] if known and totals is not None else self._usual_logit
        size = max(abs(total), abs(total + logprob)) if known else abs(total)
        ranked = perturbed[at] if perturbed is not None and at < len(perturbed) else None
        score = above.score + logprob
        return Proposal(score, logprob, size, above.grain + spacing(size), score if ranked is None else ranked)

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
        """Per level, the keys of the candidates that were fed."""
        draft = self.step.draft
        if draft is None:
            return []
        numbered: list[PathKey] = []
        frontiers = []
        for level in draft.levels or []:
            rows = [numbered[n] if 0 <= n < len(numbered) else ROOT for n in level.frontier] or [ROOT]
            frontiers.append(rows)
            width = max(1, len(level.tokens) // len(rows))
            numbered += [(*rows[min(at // width, len(rows) - 1)], (token, 0)) for at, token in enumerate(level.tokens)]
        return frontiers
