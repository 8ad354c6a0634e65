"""An EAGLE-3 head and a lookup in one tree: the tokens stay the teacher's own, traces are sound, equal and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.drafting import PROMPTS, TOKENS, choice_of, decode, decode_turn, teachers_own
from support.recorded_runs import TinyRuns
from support.tiny_models import POLICY, reference_generate

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.merged.drafter import MergedDrafter
from specscope.engine.lab.rerun.recorded_run import Overrides
from specscope.engine.lab.rerun.replay import Replay, ReplayRequest
from specscope.engine.load.models import load_models
from specscope.engine.loop.session import Session
from specscope.engine.settings import CACHE_STRATEGIES, ModelChoice, SamplingRule
from specscope.engine.tree.policy import chain_policy, parse_policy
from specscope.schemas import Step
from specscope.tracer.compare.diff import diff_traces
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader
from specscope.tracer.oracle.check import check_trace

SAMPLED = SamplingRule("sampling", temperature=0.9, top_k=8)


def name_of(head_folder: Path) -> str:
    return f"eagle3+ngram:{head_folder}"


def steps_in(trace: Path) -> list[Step]:
    with TraceReader(trace) as reader:
        return [step for turn in reader.turns for step in reader.steps(turn)]


@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tokens_are_the_teachers_own_and_both_propose(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, mode: str, batch_size: int
) -> None:
    trace = tmp_path / "trace.jsonl"
    choice = choice_of(teacher_folder, name_of(head_folder), mode)
    assert decode(choice, trace, batch_size) == teachers_own(teacher_folder)
    steps = steps_in(trace)
    names = {name for step in steps if step.tree is not None for name in step.tree.proposed_by or ()}
    assert names >= {"", "eagle3", "ngram"}
    assert {len(step.tree.tokens) - 1 for step in steps if step.tree is not None} == {POLICY.budget}


@pytest.mark.parametrize("strategy", CACHE_STRATEGIES)
def test_every_cache_strategy_commits_the_same(
    teacher_folder: Path, head_folder: Path, tmp_path: Path, strategy: str
) -> None:
    choice = choice_of(teacher_folder, name_of(head_folder))
    outputs = decode(choice, tmp_path / "trace.jsonl", batch_size=2, strategy=strategy)
    assert outputs == teachers_own(teacher_folder)


@pytest.fixture
def runs(teacher_folder: Path, head_folder: Path, tmp_path: Path) -> TinyRuns:
    return TinyRuns(teacher_folder, head_folder, tmp_path)


def assert_proposers_are_judged(trace: Path) -> None:
    report = check_trace(trace)
    assert report.num_violations == 0
    assert all(report.invariants[i].passed for i in ("tree.proposed-by", "tree.lookup-is-in-text"))


@pytest.mark.parametrize("rule", [None, SAMPLED], ids=["greedy", "sampled"])
def test_eager_and_fused_decide_alike_and_a_replay_finds_it_so(
    runs: TinyRuns, tmp_path: Path, rule: SamplingRule | None
) -> None:
    drawn: dict[str, Any] = {} if rule is None else {"rule": rule}
    eager = runs("eager", "eagle3+ngram", PROMPTS, mode="eager", **drawn)
    fused = runs("fused", "eagle3+ngram", PROMPTS, **drawn)
    for trace in (eager, fused):
        assert_proposers_are_judged(trace)
    assert diff_traces(eager, fused).exit_code == 0
    again = tmp_path / "again.jsonl"
    Replay(ReplayRequest(trace=fused, out=again, overrides=Overrides()), warn=print).run(lambda _: None)
    assert check_trace(again).num_violations == 0
    assert diff_traces(fused, again).exit_code == 0


def test_a_second_turn_keeps_what_is_known_and_changes_nothing(teacher_folder: Path, head_folder: Path) -> None:
    models = load_models(choice_of(teacher_folder, name_of(head_folder)))
    session = Session(models.teacher, models.drafter)
    context = [5, 9, 2, 33, 8]
    for more in ([4, 4, 12], [30], [9, 9]):
        steps = decode_turn(session, context)
        wanted = reference_generate(teacher_folder, context, TOKENS)
        assert session.result.output_ids == wanted
        assert [step.drafter_pairs for step in steps] == [step.commit.committed_before for step in steps]
        context = context + wanted + more


def refused(choice: ModelChoice, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_models(choice)


def test_what_is_not_lossless_or_has_no_room_is_refused_in_words(teacher_folder: Path, head_folder: Path) -> None:
    name = name_of(head_folder)
    drawn = SamplingRule("sampling", temperature=0.8, draft="sampled")
    refused(choice_of(teacher_folder, name, policy=chain_policy(3), rule=drawn), "cannot be weighed side by side: drop")
    for tree in ("chain", "static:pair-6"):
        policy = parse_policy(tree, 3, 3, 9)
        refused(choice_of(teacher_folder, name, policy=policy), "a tree of fixed shape has no room for what the lookup")
    refused(choice_of(teacher_folder, "eagle3+ngram"), "fits only the demo's teacher: give --drafter eagle3.ngram:PATH")
    refused(choice_of(teacher_folder, "eagle3+ngram:nowhere"), "no EAGLE-3 head at nowhere")
    drafter = load_models(choice_of(teacher_folder, name)).drafter
    assert isinstance(drafter, MergedDrafter)
    with pytest.raises(ValueError, match="a lookup draws nothing"):
        drafter.propose([], TreeCache(1, 8), [torch.Generator()])


def test_the_manifest_has_the_head_and_both_settings(teacher_folder: Path, head_folder: Path) -> None:
    manifest = load_models(choice_of(teacher_folder, name_of(head_folder), drafter_window=7)).drafter.manifest()
    assert (manifest.kind, manifest.names, manifest.name) == ("eagle3+ngram", ["eagle3", "ngram"], head_folder.name)
    assert manifest.settings == {"window": 7, "max_ngram": 8, "min_ngram": 1}
