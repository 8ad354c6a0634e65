"""Every deliberate fault is one: in a live run it breaks the rule that it must break, where it must, and nothing else
of the same run without it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.called import specscope
from support.traces import load

from specscope.engine.lab.faults import FAULTS, Fault, FaultTarget, find_fault, inject, injecting, kernels
from specscope.engine.lab.selftest.scenarios import scenarios
from specscope.engine.load.models import DEMO_MODELS, load_models
from specscope.engine.loop.phases import Phases
from specscope.engine.run.prompts import Prompt, load_prompts
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import (
    NO_PROCESSORS,
    CacheName,
    GrammarChoice,
    ModelChoice,
    ProcessorChoice,
    SamplingRule,
    Settings,
)
from specscope.engine.tree.policy import TreePolicy, parse_policy
from specscope.tracer.errors import UsageError
from specscope.tracer.oracle.check import check_trace
from specscope.tracer.oracle.report import OracleReport

TREE = TreePolicy(kind="dynamic", depth=4, top_k=4, budget=12)
DEMO = ModelChoice(teacher="demo", drafter="eagle3", mode="fused", dtype="float32", device="cpu", policy=TREE)
SHORT = Prompt("short", ids=(532, 46, 36, 278))
CODE = load_prompts(DEMO_MODELS / "prompts.jsonl")[0]
#: Keys of the prompt from here on count as those behind position 512, so that no long prompt is needed.
EARLY_MASK_END = 16


@dataclass(frozen=True)
class Setting:
    """A scenario of the selftest, made small."""

    choice: ModelChoice = DEMO
    prompts: tuple[Prompt, ...] = (CODE,)
    tokens: int = 16
    batch_size: int = 1
    processors: ProcessorChoice = field(default=NO_PROCESSORS)
    cache: CacheName = "dense"
    grammar: GrammarChoice | None = None


DRAWN = SamplingRule("sampling", temperature=0.8, draft="sampled")
SETTINGS = {
    "greedy": Setting(tokens=20),
    "captured": Setting(replace(DEMO, graph="on"), tokens=8),
    "capacity": Setting(),
    "long": Setting(tokens=4),
    "wide": Setting(replace(DEMO, policy=TreePolicy(kind="dynamic", depth=4, top_k=8, budget=48)), tokens=8),
    "sampling": Setting(replace(DEMO, policy=parse_policy("static:pair-6", 1, 1, 1), rule=DRAWN)),
    "block": Setting(
        replace(
            DEMO, policy=parse_policy("chain", 4, 1, 4), rule=SamplingRule("block", temperature=0.8, draft="sampled")
        )
    ),
    "point-mass": Setting(replace(DEMO, rule=SamplingRule("sampling", temperature=0.8))),
    "batch": Setting(prompts=(SHORT, CODE), tokens=6, batch_size=2),
    "paged": Setting(prompts=(SHORT, CODE), tokens=16, batch_size=2, cache="paged"),
    "arrivals": Setting(replace(DEMO, rule=SamplingRule("sampling", temperature=0.8)), prompts=(CODE, SHORT), tokens=6),
    "processors": Setting(processors=ProcessorChoice(repetition_penalty=1.3, no_repeat_ngram=3), tokens=8),
    "eager-candidate": Setting(replace(DEMO, mode="eager"), tokens=8),
    "guided": Setting(tokens=14, grammar=GrammarChoice("regex", r"([ ]{0,12}[a-z_.]+ = [a-z_.]+\([a-z_., ]*\)\n)+")),
}


@pytest.fixture(scope="module")
def settings(teacher_folder: Path, head_folder: Path) -> dict[str, Setting]:
    """The scenarios; the one at the last position has tiny models, which have few."""
    tiny = replace(DEMO, teacher=str(teacher_folder), drafter=f"eagle3:{head_folder}")
    return {**SETTINGS, "near-max": Setting(tiny, (Prompt("full", ids=tuple(i % 50 + 3 for i in range(244))),))}


@pytest.fixture(scope="module")
def honest(
    settings: dict[str, Setting], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[dict[str, Any]]]:
    """The records of a scenario's run without a fault, which violates nothing."""

    @cache
    def records(name: str) -> list[dict[str, Any]]:
        trace = run(settings[name], tmp_path_factory.mktemp("honest") / "trace.jsonl", None)
        assert not violated(check_trace(trace))
        return load(trace)

    return records


