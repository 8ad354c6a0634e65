"""Around a step's acceptance: the coins that go in, and what comes out, which is the step's one wait for the device."""

from __future__ import annotations

from typing import NamedTuple

import torch

from specscope.engine.accept.greedy import Acceptance
from specscope.engine.accept.sampling import Coins, draw_coins
from specscope.engine.loop.phases import RowAcceptance
from specscope.engine.loop.turns import Turn
from specscope.engine.tree.tensors import TreeTensors


class Outcome(NamedTuple):
    """What one row accepted, and whether its tree passed the check on the device."""

    acceptance: RowAcceptance
    is_sound: bool  # True where the check was done before


def read_outcomes(acceptance: Acceptance, token_ids: torch.Tensor, sound: torch.Tensor | None) -> list[Outcome]:
    """One outcome per row, in a single copy to the host.

    Args:
        acceptance: of all rows; its paths are (B, D).
        token_ids: (B, P) of the slots.
        sound: (B,) bool; None where the trees were checked before the forward.
    """
    depth = acceptance.paths.shape[1]
    checked = torch.ones_like(acceptance.lengths) if sound is None else sound.to(torch.int64)
    scalars = torch.stack([acceptance.lengths, acceptance.bonus_tokens, acceptance.bonus_slots, checked], dim=1)
    tokens = token_ids.gather(1, acceptance.paths)
    packed = torch.cat([scalars, acceptance.paths, tokens], dim=1).tolist()
    outcomes = []
    for length, bonus_token, bonus_slot, is_sound, *rest in packed:
        accepted = RowAcceptance(
            rule=acceptance.rule,
            path=rest[:length],
            tokens=rest[depth : depth + length],
            bonus_token=bonus_token,
            bonus_slot=bonus_slot,
        )
        outcomes.append(Outcome(accepted, bool(is_sound)))
    return outcomes


def row_coins(turn: Turn, tensors: TreeTensors, row: int) -> Coins:
    """A row's own draws, one per slot of its tree and one for the bonus, whatever the step accepts."""
    assert turn.generator is not None
    drawn = draw_coins(turn.generator, tensors.num_slots[row])
    padding = tensors.padded_slots - tensors.num_slots[row]
    return drawn._replace(slots=torch.nn.functional.pad(drawn.slots, (0, padding)))
