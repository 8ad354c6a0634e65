"""A root in one sentence: which side is wrong and what it did, or where nobody is blamed, how the two part.

A side is accused only by an invariant of the phase that the root lies in: one that is broken further on says nothing of
what came before it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from specscope.schemas.verdict import Difference, DriftFinding, Quantity, Root, Side
from specscope.tracer.compare.token_values import ONLY_ON_ONE_SIDE
from specscope.tracer.naming.text import figures
from specscope.tracer.oracle.invariants.registry import phase_of
from specscope.tracer.report.sizes import share_text
from specscope.tracer.report.values import SideTexts, node_text, value_text

NAMES: dict[Side, str] = {"a": "baseline", "b": "candidate"}
#: Entries with which two lists begin alike, from which on a sentence leaves them out.
FEWEST_ALIKE = 2
#: Larger numbers have no fraction left in 64 bits; a hostile one would fill the page with zeros.
PLAIN_TO = 2.0**53


class _Form(NamedTuple):
    """How one field is spoken of. ``{got}`` is the accused side's value, ``{wanted}`` the other's."""

    accusation: str
    noun: str  # of the value


#: By phase and field, without the numbers of levels and ranks.
FORMS = {
    "draft.inputs.tokens": _Form("feeds the drafter {got}, wanted {wanted}", "what the drafter is fed"),
    "draft.inputs.source_rows": _Form(
        "feeds the drafter the features of {got}, wanted {wanted}", "the source of the drafter's features"
    ),
    "draft.inputs.positions": _Form(
        "feeds the drafter positions {got}, wanted {wanted}", "the list of the drafter's positions"
    ),
    "draft.inputs.hidden_norms": _Form(
        "feeds the drafter features of norm {got}, wanted {wanted}", "the norm of the drafter's features"
    ),
    "draft.kv_before": _Form("drafts behind {got} pairs, wanted {wanted}", "the drafter's length before the step"),
    "draft.kv_after": _Form("leaves the drafter {got} pairs, wanted {wanted}", "the drafter's length after drafting"),
    "draft.levels": _Form("drafts {got} levels, wanted {wanted}", "the number of drafted levels"),
    "draft.levels.positions": _Form(
        "drafts level {level} at positions {got}, wanted {wanted}", "the list of positions of level {level}"
    ),
    "draft.levels.finite": _Form("drafts scores at level {level} that are not finite", "finite at level {level}"),
    "draft.levels.logprobs": _Form(
        "scores node {node} {got} at level {level}, wanted {wanted}", "the draft score of node {node}"
    ),
    "draft.levels.frontier": _Form("expands {got} at level {level}, wanted {wanted}", "the frontier of level {level}"),
    "draft.levels.tokens": _Form("proposes {got} at level {level}, wanted {wanted}", "the draft of level {level}"),
    "tree.tokens": _Form("starts its tree at {got}, wanted {wanted}", "the root of the tree"),
    "tree.nodes": _Form("keeps {got} in its tree, wanted {wanted}", "the tree"),
    "tree.parents": _Form("hangs node {node} below {got}, wanted {wanted}", "the parent of node {node}"),
    "tree.depths": _Form("puts node {node} at depth {got}, wanted {wanted}", "the depth of node {node}"),
    "tensors.committed_length": _Form(
        "builds its tensors behind {got} committed tokens, wanted {wanted}", "the committed length of the tensors"
    ),
    "tensors.token_ids": _Form("feeds the teacher {got} at node {node}, wanted {wanted}", "the id fed at node {node}"),
    "tensors.positions": _Form("rotates node {node} by position {got}, wanted {wanted}", "the position of node {node}"),
    "tensors.prefix_visible": _Form(
        "lets node {node} see {got} committed rows, wanted {wanted}", "the number of committed rows node {node} sees"
    ),
    "verify.windows": _Form(
        "sees {got} at node {node} in layers with a sliding window, wanted {wanted}",
        "the positions that node {node} sees in layers with a sliding window",
    ),
    "verify.finite": _Form("has logits at node {node} that are not finite", "finite at node {node}"),
    "verify.argmax": _Form(
        "chooses {got} after node {node}, wanted {wanted}", "the teacher's choice after node {node}"
    ),
    "verify.top_logits": _Form(
        "has logit {got} after node {node}, wanted {wanted}", "the teacher's logit after node {node}"
    ),
    "verify.prefill.pending_token": _Form(
        "begins the turn with {got}, wanted {wanted}", "the first token after the prompt"
    ),
    "verify.prefill.top_logits": _Form(
        "has logit {got} after the prompt, wanted {wanted}", "the teacher's logit after the prompt"
    ),
    "accept.rule": _Form("accepts by rule {got}, wanted {wanted}", "the acceptance rule"),
    "accept.path": _Form("accepts {got}, wanted {wanted}", "the accepted path"),
    "accept.accepted_length": _Form("counts {got} accepted nodes, wanted {wanted}", "the accepted length"),
    "accept.bonus_token": _Form("adds the bonus token {got}, wanted {wanted}", "the bonus token"),
    "accept.coins": _Form("draws coin {got}, wanted {wanted}", "the coin"),
    "accept.trials": _Form("tries {got} after node {node}, wanted {wanted}", "the child tried after node {node}"),
    "accept.trials.accepted": _Form(
        "has a child of node {node} {got}, wanted {wanted}", "the fate of a child of node {node}"
    ),
    "accept.trials.target_prob": _Form(
        "weighs probability {got} after node {node}, wanted {wanted}", "the probability weighed after node {node}"
    ),
    "accept.trials.draft_prob": _Form(
        "takes draft probability {got} after node {node}, wanted {wanted}", "the draft probability after node {node}"
    ),
    "accept.trials.threshold": _Form(
        "decides by threshold {got} after node {node}, wanted {wanted}", "the threshold after node {node}"
    ),
    "accept.child": _Form("goes on to {got} after node {node}, wanted {wanted}", "the child taken after node {node}"),
    "commit.committed_before": _Form(
        "commits behind {got} tokens, wanted {wanted}", "the committed length before the commit"
    ),
    "commit.committed_after": _Form(
        "has {got} tokens after its commit, wanted {wanted}", "the committed length after the commit"
    ),
    "commit.source_slots": _Form("commits the rows of {got}, wanted {wanted}", "the list of rows that are kept"),
    "commit.destination_rows": _Form(
        "writes the kept rows to {got}, wanted {wanted}", "the list of rows that are written"
    ),
    "commit.drafter_after": _Form(
        "leaves the drafter {got} pairs, wanted {wanted}", "the drafter's length after the commit"
    ),
    "stop.emitted": _Form("emits {got}, wanted {wanted}", "the emitted block"),
    "stop.kept": _Form("keeps {got} of the emitted tokens, wanted {wanted}", "the number of tokens kept"),
    "stop.reason": _Form("ends the turn by {got}, wanted {wanted}", "the reason for the end"),
}
#: What a side did that breaks an invariant where no field differs.
BREACHES = {
    "commit.content-moved": "commits rows that do not hold what their sources held",
    "commit.prefix-unchanged": "writes into the committed prefix",
    "commit.drafter-length": "keeps pairs in the drafter's cache that were never committed, or loses some",
    "commit.strategy": "commits by another strategy than the one asked for",
    "accept.coins-distinct": "uses one coin for two decisions",
    "accept.thresholds": "decides by thresholds that do not follow from the probabilities",
    "accept.target-probs": "weighs probabilities that are not the teacher's",
    "verify.input-digest": "gives the forward something else than it built",
    "verify.dispatch": "runs another attention than the one asked for",
    "verify.windows": "sees other positions than the last ones in layers with a sliding window",
    "verify.feature-layers": "reads features from other layers than the drafter names",
    "verify.logits-finite": "has logits that are not finite",
    "draft.scores-finite": "has draft scores that are not finite",
    "draft.features-are-committed": "feeds the drafter features that the teacher did not make of these tokens",
    "draft.source-rows": "feeds the drafter the features of other nodes than the accepted ones",
    "tensors.padding-isolated": "lets padding take part in attention",
    "tensors.index-in-range": "uses an index beyond the slots",
    "tensors.indices-are-the-trees": "uses indices that are not those of its tree",
    "sequence.root-is-last-bonus": "starts its tree at another token than the last bonus",
    "sequence.committed-continues": "begins elsewhere than the last step ended",
}
#: Invariants that say what is wrong better than two values do, by the field that they break: two coins side by side
#: read like two seeds.
BETTER_SAID = {"accept.coins": "accept.coins-distinct"}


#: What drifts as a whole.
DRIFTING: dict[Quantity, str] = {
    "logits": "the teacher's logits",
    "logsumexp": "the sums over the teacher's logits",
    "entropy": "the entropies of the teacher's choices",
    "draft-scores": "the drafter's scores",
    "hidden-norms": "the features that the drafter is fed",
}


def root_sentence(root: Root, texts: SideTexts) -> str:
    """What happened, in one sentence without a full stop."""
    difference, side = root.difference, _accused(root)
    if root.drift is not None:
        return _drift_sentence(root.drift)
    if side is not None and _is_breach(difference):
        return f"the {NAMES[side]} {_breach(root, side)}"
    rule = BETTER_SAID.get(_spot(difference))
    if side is not None and rule is not None and rule in _broken(root, side):
        return f"the {NAMES[side]} {BREACHES[rule]}"
    if difference.field == "mask":
        return _mask_sentence(difference, side, texts)
    form = FORMS.get(_spot(difference))
    if form is None:
        return _general(difference, texts)
    node = "root" if difference.node is None else node_text(difference.node, texts)
    level = next(iter(re.findall(r"\[(\d+)\]", difference.field)), "")
    if side is None:
        noun = form.noun.format(node=node, level=level)
        return _neutral(difference, noun, texts)
    got, wanted = (_told(difference, which, texts) for which in (side, _other(side)))
    return f"the {NAMES[side]} " + form.accusation.format(node=node, level=level, got=got, wanted=wanted)


def _drift_sentence(finding: DriftFinding) -> str:
    named = DRIFTING[finding.quantity]
    if finding.against == "same-kernels":
        return f"{named} of the candidate are not those of the run of --noise, which the same kernels made"
    times = finding.typical / finding.allowed
    which = f"{named} are all off" if finding.share >= 1 else f"{share_text(finding)} of {named} are off"
    return f"{which}, by {figures(times, 2)} times what noise reaches; no record tells on which side"


def _accused(root: Root) -> Side | None:
    """The one side that breaks an invariant of the root's own phase."""
    sides: set[Side] = {blame.side for blame in root.blame if phase_of(blame.invariant) == root.difference.phase}
    return sides.pop() if len(sides) == 1 and root.wrong != "both" else None


