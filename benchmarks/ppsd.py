"""How fast the pipeline is beside sequential decoding on the same stages, and beside what is possible on paper.

    python -m benchmarks.ppsd --stages 2
    python -m benchmarks.ppsd --stages 2 --exit-layer 5 --untrained --tokens 96
    python -m benchmarks.ppsd --stages 2 --keep measured

Each prompt is decoded in turn, in the same processes: sequentially, with the exit head, with drafts that always hold,
and with drafts that never do; then by the whole teacher in the first process. So every ratio is of the same minutes.
The costs of stages, head and hops are medians of what the stages recorded meanwhile. From them come the closed form and
the simulation, also for more stages than this machine has cores; the share of drafts that must hold there for the
pipeline to be as fast as EAGLE-3 in one process, which is measured on the same prompts; and draft-then-verify.

With ``--keep FOLDER``, each prompt of each round is put there as soon as it is measured, and is not measured again.
Times of another machine or another state of the code do not belong into the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.kept import kept
from specscope.engine.ppsd.choice import PipelineChoice
from specscope.engine.ppsd.launch import is_rank, launch
from specscope.engine.ppsd.lifeline import Lifeline
from specscope.engine.settings import ModelChoice, Settings

MODES = ("sequential", "head", "always", "never")
MORE_STAGES = (2, 4, 8, 16)


def main() -> None:
    """Launches the ranks, or is one of them."""
    options = _options()
    if not is_rank():
        launch(["-m", "benchmarks.ppsd", *sys.argv[1:]], options.stages, hung_after_s=60)
        return
    lifeline = Lifeline(int(os.environ["RANK"]))
    _serve(options, lifeline)
    sys.stdout.flush()
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--exit-layer", type=int)
    parser.add_argument("--untrained", action="store_true", help="no exit head: the teacher's norm reads the exit")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens per prompt")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="page to draw the speed-up on")
    parser.add_argument("--keep", type=Path, help="folder for what is measured; what is there is not measured again")
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> tuple[Settings, PipelineChoice]:
    drafter = "early-exit:untrained" if options.untrained else "early-exit"
    settings = Settings(choice=ModelChoice(drafter=drafter, device="cpu"), max_new_tokens=options.tokens)
    return settings, PipelineChoice(num_stages=options.stages, exit_layer=options.exit_layer, patience_s=60)


def _serve(options: argparse.Namespace, lifeline: Lifeline) -> None:
    from specscope.engine.ppsd.rank import exchange_facts, joined, load_rank, serve

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[lifeline.rank % len(cores)]})
    settings, choice = _settings(options)
    loaded = load_rank(settings, choice, lifeline.rank, recording=True)
    with joined(lifeline, choice.num_stages, loaded.means):
        exchange_facts(loaded.stage, lifeline.rank, loaded.means)
        if lifeline.rank:
            serve(loaded, settings, lifeline, num_stages=options.stages, recording=True, spoil=lambda _: None)
            return
        _measure(options, settings, choice, loaded)


class _Collector:
    """Keeps what the stages did; it writes nothing."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def turn_started(self, prompt_ids: list[int], reused_length: int, first: Any) -> None:
        self.events += first.events

    def token_verified(self, verified: Any) -> None:
        self.events += verified.events

    def turn_ended(self, turn: Any, events: list[Any]) -> None:
        self.events += events


class _Measures:
    """Times per token and acceptances by mode, and what the stages' work took, over all that was measured."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.accepted: dict[str, list[float]] = defaultdict(list)
        self.durations: dict[str, list[int]] = defaultdict(list)

    def add(self, measured: dict[str, Any]) -> None:
        """Takes in what ``_measure_prompt`` returned."""
        for mode, time_ns in measured["times"].items():
            self.times[mode].append(time_ns)
        for mode, share in measured["accepted"].items():
            self.accepted[mode].append(share)
        for work, durations in measured["durations"].items():
            self.durations[work] += durations


class _Engines(NamedTuple):
    """What a prompt is decoded by, in turn."""

    conductor: Any
    head: Any  # of the exit
    whole: Any  # the teacher in one process
    eagle: Any  # EAGLE-3 in one process
    rules: Any
    vocab_size: int


def _measure(options: argparse.Namespace, settings: Settings, choice: PipelineChoice, loaded: Any) -> None:
    from specscope.engine.load.models import load_models
    from specscope.engine.ppsd.turns import stop_rules
    from specscope.engine.run.prompts import load_prompts
    from specscope.engine.settings import DEMO_MODELS

    teacher = loaded.stage.part
    engines = _Engines(
        _conductor(options, choice, loaded),
        loaded.exit_draft,
        whole=load_models(replace(settings.choice, mode="baseline")),
        eagle=load_models(replace(settings.choice, drafter="eagle3")),
        rules=stop_rules(settings, teacher)._replace(eos_token_ids=[]),
        vocab_size=teacher.vocab_size,
    )
    prompts = load_prompts(DEMO_MODELS / "prompts.jsonl")[: options.prompts]
    shape = {"stages": options.stages, "exit_layer": len(loaded.stage.layers), "untrained": options.untrained}
    measures = _Measures()
    for number in range(options.rounds):
        for prompt in prompts:
            context = list(teacher.tokenizer(prompt.turns[0]).input_ids)
            key = {**shape, "tokens": options.tokens, "prompt": prompt.id, "round": number}
            measures.add(kept(options.keep, key, partial(_measure_prompt, engines, context)))
    engines.conductor.stop()
    _report(options, measures)


def _measure_prompt(engines: _Engines, context: list[int]) -> dict[str, Any]:
    """One prompt in every mode, and what the stages' work took while drafts always held."""
    collector = _Collector()
    measured = _decode_all(engines, context, collector)
    measured["times"]["one process"] = _time_alone(engines.whole, context, engines.rules)
    measured["times"]["EAGLE-3"] = _time_alone(engines.eagle, context, engines.rules)
    return {**measured, "durations": _durations(collector)}


