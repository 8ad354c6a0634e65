"""Phase accept of two aligned steps: the walks, trial by trial where children are tried, and the bonus token.

A decision depends on the teacher's distribution at the node, the children there, and a coin. Two sides that decide
differently on the same inputs are a tie only where the coin lies so near to both thresholds that rounding may tip it.
Coins are inputs, equal wherever two runs have drawn alike so far; they are never excused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from specscope.schemas import AcceptSection, BonusDraw, DistributionCut, Step, Trial, Visit
from specscope.schemas.verdict import Contender, Difference, DifferenceKind
from specscope.tracer.compare.contenders import drawn_share, weighed_trial
from specscope.tracer.compare.floats import FloatJudge
from specscope.tracer.compare.nodes import PathKey, StepNodes, key_tokens
from specscope.tracer.compare.roundings import STATED_SIZE
from specscope.tracer.compare.said import Said, paired_numbers, said_at
from specscope.tracer.compare.steps import StepPair, difference, path_tokens, same_path
from specscope.tracer.compare.thresholds import Tried


def compare_accept(pair: StepPair) -> Iterator[Difference]:
    """Every difference of the phase; what follows from an earlier one has unequal inputs."""
    a, b = pair.a.step.accept, pair.b.step.accept
    if a is None or b is None:
        return
    if a.rule != b.rule:
        yield difference("accept", "rule", a.rule, b.rule, kind="structural", inputs_equal=True)
        return
    by_choice = a.rule in ("greedy", "match")
    walks = [] if by_choice else list(_walks(pair, a, b))
    yield from walks
    equal = not walks and (_choices_equal(pair) if by_choice else _met_equal(pair, a, b))
    if not same_path(pair):
        path_a, path_b = path_tokens(pair.a), path_tokens(pair.b)
        yield difference("accept", "path", path_a, path_b, kind="structural", inputs_equal=equal)
        equal = False
    if a.accepted_length != b.accepted_length:
        yield difference(
            "accept", "accepted_length", a.accepted_length, b.accepted_length, kind="structural", inputs_equal=equal
        )
    if not by_choice:
        yield from _bonus(pair, a, b, equal)
    elif a.bonus_token != b.bonus_token:
        yield difference("accept", "bonus_token", a.bonus_token, b.bonus_token, kind="structural", inputs_equal=equal)


def _choices_equal(pair: StepPair) -> bool:
    """Whether walks along the teacher's choices met the same ones and the same children."""
    ours, theirs = _choices(pair.a.step), _choices(pair.b.step)
    if ours is None or theirs is None or pair.a.step.tree is None or pair.b.step.tree is None:
        return False
    if pair.numbered_alike and len(ours) >= pair.a.num_slots and ours == theirs:
        return True
    for key in pair.common:
        if ours[pair.a.slots[key]] != theirs[pair.b.slots[key]]:
            return False
    return set(pair.a.keys) == set(pair.b.keys)


def _choices(step: Step) -> list[int] | None:
    """Per slot, the token by which a child is accepted: the teacher's best, or under rule match the one drawn."""
    if step.accept is not None and step.accept.rule == "match":
        return step.accept.drawn
    return None if step.verify is None else step.verify.argmax


def _met_equal(pair: StepPair, a: AcceptSection, b: AcceptSection) -> bool:
    """Whether walks by trials met the same distributions and the same children."""
    keys = [pair.a.key_of(visit.slot) for visit in a.visited or []]
    if not keys or keys != [pair.b.key_of(visit.slot) for visit in b.visited or []]:
        return False
    return all(_node_equal(pair, key) for key in keys)


