"""Invariants of the verify phase: what the teacher's forward was given, and what was read from it."""

from __future__ import annotations

import math

from specscope.schemas import SlidingWindow
from specscope.tracer.oracle.invariants.base import Context, Invariant, is_captured, present, takes_features


def _verify_sizes(c: Context) -> str | None:
    verify, slots = present(c.step.verify), len(present(c.step.tree).tokens)
    for name in ("argmax", "top_tokens", "top_logits", "logsumexp", "entropy"):
        values = getattr(verify, name)
        if values is not None and len(values) != slots:
            return f"{name}: got {len(values)} entries, wanted {slots}, the slots"
    least = min(2, c.manifest.teacher.vocab_size)
    num_tokens, num_logits = list(map(len, verify.top_tokens or ())), list(map(len, verify.top_logits or ()))
    for name, counts in (("best tokens", num_tokens), ("best logits", num_logits)):
        if min(counts, default=least) < least:
            odd = next(slot for slot, count in enumerate(counts) if count < least)
            return f"slot {odd}: got {counts[odd]} {name}, wanted {least} or more"
    odd_window = next((w for w in verify.windows or () if {len(w.first_positions), len(w.num_seen)} != {slots}), None)
    if odd_window is not None:
        return f"the window of {odd_window.size}: got {len(odd_window.first_positions)} slots, wanted {slots}"
    for slot, (tokens, logits) in enumerate(zip(num_tokens, num_logits, strict=False)):
        if tokens != logits:
            return f"slot {slot}: got {tokens} best tokens with {logits} logits"
    return None if verify.dispatch != {} else "no attention call was recorded"


def _logits_finite(c: Context) -> str | None:
    verify = present(c.step.verify)
    slots = present(verify.nonfinite_slots)
    if slots:
        return f"slots {slots[:8]} have logits that are not finite"
    best = [logits[0] for logits in verify.top_logits or () if logits]
    for name, values in (("best logit", best), ("logsumexp", verify.logsumexp), ("entropy", verify.entropy)):
        if math.isfinite(sum(values or ())):
            continue  # as nearly always
        odd = [slot for slot, value in enumerate(values or ()) if not math.isfinite(value)]
        if odd:
            return f"slot {odd[0]}: {name} {(values or ())[odd[0]]}, although its logits are said to be finite"
    return None


def _argmax_is_top(c: Context) -> str | None:
    verify = present(c.step.verify)
    for slot, (choice, tokens, logits) in enumerate(
        zip(verify.argmax, present(verify.top_tokens), present(verify.top_logits), strict=False)
    ):
        best = max(logits)
        if tokens[0] == choice and logits[0] == best:
            continue  # as nearly always
        if logits[0] != best or choice not in [t for t, v in zip(tokens, logits, strict=False) if v == best]:
            return f"slot {slot}: argmax {choice}, but the best are tokens {tokens[:4]} with logits {logits[:4]}"
    return None


def _input_digest(c: Context) -> str | None:
    recorded, given = present(c.step.tensors).input_digest, present(c.step.verify).input_digest
    return None if recorded == given else f"tensorize made {recorded}, the forward was given {given}"


def _dispatch(c: Context) -> str | None:
    kernel, asked = c.manifest.kernel, c.manifest.attention
    wanted = "eager" if kernel is not None and kernel.fell_back else asked
    for name, calls in present(present(c.step.verify).dispatch).items():
        # Of a kernel that was asked for by its name, the name is counted; a mode's stands for what the device chooses.
        by_name = kernel is not None and wanted == kernel.name != "fused"
        if (name == "eager") != (wanted == "eager") or (by_name and name != wanted):
            reason = "eager attention, because the self-check failed" if wanted != asked else asked
            return f"{calls} calls of {name}, asked for was {reason}"
    return None


