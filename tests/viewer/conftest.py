"""Small traces made by hand, sound by the oracle, so that the viewer is tested without an engine; and a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from streamlit.testing.v1 import AppTest
from support.browser import BROWSER, FLAGS
from support.grown import deep
from support.pages import APP, Opener, checked

from specscope.schemas import (
    SCHEMA_VERSION,
    AcceptSection,
    CommitSection,
    Device,
    Drafter,
    Manifest,
    Prefill,
    Sampling,
    Step,
    StopRules,
    StopSection,
    Teacher,
    TensorsSection,
    TimingSection,
    TreePolicy,
    TreeSection,
    TurnEnd,
    TurnStart,
    VerifySection,
    Visit,
)
from specscope.tracer.files.writer import TraceWriter
from specscope.tracer.oracle.invariants.structure import expected_rows
from specscope.tracer.oracle.invariants.walk import greedy_walk

PARENTS = [0, 0, 0, 1, 1, 2, 3]
DEPTHS = [0, 1, 1, 2, 2, 2, 3]
TIMING = TimingSection(
    draft_ns=2_000_000,
    tensorize_ns=50_000,
    check_ns=9_000,
    verify_ns=8_000_000,
    accept_ns=4_000,
    commit_ns=70_000,
    synchronised=True,
)
HOSTILE = {
    "1": "<script>document.title = 'pwned'</script>",
    "2": "</svg><img src=x onerror=\"document.title='pwned'\">",
    "3": "\u202egnp.exe",
    "4": "$x^2$ `code` **bold** [link](javascript:alert(1))",
    "5": "\n\t ",
    "6": "日本語",
}


@dataclass
class Recipe:
    """What a trace is to contain. Each turn has one number a step: how many nodes are accepted."""

    turns: list[list[int]] = field(default_factory=lambda: [[2, 0, 3]])
    mode: str = "fused"
    texts: dict[str, str] | None = None
    run_end: bool = True
    prompt_ids: list[str] | None = None
    change: Callable[[Step], Step] = lambda step: step


TraceMaker = Callable[..., Path]


def manifest(mode: str) -> Manifest:
    """A manifest that says little."""
    return Manifest(
        seq=0,
        schema=str(SCHEMA_VERSION),
        run_id="run",
        created="2026-01-01T00:00:00+00:00",
        engine="by hand",
        versions={},
        mode=mode,
        attention=mode,
        dtype="float32",
        device=Device(backend="cpu", name="paper"),
        teacher=Teacher(name="t", architecture="A", num_layers=2, hidden_size=4, vocab_size=100),
        drafter=Drafter(kind="eagle3"),
        tree_policy=TreePolicy(kind="dynamic", depth=3, top_k=2, budget=6),
        sampling=Sampling(rule="greedy"),
        stop_rules=StopRules(max_new_tokens=99, eos_token_ids=[0], stop_strings=[]),
        seed=0,
        level="decisions",
        capabilities=["tree", "tensors", "verify", "accept", "commit", "stop", "timing"],
    )


def make_step(
    *, seq: int, turn: int, number: int, committed: int, pending: int, accepted: int, attention: str = "fused"
) -> Step:
    """A sound step of the tree 0 -> (1 -> (3 -> 6, 4), 2 -> 5) whose walk accepts the first of 1, 3, 6."""
    size = len(PARENTS)
    tokens = [pending, *(10 + slot for slot in range(1, size))]
    tokens[1:] = [1, 2, 3, 4, 5, 6]
    argmax = [50 + number % 40] * size
    for slot, child in list({0: 1, 1: 3, 3: 6}.items())[:accepted]:
        argmax[slot] = tokens[child]
    walk = greedy_walk(tokens, PARENTS, argmax)
    last = walk.path[-1] if walk.path else 0
    rows = [row.to_bytes(1, "little").hex() for row in expected_rows(PARENTS, size, size)]
    kept = [0, *walk.path]
    emitted = [*(tokens[slot] for slot in walk.path), argmax[last]]
    return Step(
        seq=seq,
        turn=turn,
        step=number,
        tree=TreeSection(
            tokens=tokens,
            parents=PARENTS,
            depths=DEPTHS,
            logprobs=[0.0, -0.2, -1.9, -0.3, -1.4, -0.9, -0.1],
            scores=[0.0, -0.2, -1.9, -0.5, -1.6, -2.8, -0.6],
        ),
        tensors=TensorsSection(
            committed_length=committed,
            num_slots=size,
            padded_slots=size,
            mask_rows=rows,
            prefix_visible=[committed] * size,
            positions=[committed + depth for depth in DEPTHS],
            token_ids=tokens,
            index_tensors={"parents": PARENTS},
        ),
        verify=VerifySection(
            dispatch={"eager" if attention == "eager" else "sdpa": 2},
            argmax=argmax,
            top_tokens=[[token, 99] for token in argmax],
            top_logits=[[9.5, 7.25]] * size,
            nonfinite_slots=[],
        ),
        accept=AcceptSection(
            rule="greedy",
            visited=[Visit(slot=v.slot, wanted=v.wanted, child=v.child) for v in walk.visited],
            path=walk.path,
            accepted_length=len(walk.path),
            bonus_token=argmax[last],
            bonus_slot=last,
        ),
        commit=_commit(committed, kept),
        stop=StopSection(emitted=emitted, kept=len(emitted)),
        timing=TIMING,
    )


def _commit(committed: int, kept: list[int]) -> CommitSection:
    sums = ["0123456789abcdef", "fedcba9876543210"]
    return CommitSection(
        strategy="in-place",
        committed_before=committed,
        committed_after=committed + len(kept),
        source_slots=kept,
        destination_rows=list(range(committed, committed + len(kept))),
        source_checksums=sums,
        written_checksums=sums,
        drafter_before=committed - 1,
        drafter_after=committed,
    )


def write_trace(path: Path, recipe: Recipe) -> Path:
    """Writes the trace of ``recipe``."""
    writer = TraceWriter(path, overwrite=True, warn=pytest.fail)
    writer.write(manifest(recipe.mode))
    for turn, lengths in enumerate(recipe.turns):
        _write_turn(writer, turn, lengths, recipe)
    if recipe.run_end:
        writer.finish("complete")
    return path


def _write_turn(writer: TraceWriter, turn: int, lengths: list[int], recipe: Recipe) -> None:
    pending, committed = 7, 3
    name = recipe.prompt_ids[turn] if recipe.prompt_ids else f"prompt-{turn}"
    prefill = Prefill(num_tokens=3, dispatch={"sdpa": 2}, pending_token=7, top_tokens=[7, 8], top_logits=[3.0, 1.0])
    start = TurnStart(
        seq=writer.next_seq,
        turn=turn,
        prompt_id=name,
        prompt_turn=0,
        prompt_ids=[11, 12, 13],
        reused_length=0,
        prefill=prefill,
    )
    writer.write(start)
    output = [pending]
    for number, accepted in enumerate(lengths):
        step = make_step(
            seq=writer.next_seq,
            turn=turn,
            number=number,
            committed=committed,
            pending=pending,
            accepted=accepted,
            attention=recipe.mode,
        )
        assert step.accept is not None
        assert step.commit is not None
        assert step.stop is not None
        pending, committed = step.accept.bonus_token, step.commit.committed_after
        output += step.stop.emitted
        if number == len(lengths) - 1:
            step = step.model_copy(update={"stop": step.stop.model_copy(update={"reason": "criterion"})})
        writer.write(recipe.change(step.model_copy(update={"texts": recipe.texts})))
    end = TurnEnd(
        seq=writer.next_seq,
        turn=turn,
        output_ids=output,
        reason="criterion",  # a caller's, which may end a turn anywhere
        num_steps=len(lengths),
        num_drafted=6 * len(lengths),
        num_accepted=sum(lengths),
        accepted_by_depth=[sum(length > depth for length in lengths) for depth in range(max(lengths, default=0))],
        duration_ns=1,
    )
    writer.write(end)


@pytest.fixture
def make_trace(tmp_path: Path) -> TraceMaker:
    """Writes a trace: a name, and what ``Recipe`` takes."""

    def make(name: str = "a.jsonl", **settings: object) -> Path:
        return write_trace(tmp_path / name, Recipe(**settings))  # type: ignore[arg-type]

    return make


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Opens the viewer on files and folders, with a link's parameters."""

    def open_places(*places: Path, **query: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["app.py", *map(str, places)])
        app = AppTest.from_file(str(APP), default_timeout=30)
        app.query_params.update(query)
        return checked(app.run())

    return open_places


