"""The text of a turn, or of the same turn of two runs side by side, as a board. Pure.

Its clicks ask for ``read-a:STEP`` and ``read-b:STEP``, a being the run, or the baseline of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from specscope.schemas.verdict import Side
from specscope.tracer.naming.text import counted, shorten
from specscope.viewer.drawing.board import Board, board_of, card, columns
from specscope.viewer.drawing.fragments import note, quiet
from specscope.viewer.drawing.frames import attribute, kind_attribute
from specscope.viewer.drawing.markup import NOTHING, Markup, html_text, joined, markup
from specscope.viewer.drawing.text.tokens import TextToken, TurnText, first_difference

#: Tokens of one turn that are shown; a browser chokes on many more.
MOST_TOKENS = 6_000
MEANINGS = {
    "first": "the prompt's own forward gave it",
    "accepted": "drafted and accepted",
    "bonus": "bonus: the teacher's own token",
    "unknown": "how it came about was not recorded",
}


class RunText(NamedTuple):
    """The turn of one run, and what it is called."""

    name: str
    text: TurnText


def text_board(a: RunText, b: RunText | None = None) -> Board:
    """The board of one run's turn, or of two side by side with their first difference marked."""
    if b is None:
        return Board(board_of(_missing(a), _card("a", a, None), _legend()))
    is_whole = not (a.text.unreadable or b.text.unreadable)
    differs = first_difference(a.text.whole_tokens, b.text.whole_tokens)
    if differs is not None and any(_is_cut(run.text, differs) for run in (a, b)):
        differs = None  # what follows there is not known
    both = columns([_card("a", a, differs)], [_card("b", b, differs)], kind="halves")
    compared = _difference(a.text, b.text, differs) if is_whole or differs is not None else _as_far(a.text, b.text)
    return Board(board_of(_missing(a), _missing(b), compared, both, _legend()))


def _is_cut(text: TurnText, at: int) -> bool:
    """Whether the token at ``at`` is missing because a step cannot be read."""
    return bool(text.unreadable) and at >= len(text.whole_tokens)


def _num_comparable(a: TurnText, b: TurnText) -> int:
    return min(len(a.whole_tokens), len(b.whole_tokens))


def _as_far(a: TurnText, b: TurnText) -> Markup:
    count = counted(_num_comparable(a, b), "token")
    return note(
        "info", "Both texts are equal as far as they can be compared", [f"{count}, up to the step that is missing"]
    )


def _missing(run: RunText) -> Markup:
    """Of which steps the tokens are missing, where there are such."""
    steps = run.text.unreadable
    if not steps:
        return NOTHING
    named = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps, step {steps[0]} first,"
    return note("bad", f"{run.name}: {named} cannot be read", ["What was emitted there is missing below."])


def _difference(a: TurnText, b: TurnText, at: int | None) -> Markup:
    if at is None:
        return note("good", "Both texts are equal", [counted(len(a.tokens), "token")])
    before = f"{counted(at, 'token')} before it are equal."
    if at >= min(len(a.whole_tokens), len(b.whole_tokens)):
        which = "baseline" if len(a.whole_tokens) < len(b.whole_tokens) else "candidate"
        return note("parted", f"The {which} ends first", [before])
    one_token, other = a.tokens[at], b.tokens[at]
    title = f"The texts part at token {at}: {a.shown(one_token.token)} ≠ {b.shown(other.token)}"
    steps = (_step_text(token.step) for token in (one_token, other))
    words = "{} of the baseline, {} of the candidate. ".format(*steps)
    return note("parted", shorten(title, 200), [words + before])


def _step_text(step: int | None) -> str:
    return "the prompt's forward" if step is None else f"step {step}"


def _card(side: Side, run: RunText, differs: int | None) -> Markup:
    tokens = run.text.tokens
    if not tokens:
        return card(f"text-{side}", run.name, "no tokens of this turn are recorded", NOTHING)
    counts = {kind: sum(token.kind == kind for token in tokens) for kind in MEANINGS}
    num_steps = len({token.step for token in tokens} - {None})
    words = (
        f"{counted(len(tokens), 'token')} in {counted(num_steps, 'step')}: {counts['accepted']} drafted and accepted"
    )
    words += f", {counts['bonus']} bonus"
    left_out = len(tokens) - MOST_TOKENS
    rest = quiet(f"and {left_out:,} more tokens") if left_out > 0 else NOTHING
    return card(f"text-{side}", run.name, words, joined([_text(side, run.text, differs), rest]))


