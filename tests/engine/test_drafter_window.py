"""``--drafter-window``: what a row of an EAGLE-3 head sees of the committed pairs, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.drafting import PROMPTS, choice_of, decode, teachers_own

from specscope.engine.cache.buffer import TreeCache
from specscope.engine.drafters.base import Draft, DraftPairs
from specscope.engine.load.models import load_models
from specscope.engine.record.manifest import settings_of
from specscope.engine.settings import ModelChoice
from specscope.tracer import TraceReader
from specscope.tracer.errors import UsageError

NUM_PAIRS, WINDOW = 12, 4


def windowed(teacher: Path, head: Path, window: int | None) -> ModelChoice:
    return choice_of(teacher, f"eagle3:{head}", drafter_window=window)


def draft_of(choice: ModelChoice, changed_pair: int | None = None) -> Draft:
    """A first draft after a prompt, of whose pairs one may have other features."""
    drafter = load_models(choice).drafter
    features = torch.randn(NUM_PAIRS, 96, generator=torch.Generator().manual_seed(3))
    if changed_pair is not None:
        features[changed_pair] += 1
    tokens = list(range(3, 3 + NUM_PAIRS))
    drafter.begin_session(TreeCache(1, 16))
    with torch.inference_mode():
        pairs = DraftPairs(list(range(NUM_PAIRS)), features, torch.tensor(tokens), tokens)
        return drafter.propose([pairs], TreeCache(1, 16))


def test_a_row_sees_the_last_pairs_and_no_earlier_one(teacher_folder: Path, head_folder: Path) -> None:
    choice = windowed(teacher_folder, head_folder, WINDOW)
    whole = draft_of(choice).tree.scores
    for pair in range(NUM_PAIRS):
        is_seen = pair >= NUM_PAIRS - WINDOW
        assert torch.equal(draft_of(choice, pair).tree.scores, whole) != is_seen, pair
    unlimited = windowed(teacher_folder, head_folder, None)
    assert not torch.equal(draft_of(unlimited, 0).tree.scores, draft_of(unlimited).tree.scores)


def test_a_window_over_everything_changes_nothing(teacher_folder: Path, head_folder: Path) -> None:
    drafts = [draft_of(windowed(teacher_folder, head_folder, window)) for window in (None, 100)]
    assert torch.equal(drafts[0].tree.scores, drafts[1].tree.scores)


def test_the_output_is_the_teachers_and_the_trace_has_the_window(
    tmp_path: Path, teacher_folder: Path, head_folder: Path
) -> None:
    choice = windowed(teacher_folder, head_folder, 2)
    for batch_size in (1, 3):
        trace = tmp_path / f"{batch_size}.jsonl"
        assert decode(choice, trace, batch_size) == teachers_own(teacher_folder)
        with TraceReader(trace) as reader:
            assert reader.manifest.drafter.settings == {"window": 2}
            assert settings_of(reader.manifest).choice.drafter_window == 2
    unlimited = tmp_path / "unlimited.jsonl"
    decode(windowed(teacher_folder, head_folder, None), unlimited, prompts=PROMPTS)
    with TraceReader(unlimited) as reader:
        assert reader.manifest.drafter.settings is None


def test_what_has_no_window_is_refused(teacher_folder: Path) -> None:
    with pytest.raises(UsageError, match="got a drafter window with drafter ngram: only eagle3 has one"):
        load_models(choice_of(teacher_folder, "ngram", drafter_window=4))
    with pytest.raises(UsageError, match="wanted at least 1"):
        ModelChoice(drafter_window=0)
