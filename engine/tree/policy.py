"""How draft trees are grown: dynamic, static, a chain or none, or one of these for each step; and how a command line
names one.

A static tree is a list of choices: each node is the path of child ranks that leads to it from the root, rank 0 being
the drafter's best. ``[[0], [1], [0, 0]]`` drafts the two best tokens, and the best after the first of them;
``[[0], [2]]`` passes the second best over.
"""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from specscope.schemas import ShapeTable, StepCosts, TreeShape
from specscope.tracer.errors import UsageError

PolicyKind = Literal["dynamic", "static", "chain", "none", "auto"]
Choice = tuple[int, ...]
Sizing = StepCosts | Literal["measure"]  # by these costs, or by those of the device, which loading the models measures
AUTO_LIMIT = 32  # nodes of a tree that is no larger than pays, where no limit is given
LIMITS = (("depth", 128), ("top_k", 1024), ("budget", 4096))


class StaticLevel(NamedTuple):
    """One level of a static tree, in numbers of the level's own candidates (fed row x width + rank)."""

    width: int  # proposals that each fed row makes
    numbers: list[int]  # candidates that are nodes, ascending
    fed: list[int]  # those among them that have children: they are the next level's rows


@dataclass(frozen=True)
class TreePolicy:
    """How trees are grown."""

    kind: PolicyKind
    _: KW_ONLY
    depth: int  # deepest level, in edges from the root
    top_k: int  # children proposed by each frontier node, and nodes kept as the next frontier
    budget: int  # drafted nodes at most; the root is not one
    name: str | None = None  # of a static tree
    choices: tuple[Choice, ...] = field(default=(), repr=False)  # of a static tree or a chain, sorted by level
    sizing: Sizing | None = field(default=None, hash=False)  # of a dynamic tree that is no larger than pays
    shapes: ShapeTable | None = field(default=None, repr=False, hash=False)  # of kind auto: what each step chooses from

    def __post_init__(self) -> None:
        for name, most in LIMITS:
            if self.kind != "none" and not 1 <= getattr(self, name) <= most:
                raise UsageError(f"got {name} {getattr(self, name)}, wanted 1 to {most}")
        if self.sizing is not None and self.kind != "dynamic":
            raise UsageError(f"got budget auto for a {self.kind} tree, wanted it for a dynamic one, which has no shape")
        if (self.shapes is not None) != (self.kind == "auto"):
            raise UsageError(f"got a {self.kind} tree, wanted a table of shapes for an auto one, and for no other")

    @property
    def costs(self) -> StepCosts | None:
        """What trees are sized by. None where they are not, and where the costs are still to be measured."""
        return None if self.sizing == "measure" else self.sizing

    @property
    def is_fixed(self) -> bool:
        """Whether every tree has the same shape, whatever was drafted."""
        return bool(self.choices)

    @property
    def passes_over(self) -> Choice | None:
        """The first node of a fixed tree whose next better sibling is not in it; None where there is none."""
        nodes = set(self.choices)
        return next((n for n in self.choices if n[-1] > 0 and (*n[:-1], n[-1] - 1) not in nodes), None)

    @cached_property
    def static_levels(self) -> list[StaticLevel]:
        """The levels of a fixed tree, from the root's children down."""
        levels: list[StaticLevel] = []
        rows: list[Choice] = [()]  # the nodes fed to make the level
        inner = {choice[:-1] for choice in self.choices}
        for depth in range(1, self.depth + 1):
            nodes = [choice for choice in self.choices if len(choice) == depth]
            width = 1 + max(choice[-1] for choice in nodes)
            number = {choice: rows.index(choice[:-1]) * width + choice[-1] for choice in nodes}
            rows = sorted((choice for choice in nodes if choice in inner), key=number.__getitem__)
            levels.append(StaticLevel(width, sorted(number.values()), [number[choice] for choice in rows]))
        return levels


def refuse_drawn(policy: TreePolicy) -> None:
    """Refuses a tree whose shape would depend on what was drawn, or that passes over a draw.

    Raises:
        UsageError: because such a tree is not lossless.
    """
    if policy.shapes is not None:
        for shape in policy.shapes.shapes:
            refuse_drawn(policy_of_shape(shape))
        return
    if policy.kind == "none":
        return
    if not policy.is_fixed:
        raise UsageError(
            "sampled drafts need a tree of fixed shape: a tree shaped by what was drawn is not lossless; "
            "give --tree chain or --tree static:NAME"
        )
    if policy.passes_over is not None:
        raise UsageError(
            f"static tree {policy.name}: node {list(policy.passes_over)} has no earlier sibling; sampled drafts are "
            "tried in the order of their draws, and none may be passed over: number the children of each node from 0"
        )


NO_TREE = TreePolicy(kind="none", depth=0, top_k=0, budget=0)


