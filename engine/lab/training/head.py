"""Trains an EAGLE-3 head by the training-time test, on text of the teacher's own.

The head is unrolled ``unroll`` steps. Step 0 attends causally; step i attends to step 0's keys causally and to its own
row's keys of steps 1..i, its rotation shifted by i, exactly what drafting will give it. Each step is fed the layer's
output of the step before. The loss is soft cross-entropy to the teacher over the draft vocabulary, weighted 0.8^i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from specscope.engine.drafters.draft_vocab import DraftVocab
from specscope.engine.drafters.eagle3.files import default_hidden_state_indices
from specscope.engine.drafters.eagle3.head import Eagle3Head, HeadConfig, HeadOutput, QueryKeyValue
from specscope.engine.lab.training.loop import BatchLoss, Training, train
from specscope.engine.lab.training.online import drafter_of, write_online
from specscope.engine.lab.training.schedule import rows_at, warmup_stable_decay
from specscope.engine.lab.training.start import StartingHead, head_from
from specscope.engine.lab.training.teacher import make_optimizers

CHECKPOINT_EVERY = 20  # updates


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """Everything that decides the head's weights, except for the data and the teacher."""

    num_layers: int = 1
    draft_vocab_size: int = 3072
    intermediate_size: int = 768
    unroll: int = 6
    num_steps: int = 1200
    sharp_from: int = 600  # from this update on, targets are sharpened: drafting is for a greedy teacher
    sharp_temperature: float = 0.5
    batch_size: int = 12
    muon_lr: float = 4e-3
    adam_lr: float = 2e-3
    warmup: int = 40  # updates until the learning rates are at their peaks
    loss_decay: float = 0.8
    online_rows: int = 0  # of a batch, that are written while the head trains; the others are the text it was given
    online_from: int = 0  # the update that such rows begin at: drafts of a head that knows nothing lead nowhere
    online_reuse: int = 20  # updates whose rows are written at a time, by one state of the head
    seed: int = 2


class TeacherView(NamedTuple):
    """What the head sees of the teacher for rows of ids (B, T)."""

    features: torch.Tensor  # (B, T, 3E)
    embeddings: torch.Tensor  # (B, T, H)
    logits: torch.Tensor  # (B, T, V) over the draft vocabulary
    covered: torch.Tensor  # (B, T) whether the teacher's choice is in the draft vocabulary


def new_head(recipe: HeadRecipe, teacher: LlamaForCausalLM, vocab: DraftVocab) -> Eagle3Head:
    """A head for ``teacher``, its output rows begun from the teacher's own."""
    c: Any = teacher.config
    head = Eagle3Head(
        HeadConfig(
            hidden_size=c.hidden_size,
            teacher_hidden_size=c.hidden_size,
            intermediate_size=recipe.intermediate_size,
            num_heads=c.num_attention_heads,
            num_kv_heads=c.num_key_value_heads,
            head_dim=c.hidden_size // c.num_attention_heads,
            draft_vocab_size=vocab.size,
            teacher_vocab_size=c.vocab_size,
            rope_theta=float(c.rope_parameters["rope_theta"]),
            rms_norm_eps=c.rms_norm_eps,
            max_positions=c.max_position_embeddings,
            num_layers=recipe.num_layers,
        )
    )
    head.use_vocab(vocab)
    with torch.no_grad():
        head.lm_head.weight.copy_(teacher.lm_head.weight[torch.from_numpy(vocab.ids)])
    return head


@torch.no_grad()
def view_teacher(teacher: LlamaForCausalLM, ids: torch.Tensor, head: Eagle3Head) -> TeacherView:
    """One forward of the teacher over ``ids`` (B, T)."""
    output = teacher(ids, use_cache=False, output_hidden_states=True)
    layers = default_hidden_state_indices(teacher.config.num_hidden_layers)
    features = torch.cat([output.hidden_states[i] for i in layers], dim=-1)
    logits = output.logits
    draft_ids = head.teacher_tokens(torch.arange(head.config.draft_vocab_size, device=ids.device))
    return TeacherView(
        features.float(),
        teacher.get_input_embeddings()(ids).float(),
        logits[..., draft_ids].float(),
        head.t2d[logits.argmax(dim=-1)],
    )


def unrolled_attention(steps: list[QueryKeyValue]) -> torch.Tensor:
    """The last step's attention (B, heads, R, W): causal over step 0, and its own row of each later step."""
    query = steps[-1].query
    groups = query.shape[1] // steps[0].key.shape[1]
    keys = [s.key.repeat_interleave(groups, dim=1) for s in steps]
    values = [s.value.repeat_interleave(groups, dim=1) for s in steps]
    scale = query.shape[-1] ** -0.5
    rows = query.shape[-2]
    causal = torch.ones(rows, rows, dtype=torch.bool, device=query.device).tril()
    scores = (query @ keys[0].transpose(-1, -2) * scale).masked_fill(~causal, -float("inf"))
    later = [(query * key).sum(-1, keepdim=True) * scale for key in keys[1:]]
    probs = torch.softmax(torch.cat([scores, *later], dim=-1).float(), dim=-1).to(query.dtype)
    attended = probs[..., :rows] @ values[0]
    for number, value in enumerate(values[1:]):
        attended = attended + probs[..., rows + number, None] * value
    return attended


