"""Steps as rows and trees as graphs, of real traces and of hostile texts."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import networkx
import pytest
from support.called import specscope
from support.traces import EAGER, FUSED, first_step, load, store

from specscope.tracer import TraceReader, graph_text, step_rows, tree_graph
from specscope.tracer.errors import UsageError
from specscope.tracer.export.perfetto import perfetto_trace


def test_rows_are_the_steps_of_the_trace() -> None:
    with TraceReader(FUSED) as reader:
        steps = [step for entry in reader.turns for step in reader.steps(entry)]
    rows = list(step_rows(FUSED))
    assert [(row["turn"], row["step"]) for row in rows] == [(step.turn, step.step) for step in steps]
    assert [row["accepted_length"] for row in rows] == [s.accept.accepted_length for s in steps if s.accept is not None]
    assert all(row["tokens_per_step"] == row["accepted_length"] + 1 for row in rows)
    assert all(row["verify_ms"] > 0 for row in rows)
    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}, "every row has the same columns"


def test_a_graph_is_the_tree_of_its_step() -> None:
    with TraceReader(EAGER) as reader:
        for step in reader.steps(reader.turns[0]):
            assert step.tree is not None
            assert step.accept is not None
            graph = tree_graph(step)
            assert networkx.is_arborescence(graph)
            depths = networkx.single_source_shortest_path_length(graph, 0)
            assert [depths[slot] for slot in sorted(depths)] == step.tree.depths
            accepted = [slot for slot, values in graph.nodes(data=True) if values["accepted"]]
            assert accepted == sorted([0, *step.accept.path])


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A trace whose texts hold what DOT, XML and a terminal give a meaning to."""
    lines = load(FUSED)
    step = first_step(lines)
    step["texts"] = {str(token): '"];\n<&>\\\x1b[31m' for token in step["tree"]["tokens"]}
    return store(lines, tmp_path / "hostile.jsonl")


def test_graphml_is_read_back_whatever_the_texts_hold(hostile: Path) -> None:
    with TraceReader(hostile) as reader:
        graph = tree_graph(reader.step(reader.turns[0], 0))
    text = graph_text(graph, "graphml")
    ElementTree.fromstring(text)
    again = networkx.read_graphml(BytesIO(text.encode()), node_type=int)
    assert sorted(again.edges) == sorted(graph.edges)
    assert [again.nodes[slot]["token"] for slot in sorted(again)] == [
        graph.nodes[slot]["token"] for slot in sorted(graph)
    ]


def test_a_dot_label_ends_where_it_should(hostile: Path) -> None:
    with TraceReader(hostile) as reader:
        graph = tree_graph(reader.step(reader.turns[0], 0))
    lines = graph_text(graph, "dot").splitlines()
    assert len(lines) == 2 + graph.number_of_nodes() + graph.number_of_edges() + 1
    assert "\x1b" not in "".join(lines)


def test_show_prints_a_graph_and_asks_for_the_step() -> None:
    done = specscope("show", FUSED, "--step", "0", "--format", "dot")
    assert done.code == 0
    assert done.out.startswith('digraph "turn 0, step 0" {')
    done = specscope("show", FUSED, "--format", "graphml")
    assert done.code == 2
    assert "--step" in done.err


def test_a_step_without_a_tree_has_no_graph(tmp_path: Path) -> None:
    lines = load(FUSED)
    del first_step(lines)["tree"]
    with TraceReader(store(lines, tmp_path / "bare.jsonl")) as reader, pytest.raises(UsageError, match="no tree"):
        tree_graph(reader.step(reader.turns[0], 0))


def test_stage_timings_become_slices_one_after_another() -> None:
    with TraceReader(FUSED) as reader:
        page = json.loads(json.dumps(perfetto_trace(reader)))
    slices = [event for event in page["traceEvents"] if event["ph"] == "X"]
    steps = [line for line in load(FUSED) if line["kind"] == "step"]
    drawn = [event for event in slices if event["name"].startswith("step ")]
    assert [event["args"]["accepted_length"] for event in drawn] == [
        step["accept"]["accepted_length"] for step in steps
    ]
    for event, step in zip(drawn, steps, strict=True):
        recorded = [ns for name, ns in step["timing"].items() if name.endswith("_ns") and ns is not None]
        assert event["dur"] == pytest.approx(sum(recorded) / 1000)
        inside = [
            at for at in slices if at["tid"] == event["tid"] and "step" not in at["args"] and at["name"] != "prefill"
        ]
        within = [at for at in inside if event["ts"] - 1e-6 <= at["ts"] < event["ts"] + event["dur"] - 1e-6]
        assert len(within) == len([ns for ns in recorded if ns > 0])
    starts = [event["ts"] for event in drawn]
    assert starts == sorted(starts)


def test_the_export_is_a_file_and_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    assert specscope("export", str(FUSED), "-o", str(out)).code == 0
    assert json.loads(out.read_text(encoding="utf-8"))["displayTimeUnit"] == "ms"
    refused = specscope("export", str(FUSED), "-o", str(out))
    assert (refused.code, "exists already" in refused.err) == (2, True)
