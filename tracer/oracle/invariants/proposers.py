"""Trees of several drafters: who proposed which node, and what that says of the candidates.

The levels of a draft are those of the manifest's first drafter. What the others proposed and the tree left out is not
recorded, so that of theirs only what was kept is judged: a node whose second proposer goes unnamed shows where that one
gave it the better score.
"""

from __future__ import annotations

import math

from specscope.schemas import Manifest, Step, TreeSection
from specscope.tracer.files.candidates import CandidateColumns
from specscope.tracer.oracle.invariants.base import Context, present, tree_is_recorded
from specscope.tracer.oracle.invariants.selection import CLOSE, are_near

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


def candidate_slots(step: Step, candidates: CandidateColumns, outside: set[int]) -> dict[int, int | None]:
    """By slot, the number of the candidate that it is; the root's is None. Slots that are no candidates, and those
    ``outside``, are not there."""
    tree = present(step.tree)
    slots: dict[int, int | None] = {0: None}
    for slot in range(1, len(tree.tokens)):
        parent = tree.parents[slot]
        if slot in outside or parent not in slots:
            continue
        number = candidates.numbers.get((slots[parent], tree.tokens[slot]))
        if number is not None:
            slots[slot] = number
    return slots


def merged_are_best(c: Context) -> str | None:
    """Whether no candidate that was left out is better than a node that was kept, of any proposer."""
    tree, columns = present(c.step.tree), c.columns
    slots = candidate_slots(c.step, columns, outside=set())  # whoever is named, what stands in the tree was kept
    kept = {number for number in slots.values() if number is not None}
    left_out = columns.firsts - kept
    scores = (tree.scores or [])[1:] or [columns.scores[number] for number in kept]
    if not left_out or not scores:
        return None
    number, worst = max(left_out, key=columns.scores.__getitem__), min(scores)
    best = columns.scores[number]
    if math.isnan(best) or best <= worst or are_near(c, best, worst, additions=2 * len(columns.levels)):
        return None
    return f"candidate {number} with score {best:.6g} was left out, and a node with score {worst:.6g} was kept"


def names_are_right(c: Context) -> str | None:
    """What is wrong with the names of the proposers, beside the candidates and their scores."""
    tree, names = present(c.step.tree), c.manifest.drafter.names
    proposed_by = present(tree.proposed_by)
    if len(proposed_by) != len(tree.tokens) or proposed_by[0]:
        return f"{len(proposed_by)} names for {len(tree.tokens)} slots, of which the root has {proposed_by[:1]}"
    inside = None
    if c.step.draft is not None and c.step.draft.levels:
        inside = candidate_slots(c.step, c.columns, set())
    for slot, text in enumerate(proposed_by[1:], 1):
        named = text.split("+")
        if named != [name for name in names if name in named]:
            return f"slot {slot}: proposed by {text!r}, wanted one or more of {', '.join(names)}, in that order"
        if inside is None:
            continue
        if (slot in inside) != (names[0] in named):
            is_one = "is" if slot in inside else "is not"
            return f"slot {slot}: proposed by {text}, and it {is_one} a candidate of {names[0]}"
        number = inside.get(slot)
        score = None if number is None else c.columns.scores[number]
        problem = None if score is None else _score_problem(tree, slot, score, shared=len(named) > 1)
        if problem is not None:
            return f"slot {slot}: proposed by {text}, {problem}"
    return None


def _score_problem(tree: TreeSection, slot: int, stated: float, *, shared: bool) -> str | None:
    """A node that others proposed too has the score ``stated`` of its candidate or a better one; else it has that."""
    score = tree.scores[slot] if tree.scores is not None and slot < len(tree.scores) else stated
    room = CLOSE * max(1.0, abs(score))
    too_low, too_high = score < stated - room, score > stated + room and not shared
    if not too_low and not too_high:
        return None
    wanted = "at least " if shared else ""
    return f"with score {score:.6g}, wanted {wanted}its candidate's {stated:.6g}"


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
