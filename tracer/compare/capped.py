"""Steps of which one side drafted no deeper than tokens could still be emitted: both, as far as both could draft.

An engine that drafts on has its longer path cut by the stop rule anyway: what was emitted and kept is the same. Knows
records alone.
"""

from __future__ import annotations

from specscope.schemas import (
    AcceptSection,
    DraftSection,
    Section,
    Step,
    StopSection,
    TensorsSection,
    TreeSection,
    VerifySection,
)

PER_SLOT_OF_TREE = ("tokens", "parents", "depths", "logprobs", "scores", "proposed_by")
PER_SLOT_OF_VERIFY = (
    *("argmax", "top_tokens", "top_logits", "logsumexp", "entropy", "target_logprobs", "target_tokens"),
)
PER_ROW_OF_TENSORS = ("mask_rows", "prefix_visible", "positions", "token_ids")


def shared_depth(a: Step, b: Step) -> int | None:
    """The deepest level that both steps could draft for; None where neither names a limit, or has a deeper node."""
    trees = [step.tree for step in (a, b) if step.tree is not None]
    limits = [tree.depth_limit for tree in trees if tree.depth_limit is not None]
    if not limits or all(max(tree.depths, default=0) <= min(limits) for tree in trees):
        return None
    return min(limits)


def cut_to_depth(step: Step, depth: int) -> Step:
    """The step as if its tree had ended at ``depth``; itself where deeper slots do not come last.

    What the teacher chose at the deepest node that is left is the bonus token then, accepted or not. What was committed
    and timed is left out of a step that accepted more.
    """
    tree = step.tree
    if tree is None or tree.depths != sorted(tree.depths):
        return step
    count = sum(level <= depth for level in tree.depths)
    if count == len(tree.tokens):
        return step
    sections: dict[str, Section | None] = {
        "tree": _first(tree, PER_SLOT_OF_TREE, count),
        "draft": None if step.draft is None else _levels(step.draft, depth),
        "tensors": None if step.tensors is None else _rows(step.tensors, count),
        "verify": None if step.verify is None else _first(step.verify, PER_SLOT_OF_VERIFY, count),
    }
    if step.accept is not None and len(step.accept.path) > depth:
        sections |= _accepted(tree, step.accept, step.stop, depth)
    return step.model_copy(update=sections)


def _first(section: TreeSection | VerifySection, names: tuple[str, ...], count: int) -> TreeSection | VerifySection:
    values = {name: getattr(section, name) for name in names}
    return section.model_copy(update={name: value[:count] for name, value in values.items() if value is not None})


def _levels(draft: DraftSection, depth: int) -> DraftSection:
    levels = None if draft.levels is None else draft.levels[:depth]
    return draft.model_copy(update={"levels": levels})


def _rows(tensors: TensorsSection, count: int) -> TensorsSection:
    """The rows of the slots that are left; padding behind others is left out with them."""
    rows = {name: getattr(tensors, name)[:count] for name in PER_ROW_OF_TENSORS}
    return tensors.model_copy(update={"num_slots": count, "padded_slots": count, **rows})


def _accepted(
    tree: TreeSection, accept: AcceptSection, stop: StopSection | None, depth: int
) -> dict[str, Section | None]:
    """What a walk that went deeper comes to, had it ended at ``depth``."""
    path = accept.path[:depth]
    walk = {
        "path": path,
        "accepted_length": depth,
        "bonus_token": tree.tokens[accept.path[depth]],
        "bonus_slot": path[-1] if path else 0,
        "visited": None if accept.visited is None else accept.visited[: depth + 1],
    }
    ended = None if stop is None else {"emitted": stop.emitted[: depth + 1], "kept": min(stop.kept, depth + 1)}
    return {
        "accept": accept.model_copy(update=walk),
        "stop": None if stop is None else stop.model_copy(update=ended),
        "commit": None,
    }