def run(setting: Setting, trace: Path, fault: Fault | None) -> Path:
    """Decodes and records; a fault of loading damages what is loaded."""
    choice = setting.choice
    if fault is not None and fault.damage is not None:
        choice = fault.damage(choice, trace.parent)
    settings = Settings(
        choice=choice,
        max_new_tokens=setting.tokens,
        batch_size=setting.batch_size,
        processors=setting.processors,
        cache=setting.cache,
        grammar=setting.grammar,
        fault=fault.id if fault is not None else None,
    )
    request = RunRequest(settings, list(setting.prompts), TraceTarget(trace))
    models = load_models(choice)
    list(run_turns(request, models, open_trace(request, models, print), change=injecting(fault)))
    return trace


def violated(report: OracleReport) -> set[str]:
    return {name for name, tally in report.invariants.items() if tally.failed}


def faults(outcome: str, *, provable: bool | None = None) -> list[Fault]:
    return [
        fault
        for fault in FAULTS.values()
        if fault.expect.outcome == outcome
        and provable in (None, fault.expect.invariant is not None)
        and fault.not_run is None  # test_windows runs those
    ]


def by_id(fault: Fault) -> str:
    return fault.id


#: What is a run's own, and digests, which another order of summation changes.
OWN = {"timing", "invariants", "seq", "kind", "turn", "step", "duration_ns"}
SAME_PLACE = {
    "verify.top_tokens": "verify.top_logits",
    "guided.returned.position": "verify.guided.returned",
    "guided.after.position": "stop.guided.after",
}


