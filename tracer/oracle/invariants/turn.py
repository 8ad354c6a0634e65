"""Invariants of whole turns: outputs and counts recomputed from the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from specscope.schemas import BonusDraw, Prefill, Sampling, Step, StopRules, TurnEnd, TurnStart
from specscope.tracer.oracle.invariants.base import Invariant, committed_path, first_mismatch, present
from specscope.tracer.oracle.invariants.draws import draw_problem
from specscope.tracer.oracle.invariants.flow import Flow
from specscope.tracer.oracle.invariants.probabilities import TOLERANCE, prob_of_logit

BROKEN = "\ufffd"  # stands for a part of a character, which its token's text alone cannot show


@dataclass(kw_only=True)
class TurnTally:
    """What the steps of a turn add up to; fed one by one, so that memory does not grow with them."""

    start: TurnStart
    sampling: Sampling  # the run's
    is_guided: bool = False  # a grammar forbids tokens
    forced: bool = False  # a replay's: its pending token is the recorded one
    stop_rules: StopRules | None = None  # the run's
    max_positions: int | None = None  # the teacher's
    policy_depth: int | None = None  # of the run's trees
    in_part: frozenset[str] = frozenset()  # sections of which the writer lists single fields: absent says nothing there
    output_ids: list[int] = field(default_factory=list)
    num_steps: int = 0
    num_drafted: int | None = 0  # None: a step did not record it
    num_accepted: int = 0
    num_fallbacks: int | None = 0  # None: a step did not record its commit whole
    accepted_by_depth: list[int] = field(default_factory=list)
    complete: bool = True  # every step had what the sums need
    end: TurnEnd | None = None
    last_reason: str | None = None  # of the last step's stop
    flow: Flow | None = None  # of a pipelined run
    texts: dict[int, str] = field(default_factory=dict)  # of the tokens that it put out, as far as they were recorded
    has_limits: bool = False  # a step capped its draft where it could be judged
    limit_problem: str | None = None  # the first cap that the length does not explain

    def __post_init__(self) -> None:
        self.output_ids += self.start.first_output

    def _learn(self, step: Step) -> None:
        """Takes note of the texts of tokens that may be put out: those of the step's root and what it emits."""
        if not step.texts:
            return
        roots = step.tree.tokens[:1] if step.tree is not None else []
        emitted = step.stop.emitted if step.stop is not None else []
        self.texts |= {token: step.texts[str(token)] for token in (*roots, *emitted) if str(token) in step.texts}

    def add(self, step: Step) -> None:
        """Counts one step."""
        self.num_steps += 1
        if self.flow is not None and step.pipeline is not None:
            self.flow.add_token(step.pipeline)
        self._count_fallback(step)
        self._learn(step)
        self._judge_limit(step)
        path = committed_path(step)
        if self.start.without_ids and step.lengths is not None:
            self._count(step.lengths.drafted, step.lengths.accepted)
            return
        if step.stop is None or path is None or step.tree is None:
            self.complete = False
            return
        self.output_ids += step.stop.emitted[: step.stop.kept]
        self.last_reason = step.stop.reason
        self._count(len(step.tree.tokens) - 1, len(path))

    def _count_fallback(self, step: Step) -> None:
        if step.commit is None or "commit" in self.in_part:
            self.num_fallbacks = None
        elif self.num_fallbacks is not None:
            self.num_fallbacks += step.commit.fallback is not None

    def _count(self, drafted: int | None, length: int) -> None:
        """Adds a step that drafted so many nodes and accepted ``length`` of them."""
        self.num_drafted = None if drafted is None or self.num_drafted is None else self.num_drafted + drafted
        self.num_accepted += length
        self.accepted_by_depth += [0] * (length - len(self.accepted_by_depth))
        for depth in range(length):
            self.accepted_by_depth[depth] += 1

    @property
    def prefill(self) -> Prefill:
        """How the turn began."""
        return self.start.prefill

    @property
    def put_out(self) -> list[int] | None:
        """The tokens that the engine put out, where these are recorded."""
        return None if self.end is None or self.end.output_from is not None else self.end.output_ids

    @property
    def counted(self) -> int | None:
        """The engine's own count of its steps, where its counts are recorded."""
        return None if self.end is None or self.end.counts_from is not None else self.end.num_steps

    @property
    def most_tokens(self) -> int | None:
        """How many tokens the turn may put out; None where its rules were not recorded."""
        if self.stop_rules is None:
            return None
        most = self.stop_rules.max_new_tokens
        return most if self.max_positions is None else min(most, self.max_positions - len(self.start.prompt_ids))

    def _judge_limit(self, step: Step) -> None:
        """Looks whether the step may draft no deeper than it says; not where what was put out before is not known."""
        limit, most = None if step.tree is None else step.tree.depth_limit, self.most_tokens
        if limit is None or most is None or not self.complete:
            return
        self.has_limits = True
        left = most - len(self.output_ids)
        wanted = left - 1 if self.policy_depth is None else min(left - 1, self.policy_depth)
        if limit < wanted and self.limit_problem is None:
            at = f"step {step.step} drafts no deeper than {limit}"
            self.limit_problem = f"{at}, although {left} tokens may be emitted: wanted {wanted} at least"