def _graph_length(c: Context) -> str | None:
    wrote_behind = present(present(present(c.step.verify).graph).committed_length)
    committed = present(c.step.tensors).committed_length
    if wrote_behind == committed:
        return None
    return f"the graph wrote keys and values behind position {wrote_behind}, {committed} were committed"


def _windows(c: Context) -> str | None:
    windows = present(present(c.step.verify).windows)
    return _window_layers(c, windows) or next(filter(None, (_window_sight(c, window) for window in windows)), None)


def _window_layers(c: Context, windows: list[SlidingWindow]) -> str | None:
    stated = enumerate(present(c.manifest.teacher.sliding_windows))
    wanted = {layer: size for layer, size in stated if size is not None}
    given = {layer: window.size for window in windows for layer in window.layers}
    if c.manifest.drafter.kind == "early-exit":  # it runs the first layers, of which verify does not tell
        wanted = {layer: size for layer, size in wanted.items() if layer in given}
    odd = next((layer for layer in sorted({*wanted, *given}) if wanted.get(layer) != given.get(layer)), None)
    if odd is None:
        return None
    return f"layer {odd} slid with a window of {given.get(odd)}, the teacher's is {wanted.get(odd)}"


def _window_sight(c: Context, window: SlidingWindow) -> str | None:
    """What a slot at position p sees is p itself and the ``size`` - 1 positions before it."""
    tensors = present(c.step.tensors)
    for slot, position in enumerate(tensors.positions[: tensors.num_slots]):
        first, count = max(0, position - window.size + 1), min(position + 1, window.size)
        if (window.first_positions[slot], window.num_seen[slot]) != (first, count):
            return (
                f"slot {slot} at position {position}, in layers with a window of {window.size}: saw "
                f"{window.num_seen[slot]} positions from {window.first_positions[slot]} on, wanted {count} from "
                f"{first} on"
            )
    return None


def _has_windows(c: Context) -> bool:
    recorded = c.step.verify is not None and c.step.verify.windows is not None
    return recorded or any(c.manifest.teacher.sliding_windows or ())


def _layers(c: Context) -> str | None:
    got, wanted = present(c.step.verify).feature_layers, present(c.manifest.drafter.hidden_state_indices)
    return None if got == wanted else f"the forward gave the hidden states {got}, the drafter's are {wanted}"


VERIFY: tuple[Invariant[Context], ...] = (
    Invariant(
        id="verify.sizes",
        statement="verify has an entry per slot, each with two or more best tokens, and calls",
        check=_verify_sizes,
        needs=("tree", "verify"),
    ),
    Invariant(
        id="verify.logits-finite",
        statement="every logit is finite before any clean-up",
        check=_logits_finite,
        needs=("verify.nonfinite_slots",),
    ),
    Invariant(
        id="verify.argmax-is-top",
        statement="the argmax has the best logit",
        check=_argmax_is_top,
        needs=("verify.top_tokens", "verify.top_logits"),
    ),
    Invariant(
        id="verify.input-digest",
        statement="the forward was given what tensorize made",
        check=_input_digest,
        needs=("tensors.input_digest", "verify.input_digest"),
    ),
    Invariant(
        id="verify.dispatch",
        statement="the attention that ran is the one asked for",
        check=_dispatch,
        needs=("verify.dispatch",),
    ),
    Invariant(
        id="verify.graph-length",
        statement="a captured forward writes its keys and values behind what is committed",
        check=_graph_length,
        needs=("tensors", "verify.graph.committed_length"),
        applies=is_captured,
    ),
    Invariant(
        id="verify.windows",
        statement="in layers with a sliding window, every slot sees the last positions of its own path, and no others",
        check=_windows,
        needs=("tensors", "verify.windows", "manifest.teacher.sliding_windows"),
        applies=_has_windows,
    ),
    Invariant(
        id="verify.feature-layers",
        statement="the features are read from the layers that the drafter names",
        check=_layers,
        needs=("verify.feature_layers", "manifest.drafter.hidden_state_indices"),
        applies=takes_features,
    ),
)
