"""The model card, written from the measurements of the very run that trained the models."""

from __future__ import annotations

from typing import Any

STAGES = ("teacher", "unlikelihood", "self_text", "head")
TEMPLATE = """\
# The demo models

A byte-level BPE tokenizer, a Llama-architecture teacher, an EAGLE-3 draft head and exit heads, small enough to run
anywhere, trained by this project's own code. They continue Python source; they are for trying SpecScope and for nothing
else.

| | teacher | head | each exit head |
|---|---|---|---|
| format | Hugging Face folder, bfloat16 safetensors | public EAGLE-3 tensor names, float32 safetensors | \
this project's own (`engine/drafters/early_exit/head.py`), bfloat16 safetensors |
| shape | {layers} layers x {hidden}, {heads} heads, {kv_heads} key-value heads, vocabulary {vocab}, tied | \
{head_layers} x {hidden}, draft vocabulary {draft_vocab} (`d2t` offsets, `t2d`) | \
norm, SwiGLU of {exit_inner}, norm; the teacher's output matrix |
| parameters | {parameters:,} | {head_parameters:,} | {exit_parameters:,} |
| reads | | hidden_states {layers_read} | the state after the first {exit_layer} layers |
| updates | {teacher_steps} + {ul_steps} against repetition | {head_steps} | {exit_steps} |
| tokens seen | {teacher_tokens:,} | {head_tokens:,} | {exit_tokens:,} |
| seeds | {teacher_seed}, {ul_seed} | {head_seed} | {exit_seed} |
| time | {teacher_seconds} s + {ul_seconds} s | {text_seconds} s writing its text + {head_seconds} s | \
{exit_seconds} s |

Machine: {threads} threads of an {processor} CPU (device `{device}`), shared with other work, which made it slower.

**Data.** The Python {python} standard library's source (PSF licence), {train_files} files, {train_tokens:,} tokens; \
{held_files} files, {held_tokens:,} tokens are held out, chosen by the hash of their name
(`engine/lab/training/corpus.py`).
The head was trained on {rows} texts of 256 tokens that the teacher itself wrote, half of them greedily and half at
temperature 0.8, by the training-time test unrolled {unroll} steps; from update {sharp_from} on against the teacher's
distribution at temperature {sharp_temperature}, since the demo decodes greedily. The exit heads were trained on the
same texts, by soft cross-entropy to the teacher over its whole vocabulary, sharpened in the same way from update \
{exit_sharp_from} on.

**Command**, from scratch; it resumes where it is interrupted:

```
specscope train --work WORK --teacher-steps {teacher_steps} --unlikelihood-steps {ul_steps} --head-steps {head_steps} \
--exit-head-steps {exit_steps} {exit_options} --self-text-rows {rows} --compile
```

**Held-out loss**, nats per token: teacher {loss:.3f}; bigram of the same tokenizer {bigram:.3f}. Unlikelihood training
(Welleck et al., 2020) costs some of it and keeps greedy text from looping.

**Acceptance** on {num_prompts} held-out prompts, {num_tokens:,} tokens, greedy, depth 5, top-k 4. Accepted length
counts neither root nor bonus. Repeated 8-grams in the outputs: {repeated:.3f}; in pieces of the held-out text itself
of that length: {held_repeated:.3f}.

| budget | accepted length | tokens per step | steps that accepted at least 1 / 2 / 3 / 4 / 5 |
|---|---|---|---|
{rows_table}

The exit heads on the same prompts, drafting as `--drafter early-exit`; the accepted length of a chain of depth 1 is \
the share of
drafts that hold:

| tree | accepted length | tokens per step | steps that accepted at least 1 / 2 / 3 / 4 / 5 |
|---|---|---|---|
{exit_table}

Of the times, the teacher's and the heads' are added up from the rates in their training logs (evaluation and what an
interruption undid are left out); the other two are the stages' own clocks.

`prompts.jsonl` holds the demo's prompts, cut from held-out files (PSF licence). The numbers above are in
`measurements.json`, as the command wrote them.
"""


