"""Trees of several drafters: who proposed which node, and what that says of the candidates.

The levels of a draft are those of the manifest's first drafter. What the others proposed and the tree left out is not
recorded, so that of theirs only what was kept is judged: a node whose second proposer goes unnamed shows where that one
gave it the better score.
"""

from __future__ import annotations

import math

from specscope.schemas import Manifest, Step, TreeSection
from specscope.tracer.files.candidates import Candidate
from specscope.tracer.oracle.invariants.base import Context, present, tree_is_recorded
from specscope.tracer.oracle.invariants.selection import CLOSE

LOOKUP = "ngram"


def levels_of(manifest: Manifest) -> str | None:
    """The drafter whose levels are recorded, where it is one of several; None where there is only one."""
    names = manifest.drafter.names
    return names[0] if len(names) > 1 else None


def has_several(c: Context) -> bool:
    """Whether several drafters proposed the step's own tree."""
    return levels_of(c.manifest) is not None and not tree_is_recorded(c.step)


def looks_up(c: Context) -> bool:
    """Whether one of several drafters is a lookup in the text."""
    return has_several(c) and LOOKUP in c.manifest.drafter.names


def outside_levels(tree: TreeSection | None, levels_by: str | None) -> set[int]:
    """The slots that the drafter of the levels did not propose; none where nobody says so."""
    if tree is None or levels_by is None:
        return set()
    return {slot for slot, names in enumerate(tree.proposed_by or ()) if slot and levels_by not in names.split("+")}


def candidate_slots(
    step: Step, candidates: dict[tuple[int | None, int], Candidate], outside: set[int]
) -> dict[int, Candidate | None]:
    """By slot, the candidate that it is; the root's is None. Slots that are no candidates, and those ``outside``, are
    not there."""
    tree = present(step.tree)
    slots: dict[int, Candidate | None] = {0: None}
    for slot in range(1, len(tree.tokens)):
        parent = tree.parents[slot]
        if slot in outside or parent not in slots:
            continue
        above = slots[parent]
        candidate = candidates.get((None if above is None else above.number, tree.tokens[slot]))
        if candidate is not None:
            slots[slot] = candidate
    return slots


def merged_are_best(c: Context) -> str | None:
    """Whether no candidate that was left out is better than a node that was kept, of any proposer."""
    tree, distinct = present(c.step.tree), c.distinct_candidates
    slots = candidate_slots(c.step, distinct, outside_levels(tree, levels_of(c.manifest)))
    kept = {candidate.number for candidate in slots.values() if candidate is not None}
    left_out = [candidate for candidate in distinct.values() if candidate.number not in kept]
    scores = (tree.scores or [])[1:] or [candidate.score for candidate in slots.values() if candidate is not None]
    if not left_out or not scores:
        return None
    worst, best = min(scores), max(left_out, key=lambda candidate: candidate.score)
    if math.isnan(best.score) or best.score - worst <= CLOSE * max(1.0, abs(best.score)):
        return None
    return (
        f"candidate {best.number} with score {best.score:.6g} was left out, and a node with score {worst:.6g} was kept"
    )


def names_are_right(c: Context) -> str | None:
    """What is wrong with the names of the proposers, beside the candidates and their scores."""
    tree, names = present(c.step.tree), c.manifest.drafter.names
    proposed_by = present(tree.proposed_by)
    if len(proposed_by) != len(tree.tokens) or proposed_by[0]:
        return f"{len(proposed_by)} names for {len(tree.tokens)} slots, of which the root has {proposed_by[:1]}"
    inside = None
    if c.step.draft is not None and c.step.draft.levels:
        inside = candidate_slots(c.step, c.distinct_candidates, set())
    for slot, text in enumerate(proposed_by[1:], 1):
        named = text.split("+")
        if named != [name for name in names if name in named]:
            return f"slot {slot}: proposed by {text!r}, wanted one or more of {', '.join(names)}, in that order"
        if inside is None:
            continue
        if (slot in inside) != (names[0] in named):
            is_one = "is" if slot in inside else "is not"
            return f"slot {slot}: proposed by {text}, and it {is_one} a candidate of {names[0]}"
        candidate = inside.get(slot)
        problem = None if candidate is None else _score_problem(tree, slot, candidate, shared=len(named) > 1)
        if problem is not None:
            return f"slot {slot}: proposed by {text}, {problem}"
    return None


def _score_problem(tree: TreeSection, slot: int, candidate: Candidate, *, shared: bool) -> str | None:
    """A node that others proposed too has the candidate's score or a better one; else it has the candidate's."""
    score = tree.scores[slot] if tree.scores is not None and slot < len(tree.scores) else candidate.score
    room = CLOSE * max(1.0, abs(score))
    too_low, too_high = score < candidate.score - room, score > candidate.score + room and not shared
    if not too_low and not too_high:
        return None
    wanted = "at least " if shared else ""
    return f"with score {score:.6g}, wanted {wanted}its candidate's {candidate.score:.6g}"


def stands_in_text(c: Context) -> str | None:
    """The first node of the lookup whose path never followed the root's token in the text."""
    tree, text = present(c.step.tree), present(c.text)
    proposed_by = present(tree.proposed_by)
    root = len(text) - 1
    ends = {0: [end for end in range(root) if text[end] == text[root]]}  # by slot, where its path ends in the text
    for slot in range(1, len(tree.tokens)):
        parent, token = tree.parents[slot], tree.tokens[slot]
        above = ends.get(parent, [])
        ends[slot] = [end + 1 for end in above if end + 1 <= root and text[end + 1] == token]
        if not ends[slot] and slot < len(proposed_by) and LOOKUP in proposed_by[slot].split("+"):
            return f"slot {slot}: proposed by {LOOKUP}, and its path never followed token {text[root]} in the text"
    return None
