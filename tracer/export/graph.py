"""A step's draft tree as a ``networkx`` graph, and as DOT or GraphML text for the tools that draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from specscope.schemas import Step
from specscope.tracer.errors import UsageError
from specscope.tracer.naming.tokens import TokenTexts

if TYPE_CHECKING:
    import networkx

GraphFormat = Literal["dot", "graphml"]


def tree_graph(step: Step, texts: TokenTexts | None = None) -> networkx.DiGraph[int]:
    """The draft tree of ``step``: one node per slot, slot 0 the root; edges lead from parent to child.

    Nodes have the attributes ``token``, ``text`` (with escapes where it is not printable, the id as ``#id`` where no
    text is known), ``depth``, ``accepted``, and where they are recorded ``logprob`` and ``score`` (the drafter's,
    natural logarithm) and ``teacher_token`` (the teacher's best token after this slot).

    Raises:
        UsageError: where the step records no tree.
    """
    import networkx

    shown = texts if texts is not None else TokenTexts(None)
    shown.learn(step)
    tree = step.tree
    if tree is None:
        raise UsageError(f"turn {step.turn}, step {step.step} records no tree, so there is no graph of it")
    accepted = {0, *step.accept.path} if step.accept is not None else {0}
    graph = networkx.DiGraph(turn=step.turn, step=step.step)
    for slot, token in enumerate(tree.tokens):
        values: dict[str, Any] = {
            "token": token,
            "text": shown.shown(token),
            "depth": _at(tree.depths, slot),
            "accepted": slot in accepted,
            "logprob": _at(tree.logprobs, slot),
            "score": _at(tree.scores, slot),
            "teacher_token": _at(step.verify.argmax, slot) if step.verify is not None else None,
        }
        graph.add_node(slot, **{name: value for name, value in values.items() if value is not None})
    graph.add_edges_from((parent, slot) for slot, parent in enumerate(tree.parents) if slot > 0)
    return graph


def _at(values: list[Any] | None, slot: int) -> Any:
    return values[slot] if values is not None and slot < len(values) else None


def graph_text(graph: networkx.DiGraph[int], form: GraphFormat) -> str:
    """``graph`` in a format that Graphviz (``dot``) or yEd and Gephi (``graphml``) read."""
    return _dot(graph) if form == "dot" else _graphml(graph)


def _graphml(graph: networkx.DiGraph[int]) -> str:
    import networkx

    clean = networkx.DiGraph(**graph.graph)
    for slot, values in graph.nodes(data=True):
        clean.add_node(slot, **{name: _xml_safe(value) for name, value in values.items()})
    clean.add_edges_from(graph.edges)
    return "\n".join(networkx.generate_graphml(clean)) + "\n"


def _xml_safe(value: Any) -> Any:
    """Without the control characters that XML cannot hold, not even escaped."""
    if not isinstance(value, str):
        return value
    return "".join(c if c in "\t\n\r" or (ord(c) >= 32 and c not in "\ufffe\uffff") else "\ufffd" for c in value)


def _dot(graph: networkx.DiGraph[int]) -> str:
    lines = [f'digraph "turn {graph.graph["turn"]}, step {graph.graph["step"]}" {{', "  node [shape=box];"]
    for slot, values in graph.nodes(data=True):
        label = f"{slot}: {values['text']}"
        if "logprob" in values:
            label += f"\n{values['logprob']:.3g}"
        style = ", style=bold" if values["accepted"] else ""
        lines.append(f"  {slot} [label={_quoted(label)}{style}];")
    lines += [f"  {parent} -> {child};" for parent, child in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A DOT string: backslashes, quotes and line ends escaped, other control characters replaced."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if ord(c) >= 32 else "\ufffd" for c in escaped) + '"'