def _node_equal(pair: StepPair, key: PathKey | None) -> bool:
    """Whether the teacher said the same at a node, within the noise floor, and it has the same children in order."""
    ours, theirs = _said(pair.a, key), _said(pair.b, key)
    if key is None or ours is None or theirs is None:
        return False
    if not ours.logits or not theirs.logits:
        return ours.best == theirs.best and _children(pair.a, key) == _children(pair.b, key)
    alike = all(pair.judge.near(n.quantity, n.a, n.b, n.size) for n in paired_numbers(ours, theirs))
    return alike and _children(pair.a, key) == _children(pair.b, key)


def _said(nodes: StepNodes, key: PathKey | None) -> Said | None:
    verify = nodes.step.verify
    return None if key is None or verify is None or key not in nodes.slots else said_at(verify, nodes.slots[key])


def _size_at(pair: StepPair, key: PathKey | None) -> float:
    """Of the teacher's logits at a node; where it is not known, that at which floors are stated."""
    sizes = [choice.size for choice in (_said(pair.a, key), _said(pair.b, key)) if choice is not None]
    return max(sizes, default=0.0) or STATED_SIZE


def _children(nodes: StepNodes, key: PathKey) -> list[PathKey]:
    return [child for child in nodes.keys if child and child[:-1] == key]


def _coins_comparable(pair: StepPair) -> bool:
    """Whether both sides have drawn as many coins so far, for the same slots in the same order."""
    drawn_alike = not pair.regrouped and pair.a.step.step == pair.b.step.step
    return drawn_alike and pair.a.keys == pair.b.keys


def _walks(pair: StepPair, a: AcceptSection, b: AcceptSection) -> Iterator[Difference]:
    """The first node where the two walks part, and drift on the way."""
    before: list[Trial] = []
    for visit_a, visit_b in zip(a.visited or [], b.visited or [], strict=False):
        key = pair.a.key_of(visit_a.slot)
        if key != pair.b.key_of(visit_b.slot):
            return
        differing = _visits(pair, key, visit_a, visit_b, rule=a.rule, before=before)
        if differing is not None:
            yield differing
            return
        before += visit_a.trials or []


def _visits(
    pair: StepPair, key: PathKey | None, a: Visit, b: Visit, *, rule: str, before: Sequence[Trial]
) -> Difference | None:
    """The first difference of two visits of one node; ``before`` were tried at the nodes above it."""
    both = None not in (a.trials, b.trials)  # absent is not recorded
    trials_a, trials_b = (a.trials or [], b.trials or []) if both else ([], [])
    equal = _node_equal(pair, key)
    for number, (trial_a, trial_b) in enumerate(zip(trials_a, trials_b, strict=False)):
        key_a, key_b = pair.a.key_of(trial_a.slot), pair.b.key_of(trial_b.slot)
        if key_a != key_b:
            return difference(
                "accept", "trials", _last(key_a), _last(key_b), kind="structural", inputs_equal=equal, node=key
            )
        tried = Tried(rule, [*(before if rule == "block" else ()), *trials_a[:number]], trial_a)
        both_tried = _TriedPair(visit_a=a, a=trial_a, visit_b=b, b=trial_b, size=_size_at(pair, key), tried=tried)
        differing = _trial(pair, key_a, both_tried, equal)
        if differing is not None:
            return differing
    if len(trials_a) != len(trials_b):
        count_a, count_b = f"{len(trials_a)} children tried", f"{len(trials_b)} children tried"
        return difference("accept", "trials", count_a, count_b, kind="structural", inputs_equal=equal, node=key)
    children = [None if v.child is None else n.key_of(v.child) for v, n in ((a, pair.a), (b, pair.b))]
    if children[0] == children[1] or (None in children and "accept" in pair.in_part):
        return None
    tie = both and _equally_likely(pair, a, b)
    kind: DifferenceKind = "near-tie" if tie else "real"
    return difference(
        "accept", "child", _last(children[0]), _last(children[1]), kind=kind, inputs_equal=equal, node=key
    )


