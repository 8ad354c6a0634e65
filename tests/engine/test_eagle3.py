"""The EAGLE-3 head against an independent float64 implementation, its files, and its drafter without a cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import HIDDEN, VOCAB, build_head, build_teacher, tiny_models

from specscope.engine.drafters.base import DraftPairs
from specscope.engine.drafters.eagle3.drafter import Eagle3Drafter
from specscope.engine.drafters.eagle3.files import default_hidden_state_indices, load_head
from specscope.engine.lab.training.head import TeacherView, unrolled_loss
from specscope.schemas.manifest import Mode
from specscope.tracer.errors import UsageError

Tensors = dict[str, torch.Tensor]


def slow_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def slow_rotate(x: torch.Tensor, position: int) -> torch.Tensor:
    half = x.shape[-1] // 2
    out = torch.zeros_like(x)
    for i in range(half):
        angle = torch.tensor(position * 10000.0 ** (-2 * i / (2 * half)), dtype=torch.float64)
        out[:, i] = x[:, i] * angle.cos() - x[:, half + i] * angle.sin()
        out[:, half + i] = x[:, half + i] * angle.cos() + x[:, i] * angle.sin()
    return out


def slow_head(w: Tensors, hidden: list[torch.Tensor], embedded: list[torch.Tensor], sees: list[list[int]],
              positions: list[int]) -> list[torch.Tensor]:  # fmt: skip
    """The layer over rows, one row and one head at a time, in float64; returns the un-normed outputs."""
    w = {name: t.double() for name, t in w.items() if t.is_floating_point()}
    queries, keys, values = [], [], []
    for h, e, position in zip(hidden, embedded, positions, strict=True):
        x = torch.cat([
            slow_norm(e.double(), w["midlayer.input_layernorm.weight"]),
            slow_norm(h.double(), w["midlayer.hidden_norm.weight"]),
        ])  # fmt: skip
        queries.append(slow_rotate((w["midlayer.self_attn.q_proj.weight"] @ x).view(4, -1), position))
        keys.append(slow_rotate((w["midlayer.self_attn.k_proj.weight"] @ x).view(2, -1), position))
        values.append((w["midlayer.self_attn.v_proj.weight"] @ x).view(2, -1))
    outputs = []
    for row, h in enumerate(hidden):
        heads = []
        for head in range(4):
            scores = torch.stack([queries[row][head] @ keys[s][head // 2] for s in sees[row]]) * (HIDDEN // 4) ** -0.5
            weights = torch.softmax(scores, 0)
            heads.append(sum(p * values[s][head // 2] for p, s in zip(weights, sees[row], strict=True)))
        out = h.double() + w["midlayer.self_attn.o_proj.weight"] @ torch.cat(heads)
        m = slow_norm(out, w["midlayer.post_attention_layernorm.weight"])
        gate = w["midlayer.mlp.gate_proj.weight"] @ m
        up = gate * torch.sigmoid(gate) * (w["midlayer.mlp.up_proj.weight"] @ m)
        outputs.append(out + w["midlayer.mlp.down_proj.weight"] @ up)
    return outputs


def slow_logprobs(w: Tensors, hidden: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(w["lm_head.weight"].double() @ slow_norm(hidden, w["norm.weight"].double()), -1)


def random_pairs(count: int, seed: int) -> DraftPairs:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3 * HIDDEN, generator=generator)
    tokens = torch.randint(0, VOCAB, (count,), generator=generator)
    return DraftPairs(list(range(count)), features, tokens, tokens.tolist())


@pytest.mark.parametrize("mode", ["eager", "fused"])
def test_the_drafter_equals_a_slow_head_without_a_cache(teacher_folder: Path, head_folder: Path, mode: Mode) -> None:
    models = tiny_models(teacher_folder, head_folder, mode)
    drafter = models.drafter
    weights = load_file(head_folder / "model.safetensors")
    embed = models.teacher.embedding
    fed: list[DraftPairs] = [random_pairs(5, 0), random_pairs(3, 1), random_pairs(1, 2)]
    with torch.inference_mode():
        for number, pairs in enumerate(fed):
            draft = drafter.propose([pairs], models.teacher.new_cache())
            all_pairs = fed[: number + 1]
            hidden = [weights["fc.weight"].double() @ f.double() for p in all_pairs for f in p.features]
            embedded = [embed(t) for p in all_pairs for t in p.tokens]
            count = len(hidden)
            assert drafter.num_pairs == [count]
            assert (draft.kv_before, draft.kv_after) == ([count - len(pairs.tokens)], [count])
            check_tree_scores(weights, draft.tree, hidden, embedded, embed)


def check_tree_scores(
    w: Tensors, tree: object, hidden: list[torch.Tensor], embedded: list[torch.Tensor], embed: torch.nn.Module
) -> None:
    """Every node's log-probability, recomputed along its path alone."""
    from specscope.engine.tree.grow import DraftTree

    assert isinstance(tree, DraftTree)
    count = len(hidden)
    offsets = w["d2t"]
    draft_ids = {int(i + offsets[i]): i for i in range(len(offsets))}
    for slot in range(1, tree.num_slots[0]):
        path = [slot]
        while tree.parents[0, path[0]] != 0:
            path.insert(0, int(tree.parents[0, path[0]]))
        rows_hidden, rows_embedded = list(hidden), list(embedded)
        sees = [list(range(row + 1)) for row in range(count)]
        for step, node in enumerate(path[:-1]):
            out = slow_head(w, rows_hidden, rows_embedded, sees, list(range(len(rows_hidden))))
            rows_hidden.append(out[-1])
            rows_embedded.append(embed(tree.tokens[0, node]))
            sees.append([*range(count), *range(count, count + step + 1)])
        out = slow_head(w, rows_hidden, rows_embedded, sees, list(range(len(rows_hidden))))
        logprob = slow_logprobs(w, out[-1])[draft_ids[int(tree.tokens[0, slot])]]
        assert float(tree.logprobs[0, slot]) == pytest.approx(float(logprob), abs=2e-5)


