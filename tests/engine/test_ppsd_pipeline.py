"""The pipeline with its stages as threads: the teacher's own tokens, whatever the stages, the exit and the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.local_pipeline import (
    CPU,
    load_stages,
    local_pipeline,
    perfect_draft,
    trained_draft,
    untrained_draft,
    wrong_draft,
)
from support.tiny_models import HIDDEN, VOCAB, build_teacher

from specscope.engine.drafters.base import NoDrafter
from specscope.engine.drafters.early_exit.head import ExitHead, ExitHeadConfig, save_exit_head
from specscope.engine.loop.phases import Decoding
from specscope.engine.loop.session import Session
from specscope.engine.loop.stopping import StopRules
from specscope.engine.ppsd.conductor import ExitDraft
from specscope.engine.ppsd.hop import Sender
from specscope.engine.ppsd.message import Field, Kind, Message
from specscope.engine.ppsd.stage import Stage
from specscope.engine.settings import SamplingRule
from specscope.engine.teacher.model import Teacher
from specscope.engine.teacher.partial import ARCHITECTURES, TeacherPart, load_part
from specscope.engine.tree.tensors import causal_mask

PROMPTS = ([5, 9, 2, 33, 8], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
RULES = StopRules(14, [0], [])
DRAWN = SamplingRule("sampling", temperature=0.9, top_k=20)


def decode_alone(
    folder: Path, prompts: list[list[int]], rules: StopRules = RULES, rule: SamplingRule | None = None
) -> list[list[int]]:
    """Each prompt after the one before in one session of the teacher alone."""
    session = Session(Teacher.load(str(folder), CPU), NoDrafter(), Decoding(rule=rule) if rule else None)
    outputs = []
    for number, prompt in enumerate(prompts):
        for _ in session.decode(prompt, rules, generator_seed=number):
            pass
        outputs.append(session.result.output_ids)
    return outputs


@pytest.fixture(scope="module")
def exit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random head, which is sometimes right."""
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("exit")
    shape = ExitHeadConfig(exit_layer=4, hidden_size=HIDDEN, vocab_size=VOCAB, intermediate_size=24, rms_norm_eps=1e-6)
    save_exit_head(ExitHead(shape), folder)
    return folder


def drafts(stage: Stage, folder: Path, whole: list[int]) -> dict[str, ExitDraft | None]:
    return {
        "trained": trained_draft(stage, folder),
        "untrained": untrained_draft(stage),
        "perfect": perfect_draft(whole),
        "wrong": wrong_draft(whole, VOCAB),
        "none": None,
    }


@pytest.mark.parametrize("head", ["trained", "untrained", "perfect", "wrong", "none"])
@pytest.mark.parametrize(("num_stages", "exit_layer"), [(2, 2), (2, 4), (3, 5), (3, 4), (5, 4), (5, 2)])
def test_tokens_are_the_teachers_own(
    teacher_folder: Path, exit_folder: Path, num_stages: int, exit_layer: int, head: str
) -> None:
    stages = load_stages(teacher_folder, exit_layer, num_stages)
    for prompt, wanted in zip(PROMPTS, alone_of(teacher_folder), strict=True):
        with local_pipeline(stages, drafts(stages[0], exit_folder, [*prompt, *wanted])[head]) as pipeline:
            turn = pipeline.decode(prompt, RULES)
        assert turn.output_ids == wanted
        assert turn.num_accepted == {"perfect": turn.num_drafted, "wrong": 0, "none": 0}.get(head, turn.num_accepted)
        assert (turn.num_drafted > 0) == (head != "none")
        for stage in stages:
            stage.cut(0)


_ALONE: dict[Path, list[list[int]]] = {}


def alone_of(folder: Path) -> list[list[int]]:
    """What the teacher says after each prompt by itself, computed once."""
    if folder not in _ALONE:
        _ALONE[folder] = [decode_alone(folder, [prompt])[0] for prompt in PROMPTS]
    return _ALONE[folder]