def _ends_by_text(t: TurnTally) -> bool:
    """Whether the run's own stop strings can be looked for: where every token's text is known, and whole."""
    if not _has_rules(t) or not present(t.stop_rules).stop_strings or t.end is None:
        return False
    known = [t.texts.get(token) for token in t.end.output_ids]
    return all(text is not None and BROKEN not in text for text in known)


def _stops_at_its_string(t: TurnTally) -> str | None:
    end, strings = present(t.end), present(t.stop_rules).stop_strings
    pieces = [t.texts[token] for token in end.output_ids]
    before = "".join(pieces[:-1])
    for text in strings:
        if text in before:
            return f"the text goes on behind its stop string {text!r}"
    ends = any(text in before + pieces[-1] for text in strings)
    if end.reason == "stop_string" and not ends:
        return "the turn ended by a stop string, and its text holds none"
    if ends and end.reason == "length":
        return "the turn ended by its length, although its text ends with a stop string"
    return None


def _has_ids(t: TurnTally) -> bool:
    """Whether the turn's tokens were recorded, and not only how many there were."""
    return not t.start.without_ids


def _output(t: TurnTally) -> str | None:
    return first_mismatch(present(t.end).output_ids, t.output_ids, "output token")


def _has_rules(t: TurnTally) -> bool:
    """Whether the run's own rules ended the turn; a replay's ends where the recording did."""
    return t.stop_rules is not None and not t.forced and _has_ids(t)


def _stops_where_it_must(t: TurnTally) -> str | None:
    end, rules = present(t.end), present(t.stop_rules)
    most, length = present(t.most_tokens), len(end.output_ids)
    if length > most:
        return f"{length} tokens, wanted {most} at most"
    if end.reason == "length" and length < most:
        return f"the turn ended by its length at {length} tokens, wanted {most}"
    ends = next((at for at, token in enumerate(end.output_ids) if token in rules.eos_token_ids), None)
    if ends is not None and (ends + 1 < length or end.reason != "eos"):
        return f"token {ends} of {length} ends the text, but the turn ended by {end.reason}"
    return "the turn ended by eos, which no token is" if end.reason == "eos" and ends is None else None