def test_training_unrolls_exactly_what_drafting_does(teacher_folder: Path, head_folder: Path) -> None:
    """Unroll step i of row t is the drafter's level i + 1 along the sequence's own tokens."""
    models = tiny_models(teacher_folder, head_folder)
    files = load_head(head_folder, HIDDEN, VOCAB)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCAB, (1, 9), generator=generator)
    features = torch.randn(1, 9, 3 * HIDDEN, generator=generator)
    embedding = models.teacher.embedding(ids)
    target = torch.randn(1, 9, 40, generator=generator)
    view = TeacherView(features, embedding, target, torch.ones(1, 9, dtype=torch.bool))
    weights = load_file(head_folder / "model.safetensors")
    unroll, rows = 3, 6
    with torch.inference_mode():
        got = unrolled_loss(files.head, view, unroll, 0.8).loss
        losses = torch.zeros(unroll, rows, dtype=torch.float64)
        for row in range(rows):
            hidden = [weights["fc.weight"].double() @ features[0, j].double() for j in range(row + 1)]
            embedded = [embedding[0, j + 1] for j in range(row + 1)]
            for step in range(unroll):
                count = len(hidden)
                sees = [list(range(r + 1)) for r in range(count)]
                out = slow_head(weights, hidden, embedded, sees, list(range(count)))
                probs = torch.softmax(target[0, row + 1 + step].double(), -1)
                losses[step, row] = -(probs * slow_logprobs(weights, out[-1])).sum()
                if step + 1 < unroll:
                    hidden.append(out[-1])
                    embedded.append(embedding[0, row + 2 + step])
        total = sum(0.8**step * float(losses[step].mean()) for step in range(unroll))
    assert float(got) == pytest.approx(total, rel=1e-4)


def test_the_other_public_prefix_loads(head_folder: Path, tmp_path: Path) -> None:
    shutil.copy(head_folder / "config.json", tmp_path)
    renamed = {k.replace("midlayer.", "layers.0."): v for k, v in load_file(head_folder / "model.safetensors").items()}
    save_file(renamed, tmp_path / "model.safetensors")
    ours = load_head(head_folder, HIDDEN, VOCAB).head.state_dict()
    theirs = load_head(tmp_path, HIDDEN, VOCAB).head.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def rewrite(folder: Path, target: Path, change: dict[str, torch.Tensor | None]) -> Path:
    shutil.copy(folder / "config.json", target)
    tensors = load_file(folder / "model.safetensors")
    for name, value in change.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head.weight": None}, "missing lm_head.weight"),
        ({"extra.weight": torch.zeros(1)}, "unexpected extra.weight"),
        ({"fc.weight": torch.zeros(HIDDEN, 5)}, r"fc.weight: got \[32, 5\], wanted \[32, 96\]"),
        ({"d2t": None}, "no d2t"),
        ({"d2t": torch.arange(40) + 30}, "offsets, not absolute ids"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_name(
    head_folder: Path, tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_head(rewrite(head_folder, tmp_path, change), HIDDEN, VOCAB)


def test_a_head_of_another_teacher_is_refused_with_the_shapes(tmp_path: Path) -> None:
    head = build_head(tmp_path / "head", hidden=64)
    teacher = build_teacher(tmp_path / "teacher")
    with pytest.raises(UsageError, match="3 x 64 and embeddings of 64, the teacher gives 32"):
        tiny_models(teacher, head)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_before_fc": True}, "missing input_norm.weight"),
        ({"rope_scaling": {"type": "llama3"}}, "sets rope_scaling"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": ["2", "4", "5"]}}, "wanted three integers"),
    ],
)
def test_a_head_that_asks_for_more_is_refused(
    head_folder: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copy(head_folder / "model.safetensors", tmp_path)
    config = json.loads((head_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match=message):
        load_head(tmp_path, HIDDEN, VOCAB)


def test_feature_layers_are_recorded_and_default_where_absent(head_folder: Path, tmp_path: Path) -> None:
    assert load_head(head_folder, HIDDEN, VOCAB).hidden_state_indices == (2, 4, 5)
    config = json.loads((head_folder / "config.json").read_text())
    del config["eagle_config"], config["eagle_aux_hidden_state_layer_ids"]
    shutil.copy(head_folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_head(tmp_path, HIDDEN, VOCAB).hidden_state_indices == ()
    assert default_hidden_state_indices(10) == (2, 5, 7)
    with pytest.raises(UsageError, match="at least 7"):
        default_hidden_state_indices(6)


def test_tree_kv_is_dropped_after_each_proposal(teacher_folder: Path, head_folder: Path) -> None:
    models = tiny_models(teacher_folder, head_folder)
    drafter, cache = models.drafter, models.teacher.new_cache()
    assert isinstance(drafter, Eagle3Drafter)
    with torch.inference_mode():
        first = drafter.propose([random_pairs(4, 0)], cache)
        drafter.begin_turn(0, [], 0)
        again = drafter.propose([random_pairs(4, 0)], cache)
    assert (first.kv_before, first.kv_after, drafter.num_pairs) == ([0], [4], [4])
    assert torch.equal(first.tree.tokens, again.tree.tokens)
    assert torch.equal(first.tree.scores, again.tree.scores)