def differences(a: Any, b: Any, name: str) -> Iterator[str]:
    """Where two records differ, dotted, in order; levels are numbered from 1, as in a verdict."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            if key not in OWN and "digest" not in key:
                yield from differences(a[key], b.get(key), f"{name}.{key}" if name else key)
    elif name == "draft.levels" and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True), start=1):
            yield from differences(x, y, f"draft.levels[{number}]")
    elif a != b:
        yield name


def first_difference(honest: list[dict[str, Any]], faulty: list[dict[str, Any]]) -> str:
    """The first field, of the first record of a turn, that is another with the fault in."""
    for a, b in zip(honest, faulty, strict=False):
        if a["kind"] == b["kind"] == "turn_start":
            found = next(differences(a["prefill"], b["prefill"], "verify.prefill"), None)
        elif a["kind"] == b["kind"] == "step":
            found = next((SAME_PLACE.get(name, name) for name in differences(a, b, "")), None)
        else:
            found = None if a["kind"] == b["kind"] else "the number of steps"
        if found is not None:
            return found
    return "nothing"


@pytest.mark.parametrize("fault", faults("root"), ids=by_id)
def test_a_fault_breaks_its_rule_at_its_place_and_honest_runs_break_none(
    settings: dict[str, Setting],
    honest: Callable[[str], list[dict[str, Any]]],
    fault: Fault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault.scenario == "long":
        monkeypatch.setattr(kernels, "MASK_END", EARLY_MASK_END)
    trace = run(settings[fault.scenario], tmp_path / "trace.jsonl", fault)
    found = violated(check_trace(trace))
    if fault.expect.invariant is None:
        assert not found  # no record tells, so nobody may be blamed
    else:
        assert fault.expect.invariant in found
    first = first_difference(honest(fault.scenario), load(trace))
    assert first.partition(".")[0] in {phase for phase, _ in fault.expect.places}, first
    if fault.expect.invariant is None:
        assert any(first.startswith((f"{p}.{f}", "verify.prefill.top_logits")) for p, f in fault.expect.places), first


@pytest.mark.parametrize("fault", faults("violation"), ids=by_id)
def test_a_fault_that_changes_no_decision_is_a_violation(
    settings: dict[str, Setting], honest: Callable[[str], list[dict[str, Any]]], fault: Fault, tmp_path: Path
) -> None:
    trace = run(settings[fault.scenario], tmp_path / "trace.jsonl", fault)
    assert violated(check_trace(trace)) == {fault.expect.invariant}
    assert first_difference(honest(fault.scenario), load(trace)) == "nothing"


@pytest.mark.parametrize("fault", faults("refused"), ids=by_id)
def test_a_damaged_checkpoint_is_refused_with_its_reason(fault: Fault, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=fault.expect.says):
        run(SETTINGS["greedy"], tmp_path / "trace.jsonl", fault)


@pytest.mark.parametrize("fault", faults("incomparable"), ids=by_id)
def test_another_checkpoint_stands_in_the_manifest(
    honest: Callable[[str], list[dict[str, Any]]], fault: Fault, tmp_path: Path
) -> None:
    trace = run(SETTINGS["greedy"], tmp_path / "trace.jsonl", fault)
    assert not violated(check_trace(trace))
    changed = set(differences(honest("greedy")[0]["drafter"], load(trace)[0]["drafter"], "drafter"))
    digests = {f"drafter.{name}_digest" for name in ("config", "weights")}
    changed |= {name for name in digests if value(honest("greedy")[0], name) != value(load(trace)[0], name)}
    assert fault.expect.says in changed
    loaded = {name for name in changed if name.startswith("drafter.parameters.")}
    assert loaded or "drafter.weights_digest" not in changed, "other weights were loaded"
    assert changed - loaded <= {"drafter.source", *digests, fault.expect.says}


def value(record: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        record = record[part]
    return record


@pytest.mark.parametrize("form", ["F19.attention", "F19.mlp", "F19.norm"])
def test_a_fault_of_one_layer_sleeps_where_attention_is_eager(
    honest: Callable[[str], list[dict[str, Any]]], form: str, tmp_path: Path
) -> None:
    trace = run(SETTINGS["eager-candidate"], tmp_path / "trace.jsonl", find_fault(form))
    assert first_difference(honest("eager-candidate"), load(trace)) == "nothing"


def test_every_entry_of_the_catalogue_has_its_faults() -> None:
    assert {fault.entry for fault in FAULTS.values()} == {f"F{number:02}" for number in range(1, 41)}
    assert {fault.scenario for fault in FAULTS.values()} <= scenarios().keys()
    for fault in FAULTS.values():
        assert fault.not_run is None or fault.not_run.strip()
        if fault.expect.outcome in ("refused", "incomparable"):
            assert fault.expect.says
        else:
            assert fault.expect.places or fault.expect.outcome == "violation"


def test_an_entry_alone_is_its_first_form_and_the_manifest_has_the_whole_id(tmp_path: Path) -> None:
    assert [find_fault(name).id for name in ("F15", "F15.stale", "F16")] == ["F15.sibling", "F15.stale", "F16"]
    trace = tmp_path / "trace.jsonl"
    done = specscope("run", "--prompt", "a", "--max-new-tokens", "4", "--inject", "F15", "--trace", trace)
    assert done.code == 0, done.err
    assert load(trace)[0]["fault"] == "F15.sibling"
    with pytest.raises(UsageError, match=r"got fault 'F15.nose', wanted one of .*F15 \(.sibling"):
        find_fault("F15.nose")


def test_a_fault_of_the_head_is_refused_where_there_is_none() -> None:
    models = load_models(replace(DEMO, drafter="ngram"))
    with pytest.raises(UsageError, match=r"F03: the fault goes into an EAGLE-3 head, got drafter ngram"):
        inject(FaultTarget(models, Phases()), find_fault("F03"))
    inject(FaultTarget(models, Phases()), find_fault("F16"))


@pytest.mark.parametrize(
    ("fault", "cache", "other"), [("F36.stale", "dense", "paged"), ("F34.scaled", "paged", "dense")]
)
def test_a_fault_of_one_cache_is_refused_with_the_other(fault: str, cache: str, other: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    refused = specscope("run", "--prompt", "a", "--cache", cache, "--inject", fault, "--trace", trace)
    assert refused.code == 2
    wanted = f"{fault}: the fault goes into a {other} cache, got a {cache} one: use --cache {other}"
    assert wanted in " ".join(refused.err.split())
    assert not trace.exists()


def test_the_command_damages_what_it_loads(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    refused = specscope("run", "--prompt", "a", "--inject", "F07.missing-key", "--trace", trace)
    assert (refused.code, "lm_head.weight" in refused.err) == (2, True)
    assert not trace.exists()
