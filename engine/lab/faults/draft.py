"""Faults of the draft phase, F01 to F11: what the drafter is fed, its positions, its cache, its scores.

They leave greedy text as it is and cost accepted length. Damaged checkpoints are in ``checkpoints``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Drafter, DrafterProxy, DraftPairs
from specscope.engine.lab.faults.base import Expectation, Fault, FaultTarget, Places
from specscope.engine.loop.phases import HandOver


class OtherFeatures(DrafterProxy):
    """A drafter that gets the features of other layers than its manifest names."""

    def __init__(self, inner: Drafter, layers: tuple[int, ...]) -> None:
        super().__init__(inner)
        self._layers = layers

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The other layers."""
        return self._layers


def _with_layers(target: FaultTarget, layers: tuple[int, ...]) -> FaultTarget:
    return target.with_drafter(OtherFeatures(target.models.drafter, layers))


def _changing_pairs(target: FaultTarget, change: Callable[[HandOver, DraftPairs], DraftPairs]) -> FaultTarget:
    honest = target.phases.pairs
    return target.with_phases(pairs=lambda committed: change(committed, honest(committed)))


def _layer_off_by_one(target: FaultTarget) -> FaultTarget:
    low, mid, high = target.eagle3.feature_layers
    return _with_layers(target, (low, mid + 1, high))


def _two_layers(target: FaultTarget) -> FaultTarget:
    low, mid, _ = target.eagle3.feature_layers

    def pad(committed: HandOver, pairs: DraftPairs) -> DraftPairs:
        width = pairs.features.shape[-1] // 2
        return replace(pairs, features=torch.nn.functional.pad(pairs.features, (0, width)))

    return _with_layers(_changing_pairs(target, pad), (low, mid))


def _swapped(target: FaultTarget) -> FaultTarget:
    def swap(committed: HandOver, pairs: DraftPairs) -> DraftPairs:
        low, mid, high = pairs.features.chunk(3, dim=-1)
        return replace(pairs, features=torch.cat([high, mid, low], dim=-1))

    return _changing_pairs(target, swap)


