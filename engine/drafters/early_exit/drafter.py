"""The early-exit drafter: the teacher's own first layers and an exit head. Nothing is computed twice.

The root and every frontier go through layers 0..E-1 right on the cache that the step is verified on; the exit head
reads the hidden states after them. When the tree stands, the nodes that were never fed (its leaves) follow, and those
layers' tails are put into the order of the slots. The verify forward then takes the hidden states and runs the other
layers alone, so that each slot passes each layer once. The drafter has no cache: its pairs are only counted.

Elhoushi et al. 2024, LayerSkip, drafts chains this way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.digests import digest_file
from specscope.engine.drafters.base import Draft, DraftPairs, PairCounter, SharedLayers, nothing_drafted, pending_tokens
from specscope.engine.drafters.draws import DraftSampler
from specscope.engine.drafters.early_exit.head import CONFIG_NAME, WEIGHTS_NAME, ExitHeadFiles
from specscope.engine.drafters.growing import ScoredRoots, grow_draft
from specscope.engine.host import sent
from specscope.engine.teacher.model import Teacher
from specscope.engine.teacher.parts import named_parts
from specscope.engine.tree.grow import DraftTree, Frontier, Level, selected_numbers
from specscope.engine.tree.policy import TreePolicy
from specscope.engine.tree.tensors import ancestor_table, causal_mask, mask_behind, visible_from_ancestors
from specscope.schemas import Drafter as DrafterManifest
from specscope.tracer.errors import CheckpointError, UnsupportedModelError


def check_fits(files: ExitHeadFiles, teacher: Teacher) -> None:
    """Refuses a head that was made for another teacher.

    Raises:
        CheckpointError: naming both shapes.
    """
    shape = files.head.config
    if (shape.hidden_size, shape.vocab_size) != (teacher.hidden_size, teacher.vocab_size):
        raise CheckpointError(
            f"the exit head at {files.folder} does not fit {teacher.folder}: it reads {shape.hidden_size} wide states "
            f"and gives {shape.vocab_size} ids, the teacher has {teacher.hidden_size} and {teacher.vocab_size}; give "
            "the head that was trained for this teacher"
        )
    if not shape.exit_layer < teacher.num_layers:
        raise CheckpointError(
            f"the exit head at {files.folder} leaves after layer {shape.exit_layer}, wanted 1 to "
            f"{teacher.num_layers - 1}, as the teacher has {teacher.num_layers}; give the head that was trained for it"
        )


@torch.inference_mode()
def check_layers_run_apart(teacher: Teacher) -> None:
    """Refuses a teacher whose forward is not its embedding, its layers one after another and its head.

    Some architectures scale embeddings or logits, or call their parts by other names.

    Raises:
        UnsupportedModelError: where it is another.
    """
    ids = torch.tensor([[1, 0, 1]], device=teacher.device)
    positions = torch.arange(3, device=teacher.device)[None]
    mask = causal_mask(3, 0, teacher.dtype, teacher.device)
    whole = teacher.forward(ids, positions, mask, cache=teacher.new_cache(), feature_layers=()).logits
    try:
        layers = range(teacher.num_layers)
        hidden = teacher.run_layers(teacher.embedding(ids), positions, mask, cache=teacher.new_cache(), layers=layers)
        same = torch.allclose(teacher.head(hidden), whole, rtol=1e-2, atol=1e-2)
    except (AttributeError, TypeError):
        same = False
    if not same:
        raise UnsupportedModelError(
            f"{teacher.folder} ({type(teacher.model).__name__}) cannot draft by early exit: its layers, run one by "
            "one, do not give its own logits; choose another drafter"
        )


class EarlyExitDrafter(PairCounter):
    """Proposes trees with the teacher's first layers and an exit head.

    Args:
        teacher: the very teacher that verifies.
        files: the exit head.
        policy: how trees are grown.
        sampler: draws the proposals; None for the best ones.

    Letters: B rows of the batch, N slots, R frontier rows, F rows fed, H hidden, V vocabulary.
    """

    feature_layers: tuple[int, ...] = ()

    def __init__(
        self, teacher: Teacher, files: ExitHeadFiles, policy: TreePolicy, sampler: DraftSampler | None = None
    ) -> None:
        super().__init__()
        check_fits(files, teacher)
        check_layers_run_apart(teacher)
        self.policy = policy
        self._teacher = teacher
        self._files = files
        self._head = files.head.to(device=teacher.device, dtype=teacher.dtype)
        self._sampler = sampler
        self.module = self._head

    def parts(self) -> dict[str, nn.Module]:
        """Those of the teacher's first layers, the exit head, and the output head that it borrows."""
        layers = named_parts(self._teacher, range(self._head.config.exit_layer))
        scores = layers.pop("output head")
        return {**layers, "exit head": self._head, "output head": scores}

    def manifest(self) -> DrafterManifest:
        """Kind early-exit, with the head's digests and where it leaves the teacher."""
        folder = self._files.folder
        return DrafterManifest(
            kind="early-exit",
            name=folder.name,
            config_digest=digest_file(folder / CONFIG_NAME),
            weights_digest=digest_file(folder / WEIGHTS_NAME),
            settings={"exit_layer": self._head.config.exit_layer},
        )

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        """Grows a tree under each pending token, and leaves its slots in the tail of the layers it ran."""
        before = self.num_pairs
        self.count(pairs)
        if self.policy.kind == "none":
            return nothing_drafted(pairs, before, self.num_pairs)
        after, tokens = self.num_pairs, pending_tokens(pairs)[:, None]
        fed = _FirstLayers(self._teacher, self._head.config.exit_layer, branch)
        positions = sent(after, tokens.device)[:, None] - 1
        sees_root = torch.ones(len(pairs), 1, 1, dtype=torch.bool, device=tokens.device)
        logits = self._logits(fed.feed(tokens, torch.zeros_like(positions), sees_root))
        roots = ScoredRoots(pairs=pairs, logits=logits, positions=positions, kv_before=before, kv_after=after)

        def expand(frontier: Frontier) -> torch.Tensor:
            seen = torch.cat([sees_root.expand(-1, frontier.seen.shape[1], -1), frontier.seen], dim=2)
            return self._logits(fed.feed(frontier.tokens, frontier.positions - positions, seen))

        draft = grow_draft(self.policy, roots, expand, sampler=self._sampler, generators=generators)
        assert draft.levels is not None
        shared = fed.finish(draft.tree, _find_fed(draft.levels, self.policy), self.policy.depth)
        return replace(draft, shared=shared)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, R, V) of ``hidden`` (B, R, H) after the layers that are run."""
        logits: torch.Tensor = self._teacher.output_head(self._head(hidden))
        return logits


class _Places(NamedTuple):
    """Where the selected nodes, slots 1..M, were fed."""

    was_fed: torch.Tensor  # (B, M) bool
    places: torch.Tensor  # (B, M) of the tail, where they were
    most_left: int  # nodes of a row that were not fed, at most


def _find_fed(levels: list[Level], policy: TreePolicy) -> _Places:
    selected = selected_numbers(levels, policy)  # (B, M)
    frontiers = torch.cat([level.frontier for level in levels], dim=1)  # (B, F - 1), in the order of feeding
    matches = selected[:, :, None] == frontiers[:, None, :]
    was_fed = matches.any(dim=2)
    # All that a fixed tree feeds is selected: what is left is known without asking the device.
    fixed_left = selected.shape[1] - frontiers.shape[1]
    most_left = fixed_left if policy.is_fixed else int((~was_fed).sum(dim=1).max())
    numbers = torch.arange(1, frontiers.shape[1] + 1, device=selected.device)  # place 0 is the root's
    return _Places(was_fed, (matches * numbers).sum(dim=2), most_left)


class _FirstLayers:
    """One step's rows on their way through the teacher's first layers, in the order in which they are fed."""

    def __init__(self, teacher: Teacher, num_layers: int, branch: TreeCache) -> None:
        self._teacher, self._num_layers, self._branch = teacher, num_layers, branch
        self._hidden: list[torch.Tensor] = []  # a feed each, (B, R, H)

    def feed(self, tokens: torch.Tensor, depths: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """The hidden states (B, R, H) of ``tokens`` at ``depths`` (B, R), which see ``seen`` (B, R, F) of the rows fed
        so far, these included."""
        lengths = self._branch.committed_lengths
        positions = sent(lengths, tokens.device)[:, None] + depths
        mask = mask_behind(lengths, seen, self._teacher.dtype)
        embedded = self._teacher.embedding(tokens)
        hidden = self._teacher.run_layers(embedded, positions, mask, cache=self._branch, layers=range(self._num_layers))
        self._hidden.append(hidden)
        return hidden

    def finish(self, tree: DraftTree, fed: _Places, max_depth: int) -> SharedLayers:
        """Feeds the nodes that were not, and puts the tail into the order of the slots."""
        first = sum(hidden.shape[1] for hidden in self._hidden)
        places = torch.where(fed.was_fed, fed.places, first + (~fed.was_fed).cumsum(dim=1) - 1)
        places = torch.nn.functional.pad(places, (1, 0))  # (B, N) with the root's
        if fed.most_left:
            # A row with fewer of them takes others along; what they pass a second time is dropped.
            slots = 1 + fed.was_fed.to(torch.int8).argsort(dim=1, stable=True)[:, : fed.most_left]  # (B, R)
            ancestors = ancestor_table(tree.parents, max_depth)
            visible = visible_from_ancestors(ancestors, torch.ones_like(tree.parents, dtype=torch.bool))
            ancestors_of = visible.gather(1, slots[:, :, None].expand_as(visible[:, : slots.shape[1]]))  # (B, R, N)
            seen = ancestors_of.new_zeros(*slots.shape, first + slots.shape[1])
            seen.scatter_(2, places[:, None].expand_as(ancestors_of), ancestors_of)
            self.feed(tree.tokens.gather(1, slots), tree.depths.gather(1, slots), seen)
        self._branch.arrange_tail(self._num_layers, places)
        hidden = torch.cat(self._hidden, dim=1)
        ordered = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))
        return SharedLayers(self._num_layers, ordered)
