"""What is recorded of a token that was drawn: the bonus token, and the first of a turn."""

from __future__ import annotations

from specscope.schemas import BonusDraw, Trial
from specscope.tracer.oracle.invariants.base import Context, present, promises
from specscope.tracer.oracle.invariants.blocks import bonus_bounds
from specscope.tracer.oracle.invariants.probabilities import ROUNDING, TOLERANCE, Bounds, prob_of_logit, teacher_bounds
from specscope.tracer.oracle.invariants.trials import LEAST_LEFT, is_point_mass


def draw_problem(draw: BonusDraw) -> str | None:
    """What is wrong with a draw by itself."""
    if not 0 <= draw.coin < 1:
        return f"coin {draw.coin:.9g}, wanted one in [0, 1)"
    if not 0 <= draw.low < draw.high <= 1 + ROUNDING:
        return f"its share lies from {draw.low:.9g} to {draw.high:.9g}"
    if not draw.low - ROUNDING <= draw.coin < draw.high + ROUNDING:
        return f"coin {draw.coin:.9g} lies outside its share, {draw.low:.9g} to {draw.high:.9g}"
    return None


def bonus_problem(c: Context) -> str | None:
    """What is wrong with a bonus token that was drawn; that it was read at the right slot is known."""
    accept, vocab_size = present(c.step.accept), c.manifest.teacher.vocab_size
    if accept.bonus_draw is None:
        return "it was drawn, and no draw was recorded"
    if not 0 <= accept.bonus_token < vocab_size:
        return f"token {accept.bonus_token}, wanted 0..{vocab_size - 1}"
    problem = draw_problem(accept.bonus_draw)
    if problem is not None:
        return problem
    trials = next((visit.trials or [] for visit in accept.visited or [] if visit.slot == accept.bonus_slot), [])
    if accept.rule in ("sampling", "block") and c.step.tree is not None:
        tokens = c.step.tree.tokens
        # A threshold of 0 may also mean that the child was not tried at all, and left its token behind.
        gone = [t.slot for t in trials if tokens[t.slot] == accept.bonus_token and 0 < t.threshold < 1 - ROUNDING]
        if gone:
            return f"token {accept.bonus_token} was drawn although slot {gone[0]}, the same token, was rejected"
    return _share_problem(c, trials, accept.bonus_draw)


def _bonus_prob(c: Context, draw: BonusDraw) -> Bounds:
    """Where the teacher's probability of the bonus token lies: by its own logit and what was cut off at its slot, where
    they are recorded, else by the best logits there."""
    accept = present(c.step.accept)
    cut = next((visit.cut for visit in accept.visited or () if visit.slot == accept.bonus_slot), None)
    if draw.logit is not None and cut is not None:
        return prob_of_logit(c.manifest.sampling, draw.logit, cut)
    return teacher_bounds(c, accept.bonus_slot, accept.bonus_token)


def _share_problem(c: Context, trials: list[Trial], draw: BonusDraw) -> str | None:
    """The share beside the teacher's probability, less what the rejected children took."""
    accept = present(c.step.accept)
    taken = 0.0
    untold = not promises(c.manifest, "accept") and all(visit.trials is None for visit in accept.visited or ())
    if accept.rule in ("sampling", "block") and (accept.visited is None or untold):
        return None  # what was taken is not recorded
    if accept.rule == "sampling" and trials:
        if not is_point_mass(c, trials):
            return None  # what draws leave is not recorded
        taken = sum(trial.target_prob for trial in trials)
    if 1 - taken <= LEAST_LEFT:
        return None
    bounds = _bonus_prob(c, draw)
    if accept.rule == "block":
        bounds = bonus_bounds(accept, bounds)
    wanted = Bounds(bounds.low / (1 - taken), min(1.0, bounds.high / (1 - taken)))
    slack = TOLERANCE / (1 - taken)
    if wanted.low - slack <= draw.high - draw.low <= wanted.high + slack:
        return None
    share = f"token {accept.bonus_token} has a share of {draw.high - draw.low:.9g}"
    return f"{share}, the logits at slot {accept.bonus_slot} and the rejected children leave {wanted}"
