"""What ``specscope run --tensor-parallel`` does: launch the ranks, or be one of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specscope.engine.parallel.choice import check_settings
from specscope.engine.ranks.launch import RankError, Ranks, is_rank, launch
from specscope.engine.ranks.leaving import ending
from specscope.engine.ranks.lifeline import Lifeline
from specscope.engine.run.prompts import Prompt
from specscope.engine.settings import Settings
from specscope.tracer.files.mending import end_trace

if TYPE_CHECKING:
    from specscope.engine.lab.faults import Fault
    from specscope.engine.run.runner import RunRequest, TurnEvents, Workings

HUNG_AFTER_S = 7.0  # without a sign of life

#: Decodes a request: with the models changed so, and calls back with what it begins to do.
Decode = Callable[["RunRequest", "Fault | None", "Callable[[Workings], Workings]", Lifeline], None]


def run_ranks(
    settings: Settings,
    request: Callable[[], tuple[RunRequest, Fault | None]],
    decode: Decode,
    *,
    trace: Path | None,
) -> None:
    """Launches the ranks, which run this very command, or serves as the one that the environment names.

    Args:
        request: builds the whole request, with its fault, which loads torch.
        decode: what the first rank does with it; the others decode the same in silence.
        trace: where the first rank writes it.
    """
    check_settings(settings)
    if is_rank():
        if int(os.environ["RANK"]):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first rank ends the run, and so the others
        lifeline = Lifeline(int(os.environ["RANK"]))
        ending(lifeline, lambda: _serve(*request(), decode, lifeline))
        return
    try:
        launch(["-m", "specscope", *sys.argv[1:]], Ranks(settings.choice.num_ranks), hung_after_s=HUNG_AFTER_S)
    except RankError as error:
        # The rank that writes the trace may be the one that was killed, or have been killed before it could end it.
        if trace is not None and error.rank is not None:
            end_trace(trace, str(error))
        raise


def _serve(request: RunRequest, fault: Fault | None, decode: Decode, lifeline: Lifeline) -> None:
    from specscope.engine.lab.faults import injecting
    from specscope.engine.parallel.rank import joined, together

    with joined(lifeline, request.settings) as group:
        faulty, ranked = injecting(fault), together(request.settings, group)
        if lifeline.rank == 0:
            signal.signal(signal.SIGTERM, _another_ended)
        else:
            request = replace(request, trace=None)
        decode(request, fault, lambda workings: ranked(faulty(workings)), lifeline)


def heard_by(lifeline: Lifeline, events: TurnEvents) -> TurnEvents:
    """``events``, of which also hears who watches this rank."""

    def turn_begins(prompt: Prompt, number: int) -> None:
        lifeline.turn_to("prefill")
        events.turn_begins(prompt, number)

    def tokens(prompt: Prompt, output_ids: list[int]) -> None:
        lifeline.turn_to("decoding")
        events.tokens(prompt, output_ids)

    return events._replace(turn_begins=turn_begins, tokens=tokens)


def _another_ended(*_: object) -> None:
    """The launcher ends this rank because another one ended: the trace is to say so."""
    from specscope.engine.ranks.leaving import RankLostError

    raise RankLostError("another rank ended")
