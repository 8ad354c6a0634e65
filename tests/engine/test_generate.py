"""The loop: its tokens are the teacher's own, its stops exact, its failures recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny_models import VOCAB, build_head, build_teacher, reference_generate, tiny_models

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Draft, Drafter, DrafterProxy, DraftPairs
from specscope.engine.lab.faults import FaultTarget, find_fault, inject
from specscope.engine.load.models import Models
from specscope.engine.loop.phases import Decoding, InFlight, Phases, StepResult, TurnResult, TurnStarted
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.tree.policy import TreePolicy
from specscope.schemas.manifest import Mode
from specscope.tracer.errors import UsageError, ViolationError

PROMPTS = [[5, 9, 2, 33, 8], [1], [44, 3, 3, 3, 60, 21, 7, 7], list(range(2, 40))]


def decode(models: Models, prompt: list[int], rules: StopRules) -> TurnResult:
    session = Session(models.teacher, models.drafter)
    for _ in session.decode(prompt, rules):
        pass
    return session.result


def rules(models: Models, max_new_tokens: int = 24) -> StopRules:
    return StopRules(max_new_tokens, models.teacher.eos_token_ids, [])


@pytest.mark.parametrize("architecture", ["llama", "biased-llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("mode", ["eager", "fused"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=["short", "one", "repeats", "long"])
def test_tokens_are_the_teachers_own(tmp_path: Path, architecture: str, mode: Mode, prompt: list[int]) -> None:
    teacher, head = build_teacher(tmp_path / "t", architecture), build_head(tmp_path / "h")
    models = tiny_models(teacher, head, mode)
    wanted = reference_generate(teacher, prompt, 24)
    assert decode(models, prompt, rules(models)).output_ids == wanted
    assert decode(tiny_models(teacher, None, mode), prompt, rules(models)).output_ids == wanted


@pytest.mark.parametrize(
    "policy",
    [
        TreePolicy(kind="dynamic", depth=1, top_k=1, budget=1),
        TreePolicy(kind="dynamic", depth=6, top_k=1, budget=6),
        TreePolicy(kind="dynamic", depth=2, top_k=8, budget=40),
        TreePolicy(kind="dynamic", depth=7, top_k=5, budget=64),
    ],
)
def test_every_tree_shape_is_lossless(teacher_folder: Path, head_folder: Path, policy: TreePolicy) -> None:
    models = tiny_models(teacher_folder, head_folder, policy=policy)
    wanted = reference_generate(teacher_folder, PROMPTS[0], 24)
    assert decode(models, PROMPTS[0], rules(models)).output_ids == wanted


class PerfectDrafter(DrafterProxy):
    """Puts the teacher's own continuation in as a chain, so that whole blocks are accepted."""

    policy = TreePolicy(kind="dynamic", depth=5, top_k=1, budget=5)

    def __init__(self, inner: Drafter, continuation: list[int]) -> None:
        super().__init__(inner)
        self._continuation = continuation
        self._emitted = 0

    def propose(
        self, pairs: list[DraftPairs], branch: TreeCache, generators: list[torch.Generator] | None = None
    ) -> Draft:
        draft = self.inner.propose(pairs, branch, generators)
        self._emitted += len(pairs[0].token_list) if self._emitted else 1
        chain = self._continuation[self._emitted : self._emitted + 5]
        n = len(chain)
        slots = torch.arange(n + 1)
        tree = replace(
            draft.tree,
            tokens=torch.tensor([[int(draft.tree.tokens[0, 0]), *chain]]),
            parents=(slots - 1).clamp(min=0)[None],
            depths=slots[None],
            logprobs=torch.zeros(1, n + 1),
            scores=torch.zeros(1, n + 1),
            num_slots=[n + 1],
        )
        return replace(draft, tree=tree)


def perfect(teacher: Path, head: Path, prompt: list[int], length: int) -> Models:
    models = tiny_models(teacher, head)
    return Models(models.teacher, PerfectDrafter(models.drafter, reference_generate(teacher, prompt, length)))


def test_whole_blocks_are_accepted_when_the_draft_is_right(teacher_folder: Path, head_folder: Path) -> None:
    models = perfect(teacher_folder, head_folder, PROMPTS[0], 40)
    result = decode(models, PROMPTS[0], rules(models, 19))
    assert result.output_ids == reference_generate(teacher_folder, PROMPTS[0], 19)
    assert result.accepted_lengths == [5, 5, 5]
    assert result.mean_accepted_length == 5


@pytest.mark.parametrize("max_new_tokens", range(1, 15))
def test_the_length_stop_is_exact_inside_a_block(teacher_folder: Path, head_folder: Path, max_new_tokens: int) -> None:
    models = perfect(teacher_folder, head_folder, PROMPTS[0], 40)
    result = decode(models, PROMPTS[0], rules(models, max_new_tokens))
    assert result.output_ids == reference_generate(teacher_folder, PROMPTS[0], 40)[:max_new_tokens]
    assert result.reason == "length"


@pytest.mark.parametrize("at", range(9))
def test_the_eos_stop_is_exact_inside_a_block(teacher_folder: Path, head_folder: Path, at: int) -> None:
    wanted = reference_generate(teacher_folder, PROMPTS[0], 40)
    eos = wanted[at]
    models = perfect(teacher_folder, head_folder, PROMPTS[0], 40)
    result = decode(models, PROMPTS[0], StopRules(40, [eos], []))
    assert result.output_ids == wanted[: wanted.index(eos) + 1]
    assert result.reason == "eos"