class _TriedPair(NamedTuple):
    """One child, tried on both sides at the same node."""

    visit_a: Visit
    a: Trial
    visit_b: Visit
    b: Trial
    size: float  # of the teacher's logits there
    tried: Tried  # by the first of the two sides

    def follows(self, judge: FloatJudge) -> bool:
        """Whether what was recorded of logits and of how they were cut lies within the noise floor, so that the
        probabilities made of them are not differences in themselves."""
        cut_a, cut_b = self.visit_a.cut, self.visit_b.cut
        if cut_a is None or cut_b is None or self.a.logit is None or self.b.logit is None:
            return False
        if not judge.near("logits", self.a.logit, self.b.logit, self.size):
            return False
        ours, theirs = (cut.log_normaliser * judge.temperature for cut in (cut_a, cut_b))
        return judge.near("logits", ours, theirs, self.size) or _cut_elsewhere(cut_a, cut_b, judge.temperature)

    def allowed(self, judge: FloatJudge, *, follows: bool) -> dict[str, float]:
        """By field, how far it may be off besides its own share of noise: a sum of small remainders, and, where the
        probabilities ``follows`` from logits within the noise floor, what is made of them."""
        share = judge.probability_share(self.size)
        if not follows:
            return {"residual_mass": self.tried.mass_noise(share)}
        weighed = max(self.a.target_prob, self.b.target_prob)
        share += abs(self.a.target_prob - self.b.target_prob) / weighed if weighed > 0 else 0.0
        return {
            "target_prob": math.inf,
            "residual_mass": self.tried.mass_noise(share),
            "threshold": self.tried.threshold_noise(share),
        }


def _cut_elsewhere(a: DistributionCut, b: DistributionCut, temperature: float) -> bool:
    """Whether the sums over the tokens kept differ by no more than the last of them weighs: noise moved one across the
    edge of top_k or top_p."""
    if a.least_logit is None or b.least_logit is None or a.least_logit == b.least_logit:
        return False
    most = max(a.log_normaliser, b.log_normaliser)
    last = math.exp(min(0.0, min(a.least_logit, b.least_logit) / temperature - most))
    return 1 - math.exp(min(a.log_normaliser, b.log_normaliser) - most) <= 2 * last


def _last(key: PathKey | None) -> str:
    return "no child" if not key else f"token {key_tokens(key)[-1]}"


def _trial(pair: StepPair, key: PathKey | None, tried: _TriedPair, equal: bool) -> Difference | None:
    """The first difference of two trials of one child: its coin, what was weighed, the decision."""
    a, b, judge = tried.a, tried.b, pair.judge
    if a.coin != b.coin and None not in (a.coin, b.coin):
        return difference(
            "accept", "coins", a.coin, b.coin, kind="structural", inputs_equal=_coins_comparable(pair), node=key
        )
    follows = tried.follows(judge)
    for field in ("target_prob", "draft_prob", "residual_mass", "threshold"):
        value_a, value_b = getattr(a, field), getattr(b, field)
        if None in (value_a, value_b):
            continue
        if judge.same_probability(f"accept.{field}", value_a, value_b, tried.size):
            continue
        if abs(value_a - value_b) > tried.allowed(judge, follows=follows).get(field, 0.0):
            return difference("accept", f"trials.{field}", value_a, value_b, kind="real", inputs_equal=equal, node=key)
    if a.accepted == b.accepted:
        return None
    margins = [_gap(trial) for trial in (a, b)]
    close = follows or all(judge.near_probability(_weighed(t), t.threshold, tried.size) for t in (a, b))
    word_a, word_b = ("accepted" if trial.accepted else "rejected" for trial in (a, b))
    differing = difference(
        "accept", "trials.accepted", word_a, word_b, kind="near-tie" if close else "real", inputs_equal=equal, node=key
    )
    scores = weighed_trial(a, b)
    return differing.model_copy(update={"margin_a": margins[0], "margin_b": margins[1], "contenders": scores})