def _conductor(options: argparse.Namespace, choice: PipelineChoice, loaded: Any) -> Any:
    from specscope.engine.ppsd.conductor import Conductor
    from specscope.engine.ppsd.events import EventLog
    from specscope.engine.ppsd.pace import Pace
    from specscope.engine.ppsd.rank import conductor_links

    return Conductor(
        loaded.stage,
        conductor_links(loaded, options.stages, recording=True),
        EventLog(0, recording=True),
        pace=Pace(choice.items_in_flight),
        exit_draft=loaded.exit_draft,
        decode_text=str,
        idle=lambda: None,
        patience_s=60,
    )


def _decode_all(engines: _Engines, context: list[int], collector: _Collector) -> dict[str, Any]:
    """Every mode; sequentially first, so that it is known which drafts hold."""
    from specscope.engine.ppsd.conductor import PipelineRequest
    from specscope.engine.ppsd.pace import Pace

    conductor, text = engines.conductor, list(context)
    times: dict[str, float] = {}
    accepted: dict[str, float] = {}
    for mode in MODES:
        conductor.exit_draft = drafts_of(mode, text, engines.head, engines.vocab_size)
        conductor.pace = Pace(conductor.pace.most)
        request = PipelineRequest(context, engines.rules, observer=collector if mode == "always" else _Collector())
        turn = conductor.decode(request, lambda _: None)
        if mode == "sequential":
            text += turn.output_ids
        assert [*context, *turn.output_ids] == text, "the output is the teacher's own"
        times[mode] = _ns_per_token(turn)
        accepted[mode] = turn.acceptance or 0.0
    return {"times": times, "accepted": accepted}


def _ns_per_token(turn: Any) -> float:
    """After the first token, which ends the prefill."""
    return float((turn.duration_ns - turn.prefill_ns) / (len(turn.output_ids) - 1))


def drafts_of(mode: str, text: list[int], head: Any, vocab_size: int) -> Any:
    """What drafts in ``mode``; always and never follow ``text``, and cost what ``head`` does."""
    from specscope.engine.ppsd.outcome import Drafted

    if mode in ("sequential", "head"):
        return None if mode == "sequential" else head

    def draft(hidden: Any, item: Any) -> Drafted:
        head(hidden, item)  # what it costs
        following = text[item.position + 1] if item.position + 1 < len(text) else 0
        return Drafted((following + (mode == "never")) % vocab_size, None)

    return draft


def _time_alone(models: Any, context: list[int], rules: Any) -> float:
    from specscope.engine.loop.session import Session

    session = Session(models.teacher, models.drafter)
    for _ in session.decode(context, rules):
        pass
    result = session.result
    return float((result.duration_ns - result.prefill_ns) / (len(result.output_ids) - 1))


def _durations(collector: _Collector) -> dict[str, list[int]]:
    """In ns: of each stage's work on a token, by the stage's number; of the head's, and of the hops."""
    from specscope.engine.ppsd.message import EventKind

    durations: dict[str, list[int]] = defaultdict(list)
    names = {EventKind.DRAFT: "draft", EventKind.HOP: "hop"}
    for event in collector.events:
        name = str(event.stage) if event.kind == EventKind.VERIFY else names.get(event.kind)
        if name is not None:
            durations[name].append(event.end - event.start)
    return dict(durations)


def _costs(durations: dict[str, list[int]], num_stages: int) -> Any:
    from specscope.engine.ppsd.theory import Costs

    def median(name: str) -> float:
        return float(statistics.median(durations[name])) if durations.get(name) else 0.0

    return Costs(stages=[median(str(stage)) for stage in range(num_stages)], draft=median("draft"), hop=median("hop"))