class LetterTokenizer:
    """Decodes token 2i as a letter, so that stop strings span several tokens."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(chr(ord("a") + i % 26) for i in ids)


@pytest.mark.parametrize(("first", "length"), [(0, 1), (2, 2), (3, 4), (6, 3)])
def test_a_stop_string_is_exact_inside_a_block(
    teacher_folder: Path, head_folder: Path, first: int, length: int
) -> None:
    wanted = reference_generate(teacher_folder, PROMPTS[0], 40)
    text = LetterTokenizer().decode(wanted, skip_special_tokens=False)
    stop = text[first : first + length]
    models = perfect(teacher_folder, head_folder, PROMPTS[0], 40)
    models.teacher.tokenizer = LetterTokenizer()  # type: ignore[assignment]
    result = decode(models, PROMPTS[0], StopRules(40, [], [stop]))
    assert result.output_ids == wanted[: text.index(stop) + length]
    assert result.reason == "stop_string"


@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_a_second_turn_reuses_the_cache_and_changes_nothing(
    teacher_folder: Path, head_folder: Path, mode: Mode
) -> None:
    models = tiny_models(teacher_folder, head_folder, mode)
    session = Session(models.teacher, models.drafter)
    starts = Starts()
    context = PROMPTS[0]
    for more in ([4, 4, 12], [30], [9, 9]):
        for _ in session.decode(context, rules(models, 10), starts):
            pass
        wanted = reference_generate(teacher_folder, context, 10)
        assert session.result.output_ids == wanted
        context = context + wanted + more
    assert starts.reused[0] == 0
    assert all(reused > 0 for reused in starts.reused[1:])


class Starts:
    """Notes how much each turn reused."""

    def __init__(self) -> None:
        self.reused: list[int] = []
        self.failures: list[InFlight] = []

    def turn_started(self, turn: TurnStarted) -> None:
        self.reused.append(turn.reused_length)

    def step_done(self, result: StepResult) -> None:
        pass

    def turn_ended(self, result: TurnResult) -> None:
        pass

    def failed(self, in_flight: InFlight, error: Exception) -> None:
        self.failures.append(in_flight)


def test_a_violated_structure_stops_before_the_forward(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    phases = replace(inject(FaultTarget(models, Phases()), find_fault("F16")).phases, stop_on_violation=True)
    session = Session(models.teacher, models.drafter, Decoding(phases=phases))
    seen = Starts()
    with pytest.raises(ViolationError, match="position-is-length-plus-depth"):
        list(session.decode(PROMPTS[0], rules(models), seen))
    in_flight = seen.failures[0]
    assert in_flight.phase == "check"
    assert in_flight.tensors is not None
    assert in_flight.verification is None


def test_a_fault_is_off_unless_asked_for_and_leaves_the_phases_as_they_were(
    teacher_folder: Path, head_folder: Path
) -> None:
    models, phases = tiny_models(teacher_folder, head_folder), Phases()
    broken = inject(FaultTarget(models, phases), find_fault("F16")).phases
    assert violations(Session(models.teacher, models.drafter, Decoding(phases=broken)), models)
    assert not violations(Session(models.teacher, models.drafter, Decoding(phases=phases)), models)
    assert phases == Phases()


def violations(session: Session, models: Models) -> list[str]:
    steps = list(session.decode(PROMPTS[0], rules(models)))
    return [failure.id for step in steps if step.report is not None for failure in step.report.failed]


def test_a_deferred_check_stops_before_the_commit(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    phases = replace(inject(FaultTarget(models, Phases()), find_fault("F16")).phases, stop_on_violation=True)
    session = Session(models.teacher, models.drafter, Decoding(checks="deferred", phases=phases))
    with pytest.raises(ViolationError, match="position-is-length-plus-depth"):
        list(session.decode(PROMPTS[0], rules(models)))
    assert session.cache.committed_lengths == [len(PROMPTS[0])]


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "message"),
    [
        ([], 4, "empty"),
        ([VOCAB], 4, f"got token id {VOCAB}"),
        ([-1], 4, "got token id -1"),
        ([3] * 256, 4, "256 tokens, this teacher has 256 positions"),
        ([3], 0, "got 0 new tokens"),
    ],
)
def test_what_cannot_be_decoded_is_refused(
    teacher_folder: Path, head_folder: Path, prompt: list[int], max_new_tokens: int, message: str
) -> None:
    models = tiny_models(teacher_folder, head_folder)
    with pytest.raises(UsageError, match=message):
        decode(models, prompt, rules(models, max_new_tokens))


def test_the_length_is_cut_to_the_teachers_positions(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    result = decode(models, [3] * 250, StopRules(100, [], []))
    assert len(result.output_ids) == 6
    assert result.reason == "length"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_dtypes_run(teacher_folder: Path, head_folder: Path, dtype: str) -> None:
    models = tiny_models(teacher_folder, head_folder, dtype=dtype)
    assert len(decode(models, PROMPTS[0], rules(models, 8)).output_ids) == 8


def test_an_interrupted_turn_says_so_and_the_session_goes_on(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    session = Session(models.teacher, models.drafter)
    steps = session.decode(PROMPTS[0], rules(models))
    next(steps)
    steps.close()
    assert session.result.reason == "interrupted"
    for _ in session.decode(PROMPTS[1], rules(models)):
        pass
    assert session.result.output_ids == reference_generate(teacher_folder, PROMPTS[1], 24)