@pytest.fixture
def sound_step() -> Step:
    """One step that accepts slots 1 and 3."""
    return make_step(seq=2, turn=0, number=0, committed=3, pending=7, accepted=2)


@pytest.fixture
def hostile_step(sound_step: Step) -> Step:
    """The same, with token texts that would do harm."""
    return sound_step.model_copy(update={"texts": HOSTILE})


def wrong_positions(step: Step) -> Step:
    """Positions by slot in step 1: the fault that only acceptance shows."""
    if step.step != 1 or step.tensors is None:
        return step
    positions = [step.tensors.committed_length + slot for slot in range(len(PARENTS))]
    return step.model_copy(update={"tensors": step.tensors.model_copy(update={"positions": positions})})


@pytest.fixture
def pair_of_traces(make_trace: TraceMaker) -> tuple[Path, Path]:
    """A sound baseline and a candidate with wrong positions in step 1, with hostile texts."""
    return (
        make_trace("sound.jsonl", mode="eager", texts=HOSTILE),
        make_trace("wrong.jsonl", texts=HOSTILE, change=wrong_positions),
    )


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces whose texts, prompts and names would do harm: ``sound.jsonl``, ``wrong.jsonl`` (positions in step 1), one
    with markup in its name, and one with a text that is half a character."""
    folder = tmp_path_factory.mktemp("hostile")
    texts = {**HOSTILE, "7": "\x00\x1b[31m\x07\u2028", "51": "<iframe src='javascript:alert(1)'></iframe>"}
    prompts = ["<b onclick=alert(1)>$x$\u202e\n</b>", "</option><script>document.title='pwned'</script>"]
    recipe = Recipe(turns=[[2, 0, 3], [1, 2]], mode="eager", texts=texts, prompt_ids=prompts)
    write_trace(folder / "sound.jsonl", recipe)
    write_trace(folder / "wrong.jsonl", replace(recipe, mode="fused", change=wrong_positions))
    write_trace(folder / "<img src=x onerror=alert(1)> \u202e.jsonl", recipe)
    write_trace(folder / "long.jsonl", replace(recipe, turns=[[1] * 30, [2, 1]]))
    write_trace(folder / "deep.jsonl", replace(recipe, turns=[[0, 0, 0]], prompt_ids=None, change=deep))
    whole = (folder / "sound.jsonl").read_bytes()
    (folder / "half.jsonl").write_bytes(whole.replace("日本語".encode(), b"\\ud800"))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, where there is one."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no error may happen."""
    trouble: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: trouble.append(str(error)))
        yield page
    assert trouble == []
