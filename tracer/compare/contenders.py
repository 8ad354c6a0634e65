"""What ties of drafts and draws lay between, with what each scored on both sides: so a tie can be seen to be one."""

from __future__ import annotations

from specscope.schemas import BonusDraw, Trial
from specscope.schemas.verdict import Contender
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.steps import StepPair


def swapped_nodes(pair: StepPair, ours: PathKey, theirs: PathKey) -> list[Contender]:
    """Two candidates of the drafter, of which each side preferred another: siblings by what they were ranked by, others
    by the sums of their log-probabilities."""
    are_siblings = ours[:-1] == theirs[:-1]

    def score(nodes: StepNodes, key: PathKey) -> float | None:
        proposal = nodes.proposals.get(key)
        return None if proposal is None else proposal.ranked if are_siblings else proposal.score

    return [Contender(node=key_tokens(key), a=score(pair.a, key), b=score(pair.b, key)) for key in (ours, theirs)]


def weighed_trial(a: Trial, b: Trial) -> list[Contender]:
    """What decided on one child: a coin, or where none is drawn its probability, and the threshold that it must not
    exceed, or must reach."""
    weighed = Contender(what="probability", a=a.target_prob, b=b.target_prob)
    if a.coin is not None and b.coin is not None:
        weighed = Contender(what="coin", a=a.coin, b=b.coin)
    return [weighed, Contender(what="threshold", a=a.threshold, b=b.threshold)]


def drawn_share(a: BonusDraw, b: BonusDraw, *, upwards: bool) -> list[Contender]:
    """A coin, and the end of the share that faces the other token; ``upwards``: the candidate's has the larger id."""
    ends = (a.high, b.low) if upwards else (a.low, b.high)
    return [Contender(what="coin", a=a.coin, b=b.coin), Contender(what="end of the share", a=ends[0], b=ends[1])]