def _weighed(trial: Trial) -> float:
    """What the threshold is compared with: the coin, or where none is drawn, the teacher's probability."""
    return trial.target_prob if trial.coin is None else trial.coin


def _gap(trial: Trial) -> float:
    return abs(_weighed(trial) - trial.threshold)


def _equally_likely(pair: StepPair, a: Visit, b: Visit) -> bool:
    """Whether two accepted children of which each side chose another are as likely on both sides."""
    if a.child is None or b.child is None:
        return False
    key_a, key_b = pair.a.key_of(a.child), pair.b.key_of(b.child)
    for nodes, trials in ((pair.a, a.trials), (pair.b, b.trials)):
        probs = {nodes.key_of(trial.slot): trial.target_prob for trial in trials or [] if trial.accepted}
        if key_a not in probs or key_b not in probs or not pair.judge.near_probability(probs[key_a], probs[key_b]):
            return False
    return True


def _bonus(pair: StepPair, a: AcceptSection, b: AcceptSection, equal: bool) -> Iterator[Difference]:
    """The drawn bonus tokens. Behind unequal walks they are unequal draws, and only the tokens are compared."""
    tokens = (a.bonus_token, b.bonus_token)
    draws = compare_draws(pair.judge, "accept.bonus_draw", tokens, (a.bonus_draw, b.bonus_draw) if equal else None)
    if draws is None:
        return
    fields = {"token": "bonus_token", "coin": "coins"}
    field = fields.get(draws.field, f"bonus_draw.{draws.field}")
    equal = equal and (draws.field != "coin" or _coins_comparable(pair))
    differing = difference(
        "accept", field, draws.a, draws.b, kind=draws.kind, inputs_equal=equal, node=pair.a.key_of(a.bonus_slot)
    )
    yield differing.model_copy(
        update={"margin_a": draws.margin_a, "margin_b": draws.margin_b, "contenders": draws.contenders}
    )


class DrawDifference(NamedTuple):
    """How two draws from the same distribution differ."""

    field: Literal["token", "coin", "low", "high"]
    a: float
    b: float
    kind: DifferenceKind
    margin_a: float | None = None  # from the coin to the end of the share that faces the other side's
    margin_b: float | None = None
    contenders: list[Contender] | None = None


def compare_draws(
    judge: FloatJudge, name: str, tokens: tuple[int, int], draws: tuple[BonusDraw | None, BonusDraw | None] | None
) -> DrawDifference | None:
    """The first difference of two drawn tokens: the coin, the token, its share of the distribution.

    Another token with the same coin is a tie where on both sides the coin lies at the end of the share that faces the
    other token. ``name`` is the field that drift is counted under.
    """
    a, b = draws if draws is not None else (None, None)
    if a is None or b is None:
        return DrawDifference("token", *tokens, "real") if tokens[0] != tokens[1] else None
    if a.coin != b.coin:
        return DrawDifference("coin", a.coin, b.coin, "structural")
    if tokens[0] != tokens[1]:
        # Shares lie in order of token ids; a redaction replaces the ids, and leaves the shares where they are.
        orders = tokens[0] < tokens[1], a.low + a.high < b.low + b.high
        faced = [(a.high, b.low) if upwards else (a.low, b.high) for upwards in orders]
        tie = any(all(judge.near_probability(a.coin, end) for end in ends) for ends in faced)
        ends = faced[0]
        margin_a, margin_b = (abs(a.coin - end) for end in ends)
        scores = drawn_share(a, b, upwards=orders[0])
        kind: DifferenceKind = "near-tie" if tie else "real"
        differing = DrawDifference("token", *tokens, kind)
        return differing._replace(margin_a=margin_a, margin_b=margin_b, contenders=scores)
    for field in ("low", "high"):
        if not judge.same_probability(name, getattr(a, field), getattr(b, field)):
            return DrawDifference(field, getattr(a, field), getattr(b, field), "real")
    return None