def render_card(m: dict[str, Any]) -> str:
    """The card for the measurements ``m`` of ``pipeline.measure``."""
    teacher, head, accepted = m["teacher"], m["head"], m["accepted"]
    first = next(iter(accepted.values()))
    seconds = {name: m["seconds"].get(name, 0) for name in STAGES}
    return TEMPLATE.format(
        layers=teacher["num_layers"],
        hidden=teacher["hidden_size"],
        heads=teacher["num_heads"],
        kv_heads=teacher["num_kv_heads"],
        vocab=teacher["vocab_size"],
        draft_vocab=head["draft_vocab_size"],
        parameters=teacher["parameters"],
        head_parameters=head["parameters"],
        head_layers="1 layer" if head["num_layers"] == 1 else f"{head['num_layers']} layers",
        layers_read=head["hidden_state_indices"],
        teacher_steps=teacher["num_steps"],
        ul_steps=teacher["unlikelihood"]["num_steps"],
        head_steps=head["num_steps"],
        teacher_tokens=teacher["tokens_seen"],
        head_tokens=head["tokens_seen"],
        teacher_seed=teacher["seed"],
        ul_seed=teacher["unlikelihood"]["seed"],
        head_seed=head["seed"],
        teacher_seconds=seconds["teacher"],
        ul_seconds=seconds["unlikelihood"],
        text_seconds=seconds["self_text"],
        head_seconds=seconds["head"],
        threads=m["machine"]["threads"],
        processor=m["machine"]["processor"],
        device=m["machine"]["device"],
        python=m["machine"]["python"],
        train_files=m["corpus"]["files"]["train"],
        held_files=m["corpus"]["files"]["held_out"],
        train_tokens=m["corpus"]["tokens"]["train"],
        held_tokens=m["corpus"]["tokens"]["held_out"],
        rows=head["self_text_rows"],
        unroll=head["unroll"],
        sharp_from=head["sharp_from"],
        sharp_temperature=head["sharp_temperature"],
        loss=teacher["held_out_loss"],
        bigram=teacher["bigram_held_out_loss"],
        num_prompts=first["num_prompts"],
        num_tokens=first["num_tokens"],
        repeated=first["repeated_8grams"],
        held_repeated=m["held_out_repeated_8grams"],
        rows_table=_table({name.removeprefix("budget_"): by_depth for name, by_depth in accepted.items()}),
        **_exit_heads(m["exit_heads"]),
        exit_seconds=" + ".join(str(m["seconds"].get(name, 0)) for name in m["exit_heads"]),
    )


def _exit_heads(heads: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the card says of the exit heads, which differ only in their layer."""
    first = next(iter(heads.values()))
    layers = [str(head["exit_layer"]) for head in heads.values()]
    accepted = {
        f"after layer {head['exit_layer']}, {name.replace('_', ' ')}": by_depth
        for head in heads.values()
        for name, by_depth in head["accepted"].items()
    }
    return {
        "exit_inner": first["intermediate_size"],
        "exit_parameters": first["parameters"],
        "exit_layer": ", ".join(layers),
        "exit_steps": first["num_steps"],
        "exit_tokens": first["tokens_seen"],
        "exit_seed": first["seed"],
        "exit_sharp_from": first["sharp_from"],
        "exit_options": " ".join(f"--exit-layer {layer}" for layer in layers),
        "exit_table": _table(accepted),
    }


def _table(measured: dict[str, dict[str, Any]]) -> str:
    """A line for each of the acceptances ``measured``."""
    return "\n".join(
        f"| {name} | {accepted['accepted_length']:.2f} | {accepted['accepted_length'] + 1:.2f} | "
        + " / ".join(f"{share:.2f}" for share in accepted["accepted_by_depth"])
        + " |"
        for name, accepted in measured.items()
    )