def _spot(difference: Difference) -> str:
    return difference.phase + "." + re.sub(r"\[\d+\]", "", difference.field)


def _other(side: Side) -> Side:
    return "b" if side == "a" else "a"


def _told(difference: Difference, side: Side, texts: SideTexts) -> str:
    """One side's value for a sentence: numbers to six digits where these tell both apart, else to all that were
    recorded; and lists from where they part. The values stand beside it, whole."""
    same = _num_alike(difference)
    if same:
        parted = {name: (getattr(difference, name) or [])[same:] for name in ("tokens_a", "tokens_b")}
        return f"… {_plain(difference.model_copy(update=parted), side, texts)}"
    short = {name: _six_digits(getattr(difference, name)) for name in ("a", "b")}
    is_told_apart = short["a"] != short["b"]
    return _plain(difference.model_copy(update=short) if is_told_apart else difference, side, texts)


def _num_alike(difference: Difference) -> int:
    """Entries at the beginning of both lists that are the same and need not be told; 0 where they are few, or one list
    is the beginning of the other."""
    a, b = difference.tokens_a, difference.tokens_b
    if a is None or b is None or difference.field == "mask" or ONLY_ON_ONE_SIDE.fullmatch(difference.field):
        return 0
    same = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
    return same if same >= FEWEST_ALIKE else 0


