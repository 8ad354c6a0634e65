"""Invariants of the stop phase: what a step emits, and where it is cut."""

from __future__ import annotations

from specscope.tracer.oracle.invariants.base import (
    Context,
    Invariant,
    committed_path,
    first_mismatch,
    next_root,
    present,
    promises,
)


def _emitted(c: Context) -> str | None:
    tree, path, bonus = present(c.step.tree), present(committed_path(c.step)), present(next_root(c.step))
    wanted = [tree.tokens[s] for s in path if 0 <= s < len(tree.tokens)] + [bonus]
    return first_mismatch(present(c.step.stop).emitted, wanted, "token")


def _cut(c: Context) -> str | None:
    stop = present(c.step.stop)
    if c.previous is not None and c.previous.stop is not None and c.previous.stop.reason is not None:
        return f"a step after the one that ended the turn ({c.previous.stop.reason})"
    if not 1 <= stop.kept <= len(stop.emitted):
        return f"kept {stop.kept} of {len(stop.emitted)} tokens"
    eos = set(c.manifest.stop_rules.eos_token_ids if c.manifest.stop_rules is not None else ())
    at = next((i for i, t in enumerate(stop.emitted[: stop.kept]) if t in eos), None)
    is_recorded = stop.reason is not None or promises(c.manifest, "stop")
    if at is not None and (stop.kept != at + 1 or (is_recorded and stop.reason != "eos")):
        return f"token {at} of the block ends the text, but {stop.kept} were kept (reason {stop.reason})"
    if is_recorded and stop.reason is None and stop.kept != len(stop.emitted):
        return f"kept {stop.kept} of {len(stop.emitted)} tokens without a reason"
    return None


def _own_stop(c: Context) -> bool:
    """Whether the step was cut by its own stop rules; a replay cuts where the recording was cut."""
    return c.step.forced is None


STOP: tuple[Invariant[Context], ...] = (
    Invariant(
        id="stop.emitted",
        statement="the step emits its path's tokens and the bonus",
        check=_emitted,
        needs=("tree", "accept", "appended"),
    ),
    Invariant(
        id="stop.cut",
        statement="a block is cut right after its stop token",
        check=_cut,
        needs=("stop",),
        applies=_own_stop,
    ),
)