def _report(options: argparse.Namespace, measures: _Measures) -> None:
    from specscope.engine.ppsd.theory import pipeline_speedup

    times, accepted = measures.times, measures.accepted
    costs = _costs(measures.durations, options.stages)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        print(f"load {load:.1f} on {cores} cores: stages wait for a core, so that these times say little")
    print(f"costs per token in ms: stages {[round(c / 1e6, 3) for c in costs.stages]}, ", end="")
    print(f"head {costs.draft / 1e6:.3f}, hop {costs.hop / 1e6:.3f}; one core per rank, event log on")
    base = times["sequential"]
    print(f"{'':12} {'a':>6} {'ms/token':>9} {'speed-up':>9} {'closed':>7} {'wall/closed':>12} {'simulated':>10}")
    rows: dict[str, Any] = {}
    for mode in (*MODES, "one process", "EAGLE-3"):
        speedup = statistics.median(b / t for b, t in zip(base, times[mode], strict=True))
        row = {"ms": statistics.median(times[mode]) / 1e6, "speedup": speedup}
        line = f"{mode:12} {'':6} {row['ms']:9.2f} {speedup:9.3f}"
        if mode in accepted and mode != "sequential":
            row["a"] = statistics.mean(accepted[mode])
            row["closed"] = pipeline_speedup(costs, row["a"])
            row["simulated"] = _simulated(costs, row["a"])
            line = f"{mode:12} {row['a']:6.3f} {row['ms']:9.2f} {speedup:9.3f} {row['closed']:7.3f}"
            line += f" {speedup / row['closed']:12.3f} {row['simulated']:10.3f}"
        rows[mode] = row
        print(line)
    rows |= _report_more_stages(costs, statistics.median(times["EAGLE-3"]))
    _report_draft_then_verify(costs, rows["head"]["a"])
    if options.plot is not None:
        _plot(options.plot, costs, rows)
    stated = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    print(json.dumps({"options": stated, "rows": rows, "measured_s": round(time.process_time(), 1)}))


def _plot(path: Path, costs: Any, rows: dict[str, Any]) -> None:
    """What was measured on these stages, beside the closed form and the simulation for them and for more."""
    from benchmarks.ppsd_plot import Measured, speedup_figure, write_plot
    from specscope.engine.ppsd.theory import pipeline_speedup

    measured = [Measured(mode, rows[mode]["a"], rows[mode]["speedup"]) for mode in MODES if "a" in rows[mode]]
    count = len(costs.stages)
    curves = {f"closed form, {count} stages": partial(pipeline_speedup, costs)}
    curves[f"simulated, {count} stages"] = partial(_simulated, costs)
    curves |= {f"simulated, {more} equal stages": partial(_simulated, _spread(costs, more)) for more in MORE_STAGES[1:]}
    write_plot(path, speedup_figure(measured, curves))
    print(f"wrote {path}")


def _spread(costs: Any, num_stages: int) -> Any:
    """The same work, dealt evenly to so many stages."""
    from specscope.engine.ppsd.theory import Costs

    return Costs(stages=[sum(costs.stages) / num_stages] * num_stages, draft=costs.draft, hop=costs.hop)


def _report_more_stages(costs: Any, eagle_ns: float) -> dict[str, dict[str, float | None]]:
    """Simulated with the same work dealt evenly, beside EAGLE-3's ``eagle_ns`` per token in one process."""
    rows: dict[str, dict[str, float | None]] = {}
    for num_stages in MORE_STAGES:
        spread = _spread(costs, num_stages)
        gains = {f"{a:g}": _simulated(spread, a) for a in (0.0, 0.5, 0.8, 1.0)}
        shown = ", ".join(f"a {a}: {gain:.2f} ({gain / num_stages:.2f} per device)" for a, gain in gains.items())
        print(f"simulated, {num_stages:2} equal stages over sequential on the same: {shown}")
        crossing = _crossing(spread, eagle_ns)
        rows[f"{num_stages} stages"] = {"crossing": crossing}
        words = f"drafts that hold from a = {crossing:.2f} on" if crossing is not None else "no share of drafts"
        print(f"{'':11}as fast as EAGLE-3 in one process: {words}")
    return rows


def _report_draft_then_verify(costs: Any, acceptance: float) -> None:
    """One after the other on one device, with the same head: the closed form, and where it falls below 1."""
    from specscope.engine.ppsd.theory import draft_then_verify_speedup

    share = (costs.stages[0] + costs.draft) / sum(costs.stages)
    gains = ", ".join(
        f"{drafts} drafts {draft_then_verify_speedup(share, acceptance, drafts):.2f}" for drafts in (1, 2, 4, 8)
    )
    shares = [step / 100 for step in range(101)]
    pays = next((a for a in shares if max(draft_then_verify_speedup(share, a, n) for n in (1, 2, 4, 8)) >= 1), None)
    print(f"draft-then-verify on one device, closed form with a {acceptance:.3f}: {gains}; below 1 where a < {pays}")


def _crossing(costs: Any, eagle_ns: float) -> float | None:
    """The least share of drafts that must hold for the stages to be as fast as EAGLE-3; None where no share does."""
    shares = [step / 20 for step in range(21)]
    return next((a for a in shares if costs.sequential / _simulated(costs, a) <= eagle_ns), None)


def _simulated(costs: Any, acceptance: float, num_tokens: int = 500) -> float:
    """Speed-up over sequential decoding on the same stages."""
    import random

    from specscope.engine.ppsd.simulate import Simulation

    chance = random.Random(5)
    held = [chance.random() < acceptance for _ in range(num_tokens + 1)]
    total = Simulation(costs, lambda position: held[position % len(held)]).run(num_tokens)
    return float(costs.sequential * num_tokens / total)


if __name__ == "__main__":
    main()