def _six_digits(value: str) -> str:
    """A number with a long fraction, shortened and without an exponent unless it is tiny; anything else as it is."""
    return figures(float(value), 6, plain_to=PLAIN_TO) if re.fullmatch(r"-?\d+\.\d{7,}", value) else value


def _plain(difference: Difference, side: Side, texts: SideTexts) -> str:
    return value_text(difference, side, texts, with_ids=False).removeprefix("only here: ")


def _is_breach(difference: Difference) -> bool:
    """Whether the difference is a broken invariant, which stands where no field differs."""
    return "holds" in (difference.a, difference.b)


def _breach(root: Root, side: Side) -> str:
    field = root.difference.field
    named = _broken(root, side)
    name = next((name for name in named if name.partition(".")[2] == field), f"{root.difference.phase}.{field}")
    return BREACHES.get(name, f"breaks {name}")


def _broken(root: Root, side: Side) -> list[str]:
    return [blame.invariant for blame in root.blame if blame.side == side]


def _general(difference: Difference, texts: SideTexts) -> str:
    where = "" if difference.node is None else f" at node {node_text(difference.node, texts)}"
    return _neutral(difference, f"{difference.phase}: {difference.field}{where}", texts)


def _neutral(difference: Difference, noun: str, texts: SideTexts) -> str:
    a, b = _told(difference, "a", texts), _told(difference, "b", texts)
    if ONLY_ON_ONE_SIDE.fullmatch(difference.field):
        return f"{noun} has {a} in the baseline alone, {b} in the candidate alone"
    return f"{noun} is {a} in the baseline, {b} in the candidate"