def static_policy(choices: list[list[int]], name: str, kind: Literal["static", "chain"] = "static") -> TreePolicy:
    """The policy of a list of choices.

    Raises:
        UsageError: where it is not a tree: empty, a node twice, or a node without its parent.
    """
    nodes = {tuple(choice) for choice in choices}
    if not choices or () in nodes:
        raise UsageError(f"static tree {name}: wanted lists of child ranks, at least one, none of them empty")
    if all(rank > 0 for node in nodes for rank in node):
        raise UsageError(f"static tree {name}: no node has rank 0, the drafter's best; ranks count from 0, not from 1")
    if len(nodes) != len(choices):
        raise UsageError(f"static tree {name}: a node is listed twice")
    for node in sorted(nodes):
        if len(node) > 1 and node[:-1] not in nodes:
            raise UsageError(f"static tree {name}: node {list(node)} has no parent {list(node[:-1])}")
    ordered = tuple(sorted(nodes, key=lambda node: (len(node), node)))
    return TreePolicy(
        kind=kind,
        depth=max(map(len, nodes)),
        top_k=1 + max(max(node) for node in nodes),
        budget=len(nodes),
        name=name,
        choices=ordered,
    )


def chain_policy(depth: int) -> TreePolicy:
    """One path of ``depth`` nodes."""
    if not 1 <= depth <= LIMITS[0][1]:
        raise UsageError(f"got depth {depth}, wanted 1 to {LIMITS[0][1]}")
    return static_policy([[0] * length for length in range(1, depth + 1)], f"chain-{depth}", "chain")


def policy_of_shape(shape: TreeShape) -> TreePolicy:
    """The policy of one shape of a table.

    Raises:
        UsageError: where it is not a tree.
    """
    if shape.kind == "none":
        return NO_TREE
    if shape.choices is not None and (shape.kind == "static" or shape.kind == "chain"):
        return static_policy(shape.choices, shape.name, shape.kind)
    return TreePolicy(kind=shape.kind, depth=shape.depth, top_k=shape.top_k, budget=shape.budget)


def auto_policy(table: ShapeTable) -> TreePolicy:
    """The policy that chooses one shape of ``table`` for each step. Its numbers are the largest of all shapes.

    Raises:
        UsageError: where a shape is not a tree, or none of them drafts.
    """
    policies = [policy_of_shape(shape) for shape in table.shapes]
    return TreePolicy(
        kind="auto",
        depth=max(policy.depth for policy in policies),
        top_k=max(policy.top_k for policy in policies),
        budget=max(policy.budget for policy in policies),
        shapes=table,
    )


def _preset(widths: list[list[int]]) -> list[list[int]]:
    """Choices from how many children each rank path's node has: ``widths[d][r]`` children for the r-th node, in order,
    of level d; nodes beyond the list have none."""
    choices: list[list[int]] = []
    level: list[list[int]] = [[]]
    for counts in widths:
        level = [[*node, rank] for node, count in zip(level, counts, strict=False) for rank in range(count)]
        choices += level
    return choices


#: Named shapes, from a narrow one for large batches to a bushy one for a single row.
PRESETS = {
    "pair-6": _preset([[2], [2, 1], [1]]),
    "bush-16": _preset([[4], [3, 2, 1], [2, 1, 1], [1, 1]]),
    "bush-25": _preset([[4], [3, 2, 2, 1], [3, 2, 1, 1], [2, 1, 1], [1, 1]]),
}


def parse_policy(text: str, depth: int, top_k: int, budget: int) -> TreePolicy:
    """The policy that ``--tree`` names: ``dynamic``, ``chain``, ``static:NAME`` or ``static:FILE``.

    ``depth``, ``top_k`` and ``budget`` bound a dynamic tree; a chain has ``depth`` nodes; a static tree brings its own.

    Raises:
        UsageError: where it names none.
    """
    if text == "dynamic":
        return TreePolicy(kind="dynamic", depth=depth, top_k=top_k, budget=budget)
    if text == "chain":
        return chain_policy(depth)
    if text == "auto":
        raise UsageError(
            "got tree auto without a profile: measure one with specscope bench --calibrate FILE, and pass "
            "it with --profile FILE"
        )
    kind, _, name = text.partition(":")
    if kind != "static" or not name:
        raise UsageError(f"got tree {text!r}, wanted dynamic, chain, static:NAME ({', '.join(PRESETS)}) or static:FILE")
    if name in PRESETS:
        return static_policy(PRESETS[name], name)
    return static_policy(_read_choices(Path(name)), Path(name).stem)


def _read_choices(path: Path) -> list[list[int]]:
    try:
        choices = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no static tree {str(path)!r}: wanted {', '.join(PRESETS)}, or a file of choices") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read a static tree from {path}: {error}") from None
    right = isinstance(choices, list) and all(
        isinstance(choice, list) and all(type(rank) is int and rank >= 0 for rank in choice) for choice in choices
    )
    if not right:
        raise UsageError(
            f"{path}: wanted a JSON list of choices, each a list of child ranks, such as [[0], [1], [0, 0]]"
        )
    return [list(choice) for choice in choices]