class UnrolledLoss(NamedTuple):
    """The weighted loss and, a step, how often the head's choice was the teacher's."""

    loss: torch.Tensor
    agreement: torch.Tensor  # (unroll,)


def unrolled_loss(
    head: Eagle3Head, view: TeacherView, unroll: int, decay: float, temperature: float = 1.0
) -> UnrolledLoss:
    """The training-time test over all rows that have ``unroll`` tokens to come.

    ``temperature`` sharpens the teacher's distribution: below 1 the head's probabilities lean towards how likely a
    token is the teacher's *choice*, which is what a tree for a greedy teacher must be ranked by.
    """
    rows = view.features.shape[1] - unroll
    hidden = head.first_hidden(view.features[:, :rows])
    steps: list[list[QueryKeyValue]] = [[] for _ in range(head.config.num_layers)]

    def attend(layer: int, projected: QueryKeyValue) -> torch.Tensor:
        steps[layer].append(projected)
        return unrolled_attention(steps[layer])

    total = hidden.new_zeros((), dtype=torch.float32)
    agreement = []
    for step in range(unroll):
        span = slice(step + 1, step + 1 + rows)
        positions = torch.arange(rows, device=hidden.device) + step
        output: HeadOutput = head(hidden, view.embeddings[:, span], positions, attend)
        hidden = output.hidden
        logprobs = torch.log_softmax(output.logits.float(), dim=-1)
        target = torch.softmax(view.logits[:, span] / temperature, dim=-1)
        covered = view.covered[:, span]
        entropy = -(target * logprobs).sum(-1)
        total = total + decay**step * (entropy * covered).sum() / covered.sum().clamp(min=1)
        agreement.append(((logprobs.argmax(-1) == target.argmax(-1)) & covered).float().mean())
    return UnrolledLoss(total, torch.stack(agreement).detach())


class HeadTexts(NamedTuple):
    """What a head is trained on."""

    rows: NDArray[np.int64]  # (num, T) of the teacher's own
    stream: NDArray[np.int64]  # of the corpus: prompts for what is written while it trains


def batches_of(
    recipe: HeadRecipe, teacher: LlamaForCausalLM, head: Eagle3Head, vocab: DraftVocab, texts: HeadTexts
) -> Callable[[int], torch.Tensor]:
    """The batch (B, T) of an update, by its number and, for rows that are written online, by the head as it is then."""
    drafter = drafter_of(head, teacher, vocab)
    written: list[torch.Tensor] = []  # the last of them is used up

    def batch(step: int) -> torch.Tensor:
        num_online = recipe.online_rows if step >= recipe.online_from else 0
        fixed = rows_at(texts.rows, step, recipe.batch_size - num_online, recipe.seed).to(teacher.device)
        if not num_online:
            return fixed
        turn = step % recipe.online_reuse
        if not written or turn == 0:
            num_rows = num_online * recipe.online_reuse
            seed = recipe.seed + step - turn
            written[:] = [write_online(teacher, drafter, texts.stream, num_rows, texts.rows.shape[1], seed)]
        return torch.cat([fixed, written[0][turn :: recipe.online_reuse]])

    return batch


def train_head(
    recipe: HeadRecipe,
    teacher: LlamaForCausalLM,
    texts: HeadTexts,
    vocab: DraftVocab,
    folder: Path,
    device: torch.device,
    compiled: bool,
    start: StartingHead | None,
) -> Eagle3Head:
    """Trains on ``texts``, from scratch or from ``start``, with checkpoints in ``folder``; resumes where one is found,
    and goes on where more updates are asked for than it was made after."""
    torch.manual_seed(recipe.seed)
    fresh = new_head(recipe, teacher, vocab) if start is None else head_from(start.head, recipe.num_layers)
    head = fresh.to(device)
    loss_of = torch.compile(unrolled_loss) if compiled else unrolled_loss

    def loss(step: int, ids: torch.Tensor) -> BatchLoss:
        temperature = recipe.sharp_temperature if step >= recipe.sharp_from else 1.0
        view = view_teacher(teacher, ids, head)
        result = loss_of(head, view, recipe.unroll, decay=recipe.loss_decay, temperature=temperature)
        agreement = {f"agree_{number}": value for number, value in enumerate(result.agreement)}
        return BatchLoss(result.loss, ids.numel(), {"loss": result.loss, **agreement})

    training = Training(
        module=head,
        optimizers=make_optimizers(head, recipe.muon_lr, recipe.adam_lr),
        num_steps=recipe.num_steps,
        schedule=lambda step: warmup_stable_decay(step, recipe.num_steps, recipe.warmup),
        data=batches_of(recipe, teacher, head, vocab, texts),
        loss=loss,
        max_norm=0.5,
        report_every=25,
        checkpoint_every=CHECKPOINT_EVERY,
        started_from=None if start is None else start.start.weights_digest,
    )
    train(training, folder)
    return head.float()