@pytest.mark.parametrize("window", [1, 2, 7])
def test_the_window_changes_no_token(teacher_folder: Path, exit_folder: Path, window: int) -> None:
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, trained_draft(stages[0], exit_folder), window=window) as pipeline:
        assert pipeline.decode(PROMPTS[0], RULES).output_ids == alone_of(teacher_folder)[0]


def test_what_is_drawn_is_what_the_teacher_alone_draws(teacher_folder: Path, exit_folder: Path) -> None:
    """A coin per position, whatever is dropped: not only the distribution but every token is that of one by one."""
    for num_stages in (2, 3):
        stages = load_stages(teacher_folder, 4, num_stages)
        wanted = decode_alone(teacher_folder, list(PROMPTS), rule=DRAWN)
        with local_pipeline(stages, trained_draft(stages[0], exit_folder), rule=DRAWN) as pipeline:
            turns = [pipeline.decode(prompt, RULES, seed=number) for number, prompt in enumerate(PROMPTS)]
        assert [turn.output_ids for turn in turns] == wanted
        assert 0 < sum(turn.num_accepted for turn in turns) < sum(turn.num_drafted for turn in turns)


def test_later_turns_reuse_what_the_stages_keep(teacher_folder: Path, exit_folder: Path) -> None:
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, trained_draft(stages[0], exit_folder)) as pipeline:
        context = list(PROMPTS[0])
        for more in ([4, 4, 12], [30], [9, 9]):
            (wanted,) = decode_alone(teacher_folder, [context])
            turn = pipeline.decode(context, RULES)
            assert turn.output_ids == wanted
            context = [*context, *wanted, *more]


def test_the_stages_hold_what_one_process_would_hold(teacher_folder: Path, exit_folder: Path) -> None:
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, trained_draft(stages[0], exit_folder)) as pipeline:
        turn = pipeline.decode(PROMPTS[2], RULES)
    assert turn.num_dropped > 0, "there was something to roll back"
    session = Session(Teacher.load(str(teacher_folder), CPU), NoDrafter())
    for _ in session.decode(PROMPTS[2], RULES):
        pass
    length = len(PROMPTS[2]) + len(turn.output_ids) - 1
    whole = session.cache.buffer[:, :, 0, :, :length]
    for stage in stages:
        kept = stage.cache.buffer[:, :, 0, :, :length]
        assert torch.equal(kept, whole[stage.layers.start : stage.layers.stop])


def test_a_long_prompt_flows_in_chunks(
    teacher_folder: Path, exit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specscope.engine.ppsd.conductor.PREFILL_CHUNK", 5)
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, trained_draft(stages[0], exit_folder)) as pipeline:
        assert pipeline.decode(PROMPTS[2], RULES).output_ids == alone_of(teacher_folder)[2]