def _metrics(t: TurnTally) -> str | None:
    end = present(t.end)
    for name in ("num_steps", "num_drafted", "num_accepted", "accepted_by_depth"):
        got, wanted = getattr(end, name), getattr(t, name)
        if wanted is not None and got != wanted:
            return f"{name}: got {got}, the steps give {wanted}"
    if t.num_fallbacks is not None and (end.num_fallbacks or 0) != t.num_fallbacks:
        return f"num_fallbacks: got {end.num_fallbacks or 0}, the steps give {t.num_fallbacks}"
    is_recorded = t.last_reason is not None or "stop" not in t.in_part
    by_a_step = end.reason in ("eos", "length", "stop_string", "criterion") and _has_ids(t)
    if t.num_steps and is_recorded and by_a_step and end.reason != t.last_reason:
        return f"the turn ended by {end.reason}, its last step by {t.last_reason}"
    return None


def _prefill(t: TurnTally) -> str | None:
    start, prefill = t.start, t.start.prefill
    if prefill.top_logits is not None and not _finite(prefill.top_logits, t):
        return f"the logits {prefill.top_logits} are not finite"
    best = prefill.top_tokens
    pending = prefill.pending_token
    chosen = t.sampling.rule == "greedy" and not t.forced and pending is not None
    if chosen and best is not None and pending not in _first_of(best, prefill.top_logits):
        return f"the pending token {pending} is not the best, {best}"
    problem = _draw_problem(prefill.draw, t.sampling) if prefill.draw is not None else None
    if problem is not None:
        return f"the pending token's draw: {problem}"
    if prefill.num_tokens != start.num_committed - start.reused_length:
        return f"{prefill.num_tokens} tokens were fed, {start.reused_length} of {start.num_committed} were reused"
    return None


def _first_of(best: list[int], logits: list[float] | None) -> list[int]:
    """The tokens that no other has a larger logit than; the first two where it is not known whether they are equal."""
    if logits is None:
        return best[:2]
    return [token for token, logit in zip(best, logits, strict=False) if logit >= logits[0]]


def _draw_problem(draw: BonusDraw, sampling: Sampling) -> str | None:
    """What is wrong with the first token's draw: by itself, or beside the logit that it was made of."""
    problem = draw_problem(draw)
    if problem is not None or draw.logit is None or draw.cut is None:
        return problem
    wanted, share = prob_of_logit(sampling, draw.logit, draw.cut), draw.high - draw.low
    if wanted.low - TOLERANCE <= share <= wanted.high + TOLERANCE:
        return None
    return f"its share is {share:.9g}, its logit {draw.logit:.9g} gives {wanted}"


def _finite(logits: list[float], t: TurnTally) -> bool:
    """Whether the best logit is a number, and the others too or banned: what processor and grammar make of a token."""
    banned = -math.inf if t.sampling.processors or t.is_guided else math.nan
    return math.isfinite(logits[0]) and all(math.isfinite(other) or other == banned for other in logits[1:])


#: Their needs are those of a pass: what was recorded is judged without them too.
TURN: tuple[Invariant[TurnTally], ...] = (
    Invariant(
        id="turn.output-is-sum",
        statement="the output is the pending token and what each step kept",
        check=_output,
        applies=_has_ids,
        needs=("put_out",),
    ),
    Invariant(
        id="turn.prefill",
        statement="the prompt was taken in, and the pending token is the teacher's",
        check=_prefill,
        applies=_has_ids,
        needs=("prefill.top_tokens", "prefill.top_logits"),
    ),
    Invariant(
        id="turn.end",
        statement="the turn ends at its stop token or its length, neither earlier nor later",
        check=_stops_where_it_must,
        applies=_has_rules,
    ),
    Invariant(
        id="turn.stop-strings",
        statement="the turn ends with the token that completes a stop string, and nowhere after it",
        check=_stops_at_its_string,
        applies=_ends_by_text,
    ),
    Invariant(
        id="turn.depth-limits",
        statement="drafts are cut short only where no more tokens may be emitted",
        check=lambda t: t.limit_problem,
        applies=lambda t: t.has_limits,
    ),
    Invariant(
        id="turn.metrics",
        statement="the turn's counts are those of its steps",
        check=_metrics,
        needs=("counted",),
    ),
)
