"""What measurements come to, on measurements that are known: against numbers worked out by hand."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from specscope.engine.cli import bench_card
from specscope.engine.lab.bench.files import render_csv, render_markdown
from specscope.engine.lab.bench.plots import render_plots
from specscope.engine.lab.bench.report import BenchReport, RunFacts
from specscope.engine.lab.bench.summary import acceptance_by_depth, spread, summarise
from specscope.engine.lab.bench.tables import Table, tables
from specscope.engine.lab.bench.turns import TurnMeasure

NAMES = ("baseline", "fused")


def turn(variant: str, number: int, duration_ms: float, **more: Any) -> TurnMeasure:
    fields: dict[str, Any] = {
        "variant": variant,
        "round": 0,
        "prompt_id": f"p{number}",
        "prompt_turn": 0,
        "category": "even" if number % 2 == 0 else "odd",
        "num_turns": 1,
        "num_tokens": 10,
        "duration_ns": round(duration_ms * 1e6),
        "prefill_ns": 2_000_000,
        "accepted_lengths": [0] * 9 if variant == "baseline" else [2, 0, 3],
        "phase_ns": {"verify": 3_000_000, "draft": 1_500_000},
        "num_steps": 9 if variant == "baseline" else 3,
        "num_drafted": 0,
        "trace_bytes": 0,
        "output_digest": "same",
    }
    return TurnMeasure(**{**fields, **more})


def report_of(measures: list[TurnMeasure], expected: int | None = None, **facts: Any) -> BenchReport:
    known: dict[str, Any] = {
        "compare": "modes",
        "variants": NAMES,
        "prompts": "p.jsonl",
        "num_prompts": 4,
        "num_turns": 4,
        "rounds": 1,
        "clock": "wall",
        "max_new_tokens": 10,
        "teacher": "demo",
        "drafter": "eagle3",
        "device": "cpu",
        "dtype": "float32",
        "num_threads": 1,
        "num_ranks": 1,
        "versions": {},
    }
    expected = len(measures) if expected is None else expected
    return BenchReport(facts=RunFacts(**{**known, **facts}), measures=measures, expected=expected)


def test_percentiles_are_interpolated() -> None:
    numbers = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert numbers is not None
    assert (numbers.mean, numbers.p50, numbers.lowest, numbers.highest) == (3, 3, 1, 5)
    assert (numbers.lower_quartile, numbers.upper_quartile) == (2, 4)
    assert numbers.p90 == pytest.approx(4.6)  # between the fourth and the fifth, at 0.9 x 4 = 3.6
    assert numbers.p99 == pytest.approx(4.96)
    assert spread([]) is None


def test_acceptance_is_of_all_steps_and_of_those_that_got_there() -> None:
    depths = acceptance_by_depth([0, 1, 1, 3])
    assert [(d.depth, d.marginal, d.conditional) for d in depths] == [
        (1, 0.75, 0.75),
        (2, 0.25, pytest.approx(1 / 3)),
        (3, 0.25, 1.0),
    ]
    assert acceptance_by_depth([0, 0]) == []


def test_ratios_are_of_the_same_turn_in_the_same_round() -> None:
    measures = [turn("baseline", n, 20) for n in range(4)] + [turn("fused", n, 10 * (n + 1)) for n in range(4)]
    measures += [turn("baseline", 0, 90, round=1), turn("fused", 9, 1)]  # with no partner
    base, fused = summarise(measures, NAMES)
    assert base.speed_up is None
    assert fused.speed_up is not None
    assert fused.speed_up.num == 4
    assert fused.speed_up.mean == pytest.approx((2 + 1 + 2 / 3 + 0.5) / 4)
    assert {c.category: round(c.speed_up.mean, 4) for c in fused.categories if c.speed_up} == {
        "even": round((2 + 2 / 3) / 2, 4),
        "odd": 0.75,
    }
    assert base.total_tokens_per_s == pytest.approx(50 / 0.17)


def test_stages_are_per_step_and_the_rest_of_a_step_is_other() -> None:
    (fused,) = summarise([turn("fused", 0, 11)], ("fused",))
    stages = {stage.name: stage for stage in fused.stages}
    assert stages["verify"].ms == pytest.approx(1.0)
    assert stages["draft"].ms == pytest.approx(0.5)
    assert stages["other"].ms == pytest.approx((11 - 2 - 4.5) / 3)
    assert sum(stage.share for stage in fused.stages) == pytest.approx(1)
    assert "commit" not in stages, "of which no turn records the time"


def test_other_outputs_are_named_and_equal_ones_are_not() -> None:
    measures = [turn("baseline", 0, 20), turn("fused", 0, 10)]
    assert not any("tokens of" in remark for remark in report_of(measures).remarks)
    other = [measures[0], turn("fused", 0, 10, output_digest="other")]
    assert "fused: the tokens of 1 turn are not baseline's" in report_of(other).remarks


def test_a_partial_report_says_so_everywhere() -> None:
    measures = [turn("baseline", 0, 20), turn("fused", 0, 10), turn("baseline", 1, 20)]
    whole, partial = report_of(measures), report_of(measures, expected=8)
    for render in (render_csv, render_markdown, render_plots):
        assert "partial" not in render(whole).lower().split("</style>")[0]
    assert "partial,baseline" in render_csv(partial)
    assert "PARTIAL: 3 of 8 measurements" in render_markdown(partial)
    assert "<li>PARTIAL: 3 of 8 measurements" in render_plots(partial)
    assert partial.to_json()["state"] == "partial"


def test_a_variant_of_which_nothing_was_measured_is_left_out() -> None:
    report = report_of([turn("baseline", 0, 20)], expected=2)
    assert [summary.name for summary in report.summaries] == ["baseline"]
    assert render_plots(report)
    only_fused = report_of([turn("fused", 0, 20)], expected=2)
    assert [summary.name for summary in only_fused.summaries] == ["fused"]
    for render in (render_csv, render_markdown, render_plots):
        assert render(only_fused)


def test_tables_are_narrow_and_deep_trees_and_many_variants_take_several() -> None:
    names = ("baseline", *(f"budget {n}" for n in range(6)))
    measures = [turn(name, n, 10, accepted_lengths=[10]) for name in names for n in range(2)]
    drawn = tables(report_of(measures, variants=names))
    titles = [table.title for table in drawn]
    assert sum("by category" in title for title in titles) == 2
    assert sum("marginal" in title for title in titles) == 2
    for table in drawn:
        widths = [max(len(row[number]) for row in [table.columns, *table.rows]) for number in range(len(table.columns))]
        assert len(table.title) <= 80
        assert sum(widths) + 2 * len(widths) <= 86, "headings of two words are broken where a terminal is narrow"


def test_tables_that_are_too_wide_for_a_terminal_are_wrapped_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr(bench_card, "console", lambda: Console(file=page, width=80, emoji=False))
    columns = ("variant", *(f"tokens per second {number}" for number in range(8)))
    rows = [("a variant of a long name", *(f"{number}.25" for number in range(8)))]
    bench_card.print_tables([Table("Speed", columns, rows)], [])
    lines = page.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert set(page.getvalue().split()) == set(" ".join(("Speed", *columns, *rows[0])).split())


def test_what_prompt_files_say_is_text_in_markdown_and_html() -> None:
    bad = "a|b<script>"
    measures = [turn(name, n, 10, category=[bad, "fine"][n]) for name in NAMES for n in range(2)]
    report = report_of(measures, prompts="<script>alert(1)</script>")
    assert "a\\|b&lt;script>" in render_markdown(report)
    page = render_plots(report)
    assert "<script>alert(1)" not in page
    assert bad not in page