def _without_fc(target: FaultTarget) -> FaultTarget:
    def middle(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return inputs[0].chunk(3, dim=-1)[1]

    target.eagle3.head.fc.register_forward_hook(middle)
    return target


def _normed_output_fed(target: FaultTarget) -> FaultTarget:
    head = target.eagle3.head
    head.config = replace(head.config, norm_output=not head.config.norm_output)
    return target


def _first_rows(target: FaultTarget) -> FaultTarget:
    honest = target.phases.pairs

    def pairs(committed: HandOver) -> DraftPairs:
        return honest(committed._replace(source_rows=list(range(len(committed.source_rows)))))

    return target.with_phases(pairs=pairs)


def _unshifted_prompt(target: FaultTarget) -> FaultTarget:
    honest = target.phases.pairs

    def pairs(committed: HandOver) -> DraftPairs:
        tokens = committed.tokens
        if committed.phase == "prefill" and len(tokens) > 1:
            # Each hidden state with its own token, not with the next one; the pending token is fed as it must be.
            tokens = [tokens[0], *tokens[:-2], tokens[-1]]
        return honest(committed._replace(tokens=tokens))

    return target.with_phases(pairs=pairs)


def _offsets_as_ids(target: FaultTarget) -> FaultTarget:
    d2t = target.eagle3.head.d2t
    d2t -= torch.arange(len(d2t), device=d2t.device)
    return target


def _clamped(target: FaultTarget) -> FaultTarget:
    drafter = target.eagle3
    last = (drafter.head.config.max_positions or 1) - 1 - drafter.policy.depth
    honest = drafter.place
    drafter.place = lambda indices, level: honest(indices, level).clamp(max=last)
    return target


def _one_further(target: FaultTarget) -> FaultTarget:
    drafter = target.eagle3
    honest = drafter.place
    drafter.place = lambda indices, level: honest(indices, level) + (1 if level else 0)
    return target


def _tree_kept(target: FaultTarget) -> FaultTarget:
    def keep(cache: TreeCache) -> None:
        cache.commit_length([cache.tail_length] * cache.num_rows)

    target.eagle3.forget = keep
    return target


def _one_pair_trimmed(target: FaultTarget) -> FaultTarget:
    def trim(cache: TreeCache) -> None:
        cache.drop_tail()
        for row, length in enumerate(list(cache.committed_lengths)):
            cache.truncate(row, max(0, length - 1))

    target.eagle3.forget = trim
    return target


def _first_row_becomes(value: Callable[[torch.Tensor], torch.Tensor], target: FaultTarget) -> FaultTarget:
    def spoil(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        spoilt = output.clone()
        spoilt[..., 0, :] = value(spoilt[..., 0, :])
        return spoilt

    target.eagle3.head.lm_head.register_forward_hook(spoil)
    return target


def _nan_row(target: FaultTarget) -> FaultTarget:
    return _first_row_becomes(lambda row: torch.full_like(row, torch.nan), target)


def _nan_hidden(target: FaultTarget) -> FaultTarget:
    return _first_row_becomes(lambda row: torch.nan_to_num(torch.full_like(row, torch.nan)), target)


_PAIRS_FED = "draft.features-are-committed"
_LEVELS: Places = (("draft", "levels["),)

DRAFT_FAULTS: tuple[Fault, ...] = (
    Fault(
        id="F01.off-by-one",
        says="the middle features are those of the next layer",
        expect=Expectation(places=(("draft", "inputs.hidden_"),), invariant="verify.feature-layers"),
        inject=_layer_off_by_one,
        into_eagle3=True,
    ),
    Fault(
        id="F01.count",
        says="the features of two layers are captured, the third's place is empty",
        expect=Expectation(places=(("draft", "inputs.hidden_"),), invariant="verify.feature-layers"),
        inject=_two_layers,
        into_eagle3=True,
    ),
    Fault(
        id="F02.swapped",
        says="low and high features change places",
        expect=Expectation(places=(("draft", "inputs.hidden_"), *_LEVELS), invariant=_PAIRS_FED),
        inject=_swapped,
        into_eagle3=True,
    ),
    Fault(
        id="F02.no-fc",
        says="the three features are not projected: the middle one is fed",
        expect=Expectation(places=(("draft", "levels[1]"),)),
        inject=_without_fc,
        into_eagle3=True,
    ),
    Fault(
        id="F03",
        says="the normed hidden state is fed back where the plain one is meant",
        expect=Expectation(places=(("draft", "levels[2]"),)),
        inject=_normed_output_fed,
        into_eagle3=True,
    ),
    Fault(
        id="F04",
        says="the features of the first slots are taken for those of the accepted path",
        expect=Expectation(places=(("draft", "inputs.source_rows"),), invariant="draft.source-rows"),
        inject=_first_rows,
        into_eagle3=True,
    ),
    Fault(
        id="F05.prompt",
        says="the prompt's hidden states are paired with their own tokens, not with the next ones",
        expect=Expectation(places=(("draft", "inputs.tokens"),), invariant="draft.pair-tokens"),
        inject=_unshifted_prompt,
        into_eagle3=True,
    ),
    Fault(
        id="F06.absolute",
        says="the draft vocabulary's offsets are taken for the teacher's ids",
        expect=Expectation(places=(("draft", "levels[1]"), ("tree", "nodes")), invariant="tree.siblings-distinct"),
        inject=_offsets_as_ids,
        into_eagle3=True,
    ),
    Fault(
        id="F08.clamp",
        says="drafter positions are cut to the last one behind which a whole tree fits",
        expect=Expectation(places=(("draft", "levels["), ("draft", "inputs.positions")), invariant="draft.positions"),
        scenario="near-max",
        inject=_clamped,
        into_eagle3=True,
    ),
    Fault(
        id="F09",
        says="drafter positions of the tree are one too far",
        expect=Expectation(places=(("draft", "levels[2].positions"),), invariant="draft.positions"),
        inject=_one_further,
        into_eagle3=True,
    ),
    Fault(
        id="F10.kept",
        says="the tree's entries stay in the drafter's cache",
        expect=Expectation(places=(("commit", "drafter_after"),), invariant="commit.drafter-length"),
        inject=_tree_kept,
        into_eagle3=True,
    ),
    Fault(
        id="F10.trimmed",
        says="one committed pair goes with the tree's entries",
        expect=Expectation(places=(("commit", "drafter_after"),), invariant="commit.drafter-length"),
        inject=_one_pair_trimmed,
        into_eagle3=True,
    ),
    Fault(
        id="F11.nan",
        says="the draft scores of a row are not numbers",
        expect=Expectation(places=_LEVELS, invariant="draft.scores-finite"),
        inject=_nan_row,
        into_eagle3=True,
    ),
    Fault(
        id="F11.hidden",
        says="they are replaced by 0 before anyone looks",
        expect=Expectation(places=_LEVELS),
        inject=_nan_hidden,
        into_eagle3=True,
    ),
)