STOPS: dict[str, Callable[[list[int]], StopRules]] = {
    "length": lambda ids: RULES._replace(max_new_tokens=6),
    "one token": lambda ids: RULES._replace(max_new_tokens=1),
    "eos": lambda ids: RULES._replace(eos_token_ids=[ids[4]]),
    "eos at once": lambda ids: RULES._replace(eos_token_ids=[ids[0]]),
    "stop string": lambda ids: RULES._replace(stop_strings=[f"{ids[3]}, {ids[4]}"]),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("head", ["perfect", "wrong"])
def test_a_stop_rule_is_exact_with_tokens_in_flight(teacher_folder: Path, stop: str, head: str) -> None:
    whole = alone_of(teacher_folder)[0]
    rules = STOPS[stop](whole)
    stages = load_stages(teacher_folder, 4, 5)
    draft = perfect_draft([*PROMPTS[0], *whole]) if head == "perfect" else wrong_draft([*PROMPTS[0], *whole], VOCAB)
    with local_pipeline(stages, draft) as pipeline:
        turn = pipeline.decode(PROMPTS[0], rules)
        again = pipeline.decode(PROMPTS[0], RULES)
    count = next(n for n in range(1, 15) if ends(whole[:n], rules))
    assert (turn.output_ids, turn.reason) == (whole[:count], ends(whole[:count], rules))
    assert again.output_ids == whole, "nothing of the turn before is left"


def ends(output: list[int], rules: StopRules) -> str | None:
    """Why the turn ends there, by the slow way."""
    if output[-1] in rules.eos_token_ids:
        return "eos"
    if any(stop in str(output) for stop in rules.stop_strings):
        return "stop_string"
    return "length" if len(output) == rules.max_new_tokens else None


@pytest.mark.parametrize("architecture", ["biased-llama", "qwen2", "qwen3"])
def test_parts_of_every_architecture_are_the_whole(tmp_path: Path, architecture: str) -> None:
    teacher = build_teacher(tmp_path / "teacher", architecture)
    stages = load_stages(teacher, 3, 4)
    with local_pipeline(stages, untrained_draft(stages[0])) as pipeline:
        assert pipeline.decode(PROMPTS[0], RULES).output_ids == decode_alone(teacher, [PROMPTS[0]])[0]


def test_a_part_holds_its_own_weights_and_no_others(teacher_folder: Path) -> None:
    whole = Teacher.load(str(teacher_folder), CPU).model
    part = load_part(str(teacher_folder), CPU, TeacherPart(layers=range(3, 5), norm=True)).model
    held = dict(part.named_parameters())
    assert {name.split(".")[2] for name in held if ".layers." in name} == {"0", "1"}
    assert not [name for name in held if "embed" in name or "lm_head" in name]
    layer = dict(whole.named_parameters())
    assert torch.equal(held["model.layers.1.mlp.up_proj.weight"], layer["model.layers.4.mlp.up_proj.weight"])
    assert not [name for name, tensor in held.items() if tensor.is_meta]
    assert "llama" in ARCHITECTURES


class CountedNews(Sender):
    """Counts what is told of epochs, and passes everything on."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.epochs: list[int] = []

    def free(self) -> Message:
        return self._sender.free()

    def send(self, message: Message) -> None:
        if message.kind == Kind.EPOCH:
            self.epochs.append(message.get(Field.EPOCH))
        self._sender.send(message)

    def drain(self) -> None:
        self._sender.drain()


@pytest.mark.parametrize(("window", "hears"), [(1, False), (3, True)])
def test_stages_hear_of_an_epoch_only_where_something_stale_is_under_way(
    teacher_folder: Path, window: int, *, hears: bool
) -> None:
    """With one token in flight a refuted draft leaves nothing behind: the next item says all there is to say."""
    (wanted, *_) = alone_of(teacher_folder)
    stages = load_stages(teacher_folder, 4, 3)
    with local_pipeline(stages, wrong_draft([*PROMPTS[0], *wanted], VOCAB), window=window) as pipeline:
        links = pipeline.conductor._links
        news = CountedNews(links.news[0])
        pipeline.conductor._links = replace(links, news=[news])
        turn = pipeline.decode(PROMPTS[0], RULES)
    assert turn.output_ids == wanted
    assert turn.num_accepted == 0 < turn.num_drafted
    end_of_turn = 1
    assert (turn.num_dropped > 0, len(news.epochs) > end_of_turn) == (hears, hears)
    assert len(news.epochs) >= end_of_turn


def test_a_row_by_itself_has_the_bits_that_it_has_among_others_masks(teacher_folder: Path) -> None:
    """A single row is masked by zeros alone, which is what the mask of any number of rows comes to for it."""
    (stage, *_) = load_stages(teacher_folder, 4, 3)
    stage.run(stage.embed([5, 9, 2]))
    hidden = stage.embed([33])
    single = stage.run(hidden)
    stage.cut(3)
    positions, mask = torch.tensor([[3]]), causal_mask(1, 3, hidden.dtype, hidden.device)
    slow = stage.part.run_layers(hidden, positions, mask, stage.cache, layers=range(len(stage.layers)))
    assert torch.equal(single, slow)
