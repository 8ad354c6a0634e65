"""The comparison of heads: its ratios are of the same prompts, and a head that is no better is not called so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from click.testing import CliRunner

from benchmarks.heads import compared, main, rows
from specscope.engine.lab.bench.summary import summarise
from specscope.engine.lab.bench.turns import TurnMeasure
from specscope.engine.settings import DEMO_MODELS
from specscope.tracer.errors import EngineError, UsageError

PROMPTS = range(12)


def turn(variant: str, prompt: int, lengths: Sequence[int], seconds: float, digest: str = "same") -> TurnMeasure:
    return TurnMeasure(
        variant=variant,
        round=0,
        prompt_id=f"prompt {prompt}",
        prompt_turn=0,
        category=None,
        num_turns=1,
        num_tokens=60,
        duration_ns=round(seconds * 1e9),
        prefill_ns=0,
        accepted_lengths=list(lengths),
        phase_ns={},
        num_steps=len(lengths),
        num_drafted=0,
        trace_bytes=0,
        output_digest=digest,
    )


def table(measures: Sequence[TurnMeasure]) -> dict[str, list[str]]:
    """The cells of each row by the name of its head."""
    names = list(dict.fromkeys(measure.variant for measure in measures))
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows(summarise(measures, names), measures)]
    return {row[0]: row[1:] for row in cells[2:]}


def test_a_steady_gain_is_told_from_what_differs_between_prompts() -> None:
    """Prompts differ by far more than the heads do; one head gains a little everywhere, one here and loses there."""
    measures = [
        measure
        for prompt in PROMPTS
        for measure in (
            turn("baseline", prompt, [0] * 60, 6),
            turn("first", prompt, [prompt] * 10, 1 + prompt),
            turn("steady", prompt, [prompt] * 9 + [prompt + 2], 0.9 * (1 + prompt)),
            turn("wavering", prompt, [prompt] * 9 + [prompt + 2 * (-1) ** prompt], 1 + prompt),
        )
    ]
    shown = table(measures)
    assert shown["first"][-2:] == ["1.000 (1.000 to 1.000)"] * 2
    lengths, rates = shown["steady"][-2:]
    assert lengths.startswith("1.036 (1.0")
    assert rates == "1.111 (1.111 to 1.111)"
    _, low, _, high = shown["wavering"][-2].replace("(", "").replace(")", "").split()
    assert float(low) < 1 < float(high)
    assert shown["baseline"][-2] == "-"


def test_outputs_that_differ_end_it() -> None:
    with pytest.raises(EngineError, match="first: 1 outputs are not the teacher's own"):
        table([turn("baseline", 0, [0], 1), turn("first", 0, [1], 1, digest="other")])


def test_heads_are_named_apart() -> None:
    names = [variant.name for variant in compared(["demo", "work/drafter"], "demo")]
    assert names == ["baseline", "demo", "drafter"]
    for name, heads in {
        "drafter": ["work/drafter", str(DEMO_MODELS / "drafter")],
        "demo": ["demo", "demo"],
        "baseline": ["x/baseline", "demo"],
    }.items():
        with pytest.raises(UsageError, match=f"got the name {name} 2 times"):
            compared(heads, "demo")


def test_a_head_that_is_not_there_is_one_line_of_error() -> None:
    done = CliRunner().invoke(main, ["nosuch"])
    assert done.exit_code == 2
    assert done.output.startswith("error: no EAGLE-3 head at nosuch: ")