def _text(side: Side, text: TurnText, differs: int | None) -> Markup:
    parts = []
    at = 0
    for step, group in groupby(text.tokens[:MOST_TOKENS], key=lambda token: token.step):
        tokens = list(group)
        parts.append(_step(side, step, text, _Stretch(tokens, at, differs)))
        at += len(tokens)
    return markup('<div class="ss-text" dir="auto">{parts}</div>', parts=joined(parts))


class _Stretch(NamedTuple):
    """The tokens of one step."""

    tokens: Sequence[TextToken]
    start: int  # place of the first in the output
    differs: int | None  # place where two outputs part


def _step(side: Side, step: int | None, text: TurnText, stretch: _Stretch) -> Markup:
    drawn = joined(
        _token(text, token, differs=stretch.start + at == stretch.differs) for at, token in enumerate(stretch.tokens)
    )
    if step is None:
        return drawn
    return markup(
        '<span{kind}{request} role="link" tabindex="0"{label}><sup>{step}</sup>{tokens}</span>',
        kind=kind_attribute("ss-t-step none" if step in text.nothing_accepted else "ss-t-step"),
        request=attribute("data-do", f"read-{side}:{step}"),
        label=attribute("aria-label", f"step {step}, {counted(len(stretch.tokens), 'token')}"),
        step=step,
        tokens=drawn,
    )


def _token(text: TurnText, token: TextToken, *, differs: bool) -> Markup:
    shown = text.shown(token.token)
    return markup(
        "<span{kind}{title}>{text}</span>{after}",
        kind=kind_attribute(f"ss-t-{token.kind}" + (" ss-t-differs" if differs else "")),
        title=attribute("title", _meaning(token, shown)),
        text=_readable(shown),
        after=_after(token, shown),
    )


def _after(token: TextToken, shown: str) -> Markup:
    """What stands between a token and the next: nothing, unless it is an id, or ends a line."""
    if shown == f"#{token.token}":
        return markup(" ")
    return markup("<br/>") if shown.endswith("⏎") else NOTHING


def _meaning(token: TextToken, shown: str) -> str:
    words = [f"{shown} (id {token.token})", MEANINGS[token.kind]]
    words += [f"depth {token.depth}"] if token.depth is not None else []
    words += [f"draft probability {token.probability:.3g}"] if token.probability is not None else []
    words += [f"step {token.step}"] if token.step is not None else []
    return ", ".join(words)


def _readable(shown: str) -> Markup:
    """Visible text as text to be read: spaces as spaces, a line break after the sign of one."""
    inner = shown.strip("·") if shown.strip("·") else ""
    start = len(shown) - len(shown.lstrip("·")) if inner else len(shown)
    end = len(shown) - len(shown.rstrip("·")) if inner else 0
    lines = [html_text(line) for line in inner.split("⏎")]
    sign, end_of_line = markup(r'<i aria-hidden="true">\n</i>'), markup("<br/>")
    if lines[-1]:
        end_of_line = joined([sign, end_of_line])
        return joined([_spaces(start), joined(lines, end_of_line), _spaces(end)])
    before = joined(lines[:-1], joined([sign, end_of_line]))
    return joined([_spaces(start), before, sign if len(lines) > 1 else NOTHING, _spaces(end)])


def _spaces(count: int) -> Markup:
    """As many, the last of which may break the line."""
    return joined([markup("\N{NO-BREAK SPACE}")] * (count - 1) + [markup(" ")]) if count else NOTHING


def _legend() -> Markup:
    return markup(
        '<div class="ss-legend"><span class="ss-t-accepted">drafted and accepted</span>'
        '<span class="ss-t-bonus">bonus</span><span class="ss-t-first">first token, of the prompt</span>'
        '<span class="ss-t-step none"><span class="ss-t-bonus">nothing accepted</span></span>'
        "<span>small number: step; a click opens it</span></div>"
    )
