"""EAGLE-3 heads in the formats of public checkpoints: each kind against plain float64 numpy, and what is refused."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.head_checkpoints import SMALL, Array, Checkpoint, SlowHead, nested, random_checkpoint

from specscope.engine.backends.attention import eager_attention
from specscope.engine.drafters.eagle3.files import HeadFiles, load_head, save_head
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadOutput, QueryKeyValue
from specscope.tracer.errors import UsageError

VOCAB = SMALL["vocab_size"]
HEADS: dict[str, dict[str, Any]] = {
    "small": {},
    "wide-heads": {"head_dim": 8},
    "norm-before-residual": {"norm_before_residual": True},
    "norm-before-fc": {"norm_before_fc": True},
    "eagle-3.1": {"fc_norm": True, "norm_output": True},
    "all-norms": {"norm_before_residual": True, "fc_norm": True, "norm_output": True, "head_dim": 8},
    "biased": {"attention_bias": True},
    "other-teacher-width": {"target_hidden_size": 40, "teacher_hidden": 40, "own_embedding": True},
    "whole-vocabulary": {"draft_vocab_size": None},
    "theta-in-rope-parameters": {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
    "no-theta": {"rope_theta": 10000.0},
    "two-layers": {"num_hidden_layers": 2},
    "three-layers-all-switches": {
        "num_hidden_layers": 3,
        "norm_before_residual": True,
        "fc_norm": True,
        "norm_output": True,
        "attention_bias": True,
        "head_dim": 8,
    },
}


def build(name: str) -> Checkpoint:
    changes = dict(HEADS[name])
    own_embedding = changes.pop("own_embedding", False)
    checkpoint = random_checkpoint(sum(name.encode()), **changes)
    if own_embedding:
        rng = np.random.default_rng(9)
        checkpoint.weights["embed_tokens.weight"] = rng.standard_normal((VOCAB, 56)).astype(np.float32)
    if name == "no-theta":
        del checkpoint.config["rope_theta"]
    return checkpoint


def load(checkpoint: Checkpoint, folder: Path, **naming: str) -> HeadFiles:
    return load_head(checkpoint.write(folder, **naming), checkpoint.teacher_hidden, VOCAB)


class CachedHead:
    """The head over rows of sequences (B, ...), as a drafter calls it, with a key-value cache of its own."""

    def __init__(self, head: Eagle3Head) -> None:
        self.head = head
        self.kept: dict[int, QueryKeyValue] = {}  # of each layer

    def attend(self, layer: int, new: QueryKeyValue) -> torch.Tensor:
        old = self.kept.get(layer)
        all_rows = (
            new if old is None else QueryKeyValue(*(torch.cat(both, dim=2) for both in zip(old, new, strict=True)))
        )
        self.kept[layer] = all_rows
        rows, columns = new.query.shape[2], all_rows.key.shape[2]
        later = torch.arange(columns) > torch.arange(columns - rows, columns)[:, None]
        mask = torch.zeros(rows, columns, dtype=new.query.dtype).masked_fill(later, -float("inf"))[None, None]
        return eager_attention(new.query, all_rows.key, all_rows.value, mask, new.query.shape[-1] ** -0.5)

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor, positions: torch.Tensor) -> HeadOutput:
        output: HeadOutput = self.head(hidden, embedding, positions, self.attend)
        return output


NUM_SEQUENCES, NUM_PAIRS, NUM_STEPS = 2, 5, 3


class Inputs:
    """Features of pairs, and embeddings of pairs and draft steps, for two sequences."""

    def __init__(self, checkpoint: Checkpoint, first_position: int) -> None:
        rng = np.random.default_rng(5)
        rows = NUM_PAIRS + NUM_STEPS
        self.features = rng.standard_normal((NUM_SEQUENCES, NUM_PAIRS, 3 * checkpoint.teacher_hidden)) * 4
        self.embeddings = rng.standard_normal((NUM_SEQUENCES, rows, 56))
        # The second sequence is further on than the first.
        self.positions = first_position + np.arange(rows) + np.array([[0], [17]])


def run_fast(head: Eagle3Head, inputs: Inputs) -> tuple[Array, Array]:
    """Outputs (B, pairs + steps, ...) of the prefill and of draft steps that are fed the output before."""
    dtype = head.fc.weight.dtype
    features, embeddings = (torch.from_numpy(x).to(dtype) for x in (inputs.features, inputs.embeddings))
    positions = torch.from_numpy(inputs.positions)
    cached = CachedHead(head)
    with torch.inference_mode():
        hidden = head.first_hidden(features)
        outputs = [cached.forward(hidden, embeddings[:, :NUM_PAIRS], positions[:, :NUM_PAIRS])]
        for row in range(NUM_PAIRS, NUM_PAIRS + NUM_STEPS):
            one = slice(row, row + 1)
            outputs.append(cached.forward(outputs[-1].hidden[:, -1:], embeddings[:, one], positions[:, one]))
    hiddens, logits = (torch.cat(parts, dim=1).double().numpy() for parts in zip(*outputs, strict=True))
    return hiddens, logits


def run_slow(checkpoint: Checkpoint, inputs: Inputs) -> tuple[Array, Array]:
    hiddens, logits = [], []
    for sequence in range(NUM_SEQUENCES):
        slow = SlowHead(checkpoint)
        out: list[tuple[Array, Array]] = []
        for row in range(NUM_PAIRS + NUM_STEPS):
            fed = slow.first_hidden(inputs.features[sequence, row]) if row < NUM_PAIRS else out[-1][0]
            out.append(slow.row(fed, inputs.embeddings[sequence, row], int(inputs.positions[sequence, row])))
        hiddens.append(np.array([hidden for hidden, _ in out]))
        logits.append(np.array([logit for _, logit in out]))
    return np.array(hiddens), np.array(logits)


def check_against_slow(checkpoint: Checkpoint, head: Eagle3Head, first_position: int = 0) -> None:
    inputs = Inputs(checkpoint, first_position)
    slow_hidden, slow_logits = run_slow(checkpoint, inputs)
    assert slow_logits.std() > 0.5  # agreement on zeros would say nothing
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-3 if first_position else 2e-4)):
        hidden, logits = run_fast(head.to(dtype), inputs)
        assert np.abs(hidden - slow_hidden).max() <= tolerance
        assert np.abs(logits - slow_logits).max() <= tolerance


@pytest.mark.parametrize("name", HEADS)
def test_every_kind_of_head_computes_what_its_checkpoint_means(tmp_path: Path, name: str) -> None:
    checkpoint = build(name)
    check_against_slow(checkpoint, load(checkpoint, tmp_path).head)


@pytest.mark.parametrize("name", ["small", "norm-before-residual", "eagle-3.1", "two-layers"])
def test_speculators_layout_is_the_same_head(tmp_path: Path, name: str) -> None:
    checkpoint = nested(build(name))
    files = load(checkpoint, tmp_path, prefix="layers.0.")
    assert files.rope_theta_source == "transformer_layer_config.rope_theta"
    assert (files.max_positions, files.hidden_state_indices) == (2048, ())
    check_against_slow(checkpoint, files.head)


@pytest.mark.parametrize(
    "naming", [{"prefix": "layers.0."}, {"outer": "model."}, {"prefix": "layers.0.", "outer": "model."}]
)
def test_every_public_naming_is_the_same_head(tmp_path: Path, naming: dict[str, str]) -> None:
    checkpoint = build("small")
    ours = load(checkpoint, tmp_path / "a").head.state_dict()
    theirs = load(checkpoint, tmp_path / "b", **naming).head.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", ["small", "norm-before-residual"])
def test_positions_past_the_heads_table_are_rotated_by_the_same_formula(tmp_path: Path, name: str) -> None:
    checkpoint = build(name)
    files = load(checkpoint, tmp_path)
    assert files.max_positions == 2048
    for first in (2040, 5000, 100_000):
        check_against_slow(checkpoint, files.head, first)


def test_only_differences_of_positions_matter_past_the_table(tmp_path: Path) -> None:
    checkpoint = build("small")
    head = load(checkpoint, tmp_path).head.double()
    near, far = (run_fast(head, Inputs(checkpoint, first)) for first in (0, 30_000))
    assert np.abs(near[1] - far[1]).max() < 1e-8


def test_positions_may_be_one_row_for_all(tmp_path: Path) -> None:
    head = load(build("small"), tmp_path).head
    hidden, embedding = torch.randn(2, 3, 56), torch.randn(2, 3, 56)
    for_all, for_each = (head.rotation(p, torch.float32) for p in (torch.arange(3), torch.arange(3).expand(2, 3)))
    shared, apart = head.project(hidden, embedding, for_all), head.project(hidden, embedding, for_each)
    alone = head.project(hidden[0], embedding[0], for_all)
    assert all(torch.equal(a, b) for a, b in zip(shared, apart, strict=True))
    assert all(torch.allclose(a[0], b, atol=1e-6) for a, b in zip(shared, alone, strict=True))


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_head_loads_as_it_was(tmp_path: Path, name: str) -> None:
    checkpoint = build(name)
    files = load(checkpoint, tmp_path / "a")
    for ids in ((2, 5, 7), (1, 4, 6)):
        save_head(files.head, tmp_path / "b", ids)
        again = load_head(tmp_path / "b", checkpoint.teacher_hidden, VOCAB)
        assert again.hidden_state_indices == ids
        assert again.head.config == files.head.config
        assert all(torch.equal(v, again.head.state_dict()[k]) for k, v in files.head.state_dict().items())


def test_bfloat16_weights_are_widened_exactly(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = build("small").write(tmp_path)
    narrow = {
        k: v.bfloat16() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()
    }
    save_file(narrow, folder / "model.safetensors")
    head = load_head(folder, 56, VOCAB).head
    assert head.fc.weight.dtype == torch.float32
    assert torch.equal(head.fc.weight.bfloat16(), narrow["fc.weight"])


def test_the_heads_own_embedding_is_used_and_the_teachers_borrowed(tmp_path: Path) -> None:
    teachers = torch.nn.Embedding(VOCAB, 40)
    checkpoint = build("other-teacher-width")
    own = load(checkpoint, tmp_path / "own").embedding(teachers)
    assert own(torch.tensor([3])).shape == (1, 56)
    assert torch.equal(own(torch.tensor([3]))[0], torch.from_numpy(checkpoint.weights["embed_tokens.weight"][3]))
    assert load(build("small"), tmp_path / "none").embedding(teachers) is teachers
    del checkpoint.weights["embed_tokens.weight"]
    with pytest.raises(UsageError, match="features of 3 x 40 and embeddings of 56, the teacher gives 40"):
        load(checkpoint, tmp_path / "neither")


def test_the_vocabulary_is_kept_in_both_directions(tmp_path: Path) -> None:
    checkpoint = build("small")
    files = load(checkpoint, tmp_path / "a")
    assert files.vocab_mapping == "offset"
    teacher_ids = files.head.teacher_tokens(torch.arange(64))
    assert files.vocab.ids.tolist() == teacher_ids.tolist() == np.flatnonzero(checkpoint.weights["t2d"]).tolist()
    whole = load(build("whole-vocabulary"), tmp_path / "b")
    assert whole.vocab_mapping == "identity"
    assert bool(whole.head.t2d.all())  # the checkpoint has neither tensor


@pytest.mark.parametrize(
    ("config", "indices", "source"),
    [
        ({}, (), "default"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": []}}, (), "default"),
        ({"eagle_aux_hidden_state_layer_ids": [2, 18, 33]}, (2, 18, 33), "eagle_aux_hidden_state_layer_ids"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 18, 33]}, (1, 18, 33), "eagle_aux_hidden_state_layer_ids"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [24, 30, 35]}}, (24, 30, 35), "eagle_config."),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 17, 32]}}, (2, 18, 33), "output is meant"),
    ],
)
def test_layer_ids_are_read_as_the_engine_that_writes_them_means_them(
    tmp_path: Path, config: dict[str, Any], indices: tuple[int, ...], source: str
) -> None:
    files = load(random_checkpoint(**config), tmp_path)
    assert files.hidden_state_indices == indices
    assert source in files.hidden_state_source
    assert files.feature_layers(36) == (indices or (2, 18, 33))


def test_a_hidden_state_behind_the_final_norm_is_refused(tmp_path: Path) -> None:
    files = load(random_checkpoint(eagle_aux_hidden_state_layer_ids=[24, 30, 36]), tmp_path)
    with pytest.raises(UsageError, match=r"wants hidden states \[24, 30, 36\] .* inputs of layers 0..35"):
        files.feature_layers(36)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 2}, r"states num_hidden_layers 2, the files hold tensors of 1 \(midlayer\)"),
        ({"num_hidden_layers": 40}, "The authors' code has one layer, whatever is stated"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, wanted an integer of at least 1"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "sets rope_scaling to type 'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "sets rope_parameters to type 'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "one rotation for the one layer"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "contradicts itself.*keep the one"),
        ({"rope_theta": "many"}, "rope_theta is 'many', wanted a number"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor to 0.5, wanted 1"),
        ({"hidden_act": "gelu"}, "hidden_act to 'gelu', wanted 'silu'"),
        ({"mlp_bias": True}, "mlp_bias to True"),
        ({"eagle_config": {"use_aux_hidden_state": False}}, "use_aux_hidden_state to False"),
        ({"num_aux_hidden_states": 5}, "num_aux_hidden_states to 5, wanted 3"),
        ({"model_type": "llama4_text"}, "interleaved pairs"),
        ({"layer_types": ["sliding_attention"]}, "layer_types to .'sliding_attention'."),
        ({"fc_norm": True, "norm_before_fc": True}, "norm_before_fc and fc_norm, wanted one of them"),
        ({"norm_before_fc": False, "eagle_config": {"norm_before_fc": True}}, "norm_before_fc is .False, True."),
        ({"norm_output": "yes"}, "norm_output is .'yes'."),
        ({"eagle_config": [1]}, "eagle_config is .1., wanted an object"),
        ({"eagle_aux_hidden_state_layer_ids": [2, 5]}, "wanted three integers"),
        (
            {
                "eagle_aux_hidden_state_layer_ids": [3, 5, 8],
                "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 4, 7]},
            },
            "contradicts itself",
        ),
        ({"hidden_size": None}, "is not an EAGLE-3 configuration"),
        ({"target_hidden_size": 64}, "features of 3 x 64"),
        ({"vocab_size": 152}, "covers a vocabulary of 152, the teacher has 151"),
    ],
)
def test_a_config_that_would_draft_wrongly_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = random_checkpoint().write(tmp_path)
    (folder / "config.json").write_text(json.dumps(SMALL | config))
    with pytest.raises(UsageError, match=message):
        load_head(folder, 56, VOCAB)


def other_t2d(weights: dict[str, Any]) -> None:
    weights["t2d"] = np.roll(weights["t2d"], 1)


def repeated_id(weights: dict[str, Any]) -> None:
    weights["d2t"] = weights["d2t"].copy()
    weights["d2t"][5] = weights["d2t"][4] - 1
    del weights["t2d"]


CHANGES: dict[str, Any] = {
    "t2d and d2t disagree on": other_t2d,
    "the draft ids 4 and 5 both": repeated_id,
    "offsets, not absolute ids": lambda w: w.update(d2t=w["d2t"] + np.arange(64)),
    r"d2t: got \[64\] of torch.float32": lambda w: w.update(d2t=w["d2t"].astype(np.float32)),
    r"t2d: got \[150\]": lambda w: w.update(t2d=w["t2d"][1:]),
    "unexpected input_norm.weight .config.json does not set norm_before_fc.": lambda w: w.update(
        {"input_norm.weight": np.ones(168, np.float32)}
    ),
    "does not set attention_bias": lambda w: w.update({"midlayer.self_attn.q_proj.bias": np.ones(56, np.float32)}),
    "unexpected mask_hidden": lambda w: w.update(mask_hidden=np.ones((1, 56), np.float32)),
    r"states num_hidden_layers 1, the files hold tensors of 2 .layers.1, midlayer.": lambda w: w.update(
        {"layers.1.mlp.up_proj.weight": np.ones(1, np.float32)}
    ),
    "unexpected additional_layers.0.hidden_norm.weight .after the first layer, plain ones": lambda w: w.update(
        {"additional_layers.0.hidden_norm.weight": np.ones(56, np.float32)}
    ),
    "missing lm_head.weight": lambda w: w.pop("lm_head.weight"),
    "heads are quantised as they are loaded, by --drafter-quantization": lambda w: w.update(
        {"fc.weight": w["fc.weight"].astype(np.int8)}
    ),
    "not that of rope_theta 1e.06": lambda w: w.update(
        {"midlayer.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    ),
    "holds the tensor midlayer.input_layernorm.weight twice": lambda w: w.update(
        {"layers.0.input_layernorm.weight": np.ones(56, np.float32)}
    ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, message: str) -> None:
    checkpoint = build("small")
    CHANGES[message](checkpoint.weights)
    with pytest.raises(UsageError, match=message):
        load(checkpoint, tmp_path)


def test_the_teachers_tensors_beside_a_head_and_right_frequencies_are_passed_over(tmp_path: Path) -> None:
    checkpoint = build("small")
    checkpoint.extra = {
        "verifier_norm.weight": np.ones(56, np.float32),
        "midlayer.self_attn.rotary_emb.inv_freq": np.array([1.0, 1e-3], np.float32),
    }
    check_against_slow(checkpoint, load(checkpoint, tmp_path).head)


def test_pickled_weights_are_never_read_and_their_conversion_is_named(tmp_path: Path) -> None:
    folder = build("small").write(tmp_path / 'a head\'s "folder"')
    safetensors = folder / "model.safetensors"
    torch.save(load_file(safetensors), folder / "pytorch_model.bin")
    expected = load_head(folder, 56, VOCAB).head.state_dict()
    safetensors.unlink()
    (folder / "training_args.bin").write_bytes(b"no weights")
    with pytest.raises(
        UsageError, match=r"pytorch_model.bin, .*; pickled weights .* never read, convert them by: "
    ) as got:
        load_head(folder, 56, VOCAB)
    command = str(got.value).partition("convert them by: ")[2]
    assert "weights_only=True" in command
    program = [sys.executable, *shlex.split(command)[1:]]
    subprocess.run(program, check=True)
    converted = load_head(folder, 56, VOCAB).head.state_dict()
    assert all(torch.equal(converted[name], tensor) for name, tensor in expected.items())


def test_the_conversion_runs_no_code_in_a_pickle(tmp_path: Path) -> None:
    folder = build("small").write(tmp_path / "head")
    (folder / "model.safetensors").unlink()
    torch.save({"fc.weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError) as no:
        load_head(folder, 56, VOCAB)
    program = [sys.executable, *shlex.split(str(no.value).partition("convert them by: ")[2])[1:]]
    assert subprocess.run(program, check=False, capture_output=True).returncode != 0
    assert not (tmp_path / "sprung").exists()
    assert not (folder / "model.safetensors").exists()


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("prefix", ["midlayer.", "layers.0."])
def test_a_deeper_head_loads_under_both_names_of_its_first_layer(tmp_path: Path, prefix: str) -> None:
    """vLLM reads both beside ``layers.1``; speculators writes the second."""
    checkpoint = build("two-layers")
    files = load(checkpoint, tmp_path, prefix=prefix)
    assert files.head.config.num_layers == 2
    check_against_slow(checkpoint, files.head)


def test_a_deeper_head_is_saved_as_engines_that_have_them_name_it(tmp_path: Path) -> None:
    files = load(build("two-layers"), tmp_path / "a")
    save_head(files.head, tmp_path / "b", (2, 5, 7))
    names = load_file(tmp_path / "b" / "model.safetensors")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["num_hidden_layers"] == 2
    assert {name.split(".self_attn")[0] for name in names if ".self_attn." in name} == {"layers.0", "layers.1"}


def test_later_layers_that_read_the_embedding_too_are_refused_with_their_shapes(tmp_path: Path) -> None:
    checkpoint = build("two-layers")
    wide = np.ones((56, 112), np.float32)
    checkpoint.weights |= {"layers.1.self_attn.q_proj.weight": wide, "layers.1.hidden_norm.weight": np.ones(56, "f4")}
    with pytest.raises(
        UsageError, match=r"hidden_norm.weight .after the first layer, plain.*q_proj.*got .56, 112., wanted"
    ):
        load(checkpoint, tmp_path)
