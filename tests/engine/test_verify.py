"""One tree forward equals a forward for each path, and nothing that a node may not see touches its logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny_models import VOCAB, build_teacher, tiny_models
from support.trees import batch_of

from specscope.engine.load.models import Models
from specscope.engine.tree.tensors import TreeTensors, additive_mask, causal_mask, tensorize
from specscope.schemas.manifest import Mode

PROMPT = [3, 14, 15, 9, 26, 5]
TREE = batch_of([([7, 1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 3, 2])])


def tree_logits(models: Models, tensors: TreeTensors) -> torch.Tensor:
    teacher = models.teacher
    cache = teacher.new_cache()
    ids = torch.tensor([PROMPT])
    mask = causal_mask(len(PROMPT), 0, teacher.dtype, teacher.device)
    with torch.inference_mode():
        teacher.forward(ids, torch.arange(len(PROMPT))[None], mask, cache=cache, feature_layers=())
        cache.commit_length([len(PROMPT)])
        mask = additive_mask(tensors, teacher.dtype)
        return teacher.forward(tensors.token_ids, tensors.position_ids, mask, cache=cache, feature_layers=()).logits[0]


def path_logits(models: Models, slot: int) -> torch.Tensor:
    path = [slot]
    while path[0]:
        path.insert(0, int(TREE.parents[0, path[0]]))
    ids = torch.tensor([[*PROMPT, *TREE.tokens[0, path].tolist()]])
    teacher = models.teacher
    mask = causal_mask(ids.shape[1], 0, teacher.dtype, teacher.device)
    with torch.inference_mode():
        return teacher.forward(
            ids, torch.arange(ids.shape[1])[None], mask, cache=teacher.new_cache(), feature_layers=()
        ).logits[0, -1]


@pytest.mark.parametrize("architecture", ["llama", "biased-llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_tree_logits_equal_each_paths_own(tmp_path: Path, architecture: str, mode: Mode) -> None:
    models = tiny_models(build_teacher(tmp_path, architecture), None, mode)
    logits = tree_logits(models, tensorize(TREE, [len(PROMPT)], 3))
    for slot in range(TREE.num_slots[0]):
        assert (logits[slot] - path_logits(models, slot)).abs().max() < 2e-4


@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_a_token_that_is_no_ancestor_does_not_move_a_logit(teacher_folder: Path, mode: Mode) -> None:
    models = tiny_models(teacher_folder, None, mode)
    tensors = tensorize(TREE, [len(PROMPT)], 3, pad_to=9)
    before = tree_logits(models, tensors)
    for slot in range(1, tensors.padded_slots):
        ids = tensors.token_ids.clone()
        ids[0, slot] = (ids[0, slot] + 17) % VOCAB
        after = tree_logits(models, replace(tensors, token_ids=ids))
        unaware = ~tensors.visible[0, :, slot]
        assert torch.equal(before[unaware], after[unaware])
        assert not torch.equal(before[slot], after[slot])


def test_padding_changes_no_real_slot(teacher_folder: Path) -> None:
    models = tiny_models(teacher_folder, None, "eager")
    plain = tree_logits(models, tensorize(TREE, [len(PROMPT)], 3))
    padded = tree_logits(models, tensorize(TREE, [len(PROMPT)], 3, pad_to=16))
    assert torch.allclose(plain, padded[: TREE.num_slots[0]], atol=1e-5)
    assert torch.isfinite(padded).all()


@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_a_row_of_a_batch_neither_sees_nor_is_seen_by_another(teacher_folder: Path, mode: Mode) -> None:
    """Rows of unlike prefixes and trees: each equals its own forward alone, and nothing in row 1 moves row 0."""
    models = tiny_models(teacher_folder, None, mode)
    teacher = models.teacher
    prompts, shapes = [PROMPT, PROMPT[:2]], [([7, 1, 2, 3], [0, 0, 0, 1]), ([8, 4], [0, 0])]

    def logits(rows: list[int], change: int = 0) -> torch.Tensor:
        cache = teacher.new_cache(len(rows))
        with torch.inference_mode():
            for at, row in enumerate(rows):
                ids = torch.tensor([prompts[row]])
                if row == 1:
                    ids = (ids + change) % VOCAB
                mask = causal_mask(ids.shape[1], 0, teacher.dtype, teacher.device)
                with cache.only(at):
                    teacher.forward(ids, torch.arange(ids.shape[1])[None], mask, cache=cache, feature_layers=())
                    cache.commit_length([ids.shape[1]])
            tree = batch_of([shapes[row] for row in rows])
            tensors = tensorize(tree, [len(prompts[row]) for row in rows], 2)
            ids = tensors.token_ids.clone()
            ids[torch.tensor(rows) == 1] = (ids[torch.tensor(rows) == 1] + change) % VOCAB
            mask = additive_mask(tensors, teacher.dtype)
            return teacher.forward(ids, tensors.position_ids, mask, cache=cache, feature_layers=()).logits

    together = logits([0, 1])
    assert torch.equal(together[0], logits([0, 1], change=11)[0])
    assert not torch.equal(together[1], logits([0, 1], change=11)[1])
    for row, (tokens, _) in enumerate(shapes):
        alone = logits([row])[0]
        assert torch.allclose(together[row, : len(tokens)], alone[: len(tokens)], atol=2e-5)