def _mask_sentence(difference: Difference, side: Side | None, texts: SideTexts) -> str:
    """A mask's row by what one side sees and the other does not."""
    node = node_text(difference.node or [], texts)
    seen: dict[Side, str] = {"a": _seen(difference, "a", texts), "b": _seen(difference, "b", texts)}
    if side is None:
        alone = [f"{words} in the {NAMES[of]} alone" for of, words in seen.items() if words]
        return f"node {node} sees {' and '.join(alone)}" if alone else f"what node {node} sees differs"
    acts = [f"lets node {node} see {seen[side]}"] if seen[side] else []
    acts += [f"hides {seen[_other(side)]} from node {node}"] if seen[_other(side)] else []
    return f"the {NAMES[side]} {' and '.join(acts) or f'gets the mask of node {node} wrong'}"


def _seen(difference: Difference, side: Side, texts: SideTexts) -> str:
    """What this side sees alone, by how it is related to the node; empty where that is nothing."""
    tokens = (difference.tokens_a if side == "a" else difference.tokens_b) or []
    words = [
        f"padding column {entry}" if isinstance(entry, int) else _relative(entry, difference.node or [], texts, side)
        for entry in tokens[:2]
    ]
    more = len(tokens) - len(words)
    return " and ".join(words) + (f" and {more} more" if more > 0 else "")


def _relative(other: list[int], node: list[int], texts: SideTexts, side: Side) -> str:
    if not other:
        return "the root"
    if other == node:
        return "itself"
    if other[: len(node)] == node:
        return f"its descendant {node_text(other[len(node) :], texts, side)}"
    if other == node[: len(other)]:
        return f"its ancestor {texts.shown(other[-1], side)}"
    if other[:-1] == node[:-1]:
        return f"its sibling {texts.shown(other[-1], side)}"
    return f"{node_text(other, texts, side)} of another branch"
