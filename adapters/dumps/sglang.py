"""SGLang's record of DSpark steps: ``dspark_info_record`` of its ``/server_info``, with component ``reqs``.

A row counts the root in ``verify_len``, and neither root nor bonus token in ``correct_drafts``. The server keeps the
last 200,000 steps: requests that run in the first of them may lack their beginning, and are marked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specscope.adapters.dumps.requests import Dump, Request, StepLengths, count, read_text
from specscope.tracer.errors import UsageError

WANTED = "start the server with SGLANG_DSPARK_DEBUG_DUMP=core,reqs and store what /server_info returns"


def read_sglang(path: Path) -> Dump:
    """The requests in ``path``.

    Raises:
        UsageError: where it is not such a record, or a row does not say which request it is of.
    """
    records = list(_records(_parsed(path)))
    if not records:
        raise UsageError(f"{path} has no dspark_info_record with records; {WANTED}")
    requests: dict[str, Request] = {}
    for number, record in enumerate(records):
        place = f"record {number}"
        for row in _rows(record, place):
            request = _request_of(requests, row, place)
            request.lacks_beginning |= record["may_be_cut"]
            request.steps.append(_step(row, place))
    widths = [width for record in records for width in _widths(record)]
    manifest: dict[str, Any] = {"engine": "sglang", "drafter": {"kind": "dspark"}}
    if widths:
        manifest["tree_policy"] = {"budget": max(widths)}
    left_out = [] if requests else [f"no record has reqs; {WANTED}"]
    return Dump(manifest, list(requests.values()), left_out)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError:
        raise UsageError(f"{path} is not JSON; {WANTED}") from None


def _records(value: Any) -> Iterator[dict[str, Any]]:
    """The steps of all ranks, in the order in which each rank ran them; each with its rank's width beside it,
    and whether steps before it may have been dropped."""
    if isinstance(value, list):
        for entry in value:
            yield from _records(entry)
    elif isinstance(value, dict):
        inner = value.get("dspark_info_record", value.get("internal_states"))
        if inner is not None:
            yield from _records(inner)
        elif isinstance(value.get("records"), list):
            steps = [record for record in value["records"] if isinstance(record, dict)]
            steps.sort(key=lambda record: count(record.get("forward_ct"), "forward_ct"))
            for number, record in enumerate(steps):
                may_be_cut = number == 0 and record["forward_ct"] > 0
                yield {"gamma": value.get("gamma"), **record, "may_be_cut": may_be_cut}


def _widths(record: dict[str, Any]) -> list[int]:
    gamma = record.get("gamma")
    return [] if gamma is None else [count(gamma, "gamma")]


def _rows(record: dict[str, Any], place: str) -> list[Any]:
    rows = record.get("reqs")
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise UsageError(f"{place}: got reqs {str(rows)[:40]!r}, wanted a list")
    return rows


def _request_of(requests: dict[str, Request], row: Any, place: str) -> Request:
    name = row.get("rid") if isinstance(row, dict) else None
    if not isinstance(name, str):
        raise UsageError(f"{place}: a row has no rid, so that its request is not known")
    return requests.setdefault(name, Request(name=name, place=len(requests), steps=[]))


def _step(row: dict[str, Any], place: str) -> StepLengths:
    width = count(row.get("verify_len"), f"{place}: verify_len")
    return StepLengths(count(row.get("correct_drafts"), f"{place}: correct_drafts"), max(0, width - 1))
