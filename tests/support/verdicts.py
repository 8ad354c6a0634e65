"""Verdicts made by hand, honest and hostile, so that reports are tested without a comparison."""

from __future__ import annotations

from typing import Any

from specscope.schemas.verdict import (
    VERDICT_SCHEMA,
    Blame,
    Contender,
    Difference,
    Drift,
    DriftFinding,
    Impact,
    NoiseFloor,
    Place,
    Root,
    Verdict,
)

#: What a prompt id or a token may hold to break out of a report.
HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "]]><evil/>",
    "a|b`c`**d**[e](javascript:f)",
    "\u202egnp.exe",
    "\x00\x01\x1b[2J\x7f\ufffe",
    "\n::error::owned\r\n##[error]owned",
    "%0A::error::%25",
    "&lt;&amp;\"'",
)
EVIL = " ".join(HOSTILE)


def root_at(prompt_id: str = "code", step: int = 3, **changes: Any) -> Root:
    """A root in the positions of a step; ``changes`` are fields of its difference."""
    found = Difference(
        phase="tensors", field="positions", node=[5, 7], a="30", b="31", kind="structural", inputs_equal=True
    )
    place = Place(turn=0, turn_b=0, prompt_id=prompt_id, prompt_turn=1, position=29, step_a=step, step_b=step + 1)
    blame = [Blame(side="b", invariant="tensors.position-is-length-plus-depth", witness="slot 2: position 31")]
    found = found.model_copy(update=changes)
    return Root(place=place, difference=found, also=2, inherited=4, blame=blame, wrong="candidate")


def near_tie() -> Root:
    """A root that is a near tie."""
    margins: dict[str, Any] = {"margin_a": 1e-5, "margin_b": 2e-5, "floor": 4e-5}
    scores = [Contender(token=7, a=9.50001, b=9.49998), Contender(token=8, a=9.5, b=9.5)]
    choices: dict[str, Any] = {"a": "7", "b": "8", "tokens_a": [7], "tokens_b": [8], "contenders": scores}
    return root_at(phase="verify", field="argmax", kind="near-tie", **margins, **choices).model_copy(
        update={"blame": []}
    )


def drift_of_all(**changes: Any) -> Root:
    """A root of logits that all drift, from the prompt's own forward on; ``changes`` are fields of its difference."""
    finding = DriftFinding(quantity="logits", num_values=782, typical=1770.0, allowed=16.0, share=0.99, against="dtype")
    values: dict[str, Any] = {"a": "16 roundings at most", "b": "1,770 roundings on the whole, 782 values"}
    fields = {"phase": "verify", "field": "prefill.top_logits", "node": None, "kind": "real"} | values | changes
    root = root_at(step=0, **fields)
    place = root.place.model_copy(update={"step_b": 0})
    return root.model_copy(update={"place": place, "blame": [], "wrong": "neither", "drift": finding})


def verdict_of(kind: str = "different", exit_code: int = 1, **changes: Any) -> Verdict:
    """A verdict with one root; ``changes`` are fields of the verdict."""
    floor = NoiseFloor(
        quantity="logits",
        floor=4e-5,
        source="this-pair",
        sample_size=1258,
        median=9e-7,
        least=1e-6,
        most=1e-3,
        rounding=2e-6,
        typical=1.2,
        allowed=16.0,
    )
    impact = Impact(
        tokens_equal=False,
        num_tokens_a=120,
        num_tokens_b=119,
        num_steps_a=37,
        num_steps_b=53,
        accepted_length_a=2.297,
        accepted_length_b=1.34,
    )
    verdict = Verdict(
        schema=VERDICT_SCHEMA,
        verdict=kind,  # type: ignore[arg-type]
        exit_code=exit_code,
        baseline="eager.jsonl",
        candidate="fused.jsonl",
        rule="greedy",
        axis=["mode: eager -> fused"],
        incomparable=[],
        uncovered=[],
        unjudged=[],
        floors=[floor],
        num_turns=3,
        num_steps=37,
        num_regrouped=0,
        compared=dict.fromkeys(("draft", "tree", "tensors", "verify", "accept", "commit", "stop"), 37),
        num_inherited=4,
        impact=impact,
        drift=[Drift(field="verify.top_logits", count=9, largest=5e-6)],
        roots=[root_at()] if kind == "different" else [],
        violations=[],
        next=["specscope show fused.jsonl --turn 0 --step 4", "specscope view eager.jsonl fused.jsonl"],
    )
    return verdict.model_copy(update=changes)


def hostile_verdict() -> Verdict:
    """A verdict whose every text, list and number of roots wants to break a report."""
    big = EVIL * 100
    root = root_at(EVIL, field=EVIL, a=big, b=big, tie_break=EVIL)
    root = root.model_copy(update={"blame": [Blame(side="b", invariant=EVIL, witness=big)]})
    changes: dict[str, Any] = dict.fromkeys(("axis", "uncovered", "unjudged", "next"), [big] * 30)
    changes |= dict.fromkeys(("baseline", "candidate", "rule"), EVIL)
    return verdict_of(
        roots=[root] * 60,
        drift=[Drift(field=EVIL, count=1, largest=1.0)] * 1000,
        violations=[Blame(side="a", invariant=EVIL, witness=big)] * 50,
        **changes,
    )


#: Every kind of verdict, with the exit code that belongs to it.
KINDS = {
    "equal": verdict_of("equal", 0),
    "ties": verdict_of("ties", 0, roots=[near_tie()]),
    "ties that fail": verdict_of("ties", 1, roots=[near_tie()]),
    "different": verdict_of(),
    "many roots": verdict_of(roots=[root_at(step=step) for step in range(900)]),
    "violated": verdict_of(roots=[], violations=[Blame(side="a", invariant="commit.length", witness="7, wanted 8")]),
    "incomparable": verdict_of("incomparable", 3, incomparable=["seed: 0 -> 5"]),
    "uncovered": verdict_of("uncovered", 4, uncovered=["the candidate is truncated: it has no run_end"]),
}
