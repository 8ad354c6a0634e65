"""The place that is looked at, as a link names it. Pure; knows no files and no Streamlit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import xxhash

from specscope.tracer.naming.text import shorten, visible

PageName = Literal["runs", "step", "text", "find", "timeline", "diff", "metrics", "health"]
PAGES: tuple[PageName, ...] = get_args(PageName)
#: How the turns of the Find page follow each other.
TurnOrder = Literal["recorded", "wrong", "least"]
ORDERS: tuple[TurnOrder, ...] = get_args(TurnOrder)
#: ``5`` is slot 5 of the run; of a pair, ``a5`` is slot 5 of the baseline, and ``b5`` of the candidate.
_NODE = re.compile(r"[ab]?\d{1,6}", re.ASCII)


#: A stretch of a turn's time, in microseconds.
_WINDOW = re.compile(r"\d{1,10}-\d{1,10}", re.ASCII)
#: A hidden run; and how many of them a link names, which browsers cut at some thousand characters.
_HIDDEN = re.compile(r"[0-9a-f]{8}", re.ASCII)
MOST_HIDDEN = 200
#: Characters that steps are found by.
LONGEST_FIND = 200
#: A field of the manifest, dotted.
_FIELD = re.compile(r"[a-z_]{1,40}(\.[a-z_]{1,40}){0,3}", re.ASCII)


@dataclass(kw_only=True)
class View:
    """Page, runs, turn, step and node. Numbers may be too large: they are clamped where they are used.

    Runs go by their names in the catalogue. ``run`` is what the pages about one run show; a pair is chosen where
    ``baseline`` and ``candidate`` are both set. In a link, turn and step count in ``run``, and on the Diff page in the
    baseline.
    """

    page: PageName = "runs"
    run: str | None = None
    baseline: str | None = None
    candidate: str | None = None
    turn: int = 0  # its number in the trace
    step: int = 0
    node: str | None = None
    window: str | None = None  # the stretch of the turn's time that the timeline shows; None: where the token is
    placed_in: str | None = None  # the run in which turn and step count; None: no place was chosen yet
    allow: tuple[str, ...] = ()  # fields of the manifest that may differ in the pair
    find: str = ""  # what steps are found by
    order: TurnOrder = "recorded"  # of the turns there
    hidden: tuple[str, ...] = ()  # runs that the page of runs does not list, by ``hidden_key``
    missing: str | None = None  # the name in the link that is not a run here

    @property
    def has_pair(self) -> bool:
        """Whether two runs are chosen."""
        return self.baseline is not None and self.candidate is not None

    @classmethod
    def from_query(cls, query: Mapping[str, str], names: Sequence[str], num_files: int) -> View:
        """The view that a link names; whatever is invalid, or names no run, is left at its default.

        Args:
            query: the link's parameters.
            names: the runs of the catalogue, files of the command line first.
            num_files: how many of them are files of the command line: of two or more the first look is at the
                comparison of the first two, of one at its steps, without any at the list of runs.
        """
        view = cls()
        if num_files:
            view.page, view.run = "step", names[0]
        if num_files > 1:
            view.page, view.baseline, view.candidate = "diff", names[0], names[1]
        for field in ("run", "baseline", "candidate"):
            if query.get(field) in names:
                setattr(view, field, query[field])
            elif field in query:
                view.missing = query[field]
        view.allow = tuple(field for field in query.get("allow", "").split(",") if _FIELD.fullmatch(field))
        view.find = query.get("find", "")[:LONGEST_FIND]
        view.order = next((order for order in ORDERS if order == query.get("order")), view.order)
        hidden = query.get("hidden", "").split(",")
        view.hidden = tuple(sorted({key for key in hidden if _HIDDEN.fullmatch(key)})[:MOST_HIDDEN])
        view.page = next((page for page in PAGES if page == query.get("page")), view.page)
        view.turn, view.step = _number(query.get("turn", "")), _number(query.get("step", ""))
        if _NODE.fullmatch(query.get("node", "")):
            view.node = query["node"]
        if _WINDOW.fullmatch(query.get("window", "")):
            view.window = query["window"]
        if view.missing is not None:  # another run in its place would be mistaken for it
            view.page = "runs"
        view.settle()
        if "turn" in query:
            view.placed_in = view.baseline if view.page == "diff" else view.run
        return view

    @property
    def title(self) -> str:
        """What the browser calls this view, in its tabs and its history: what tells views apart comes first."""
        place = f"{self.turn}/{self.step} "
        one_run = _short(self.run)
        words = {
            "runs": "Runs",
            "step": place + one_run,
            "diff": f"≠ {place}{_short(self.baseline)} | {_short(self.candidate)}",
            "text": f"Text {self.turn} {one_run}",
            "find": f"Find {one_run}",
            "timeline": f"Timeline {self.turn} {one_run}",
            "metrics": f"Metrics {one_run}",
            "health": f"Health {one_run}",
        }
        return f"{words[self.page]} · SpecScope"

    def look_anew(self) -> None:
        """Forgets the place: another run, or another pair, has its own."""
        self.turn, self.step, self.node, self.placed_in = 0, 0, None, None
        self.window = None
        self.allow = ()

    def look_at(self, run: str | None, turn: int, step: int) -> None:
        """Looks at a step of ``run``. The node that was selected belongs to another step."""
        self.turn, self.step, self.node, self.placed_in = turn, step, None, run
        self.window = None

    def settle(self) -> None:
        """Leaves a page that lacks the runs that it is about."""
        if self.page == "diff" and not self.has_pair:
            self.page = "step"
        if self.run is None:
            self.run = self.candidate or self.baseline
        if self.run is None:
            self.page = "runs"

    def to_query(self) -> dict[str, str]:
        """The link's parameters."""
        place = self.page in ("step", "text", "timeline", "diff") and self.placed_in is not None
        parameters = {
            "page": self.page,
            "run": None if self.page in ("diff", "runs") else self.run,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "allow": ",".join(self.allow) or None,
            "find": (self.find or None) if self.page == "find" else None,
            "order": self.order if self.page == "find" and self.order != "recorded" else None,
            "hidden": (",".join(self.hidden[:MOST_HIDDEN]) or None) if self.page == "runs" else None,
            "turn": str(self.turn) if place else None,
            "step": str(self.step) if place else None,
            "node": self.node if place else None,
            "window": self.window if place and self.page == "timeline" else None,
        }
        return {name: value for name, value in parameters.items() if value is not None}


def hidden_key(name: str) -> str:
    """By what a link names a hidden run: the name itself may be long, and there may be many."""
    return xxhash.xxh32_hexdigest(name.encode("utf-8", "surrogateescape"))


def _short(name: str | None) -> str:
    return shorten(visible(name or ""), 40)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0


def clamp(number: int, size: int) -> int:
    """``number``, or the nearest of 0..size - 1."""
    return max(0, min(number, size - 1))
