"""A table of many small pairs of traces, to see what ``diff-many`` costs.

    python -m benchmarks.pairs FOLDER --pairs 10000
    specscope diff-many FOLDER/pairs.csv --out FOLDER/results.jsonl --jobs 1

Each trace is one turn of the sample traces, eager beside fused, under a prompt and a run of its own: 10 to 14 steps of
16 drafted nodes, whose floats differ as those of two kernels do. In every 50th candidate the last position of a step is
off by one, so that there is something to find.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import xxhash

ROOT = Path(__file__).parents[1]
SAMPLES = {side: ROOT / "sample_traces" / f"{side}.jsonl" for side in ("eager", "fused")}
WRONG = 50  # every so many pairs, the candidate is wrong
_PLACE = re.compile(rb'^\{"seq":\d+,"kind":"(\w+)","turn":\d+,')


class Sample:
    """A trace whose turns are written again."""

    def __init__(self, path: Path) -> None:
        first, *body = path.read_bytes().splitlines(keepends=True)
        self.manifest: dict[str, Any] = json.loads(first)
        self.turns: list[list[bytes]] = []
        for line in body[:-1]:
            if b'"kind":"turn_start"' in line:
                self.turns.append([])
            self.turns[-1].append(line)

    def write(self, number: int, path: Path, *, wrong: bool) -> None:
        """A trace of one turn, the one whose turn it is, as that of prompt ``number``."""
        manifest = {**self.manifest, "run_id": xxhash.xxh3_128_hexdigest(str(path).encode())}
        turn = self.turns[number % len(self.turns)]
        start = {**json.loads(turn[0]), "turn": 0, "prompt_id": f"prompt-{number}"}
        lines = [_line(manifest), _line({**start, "seq": 1})]
        for seq, line in enumerate(turn[1:], start=2):
            lines.append(_placed(_misplaced(line) if wrong and seq == len(turn) // 2 else line, seq))
        counts = Counter(json.loads(line)["kind"] for line in lines)
        digest = xxhash.xxh3_128_hexdigest(b"".join(lines))
        end = {"seq": len(lines), "kind": "run_end", "reason": "complete", "counts": counts, "digest": digest}
        path.write_bytes(b"".join([*lines, _line(end)]))


def _placed(line: bytes, seq: int) -> bytes:
    """A step or the end of a turn, at another place."""
    place = _PLACE.match(line)
    assert place is not None
    return b'{"seq":%d,"kind":"%s","turn":0,' % (seq, place[1]) + line[place.end() :]


def _misplaced(line: bytes) -> bytes:
    """A step whose last slot is fed one position too far."""
    step = json.loads(line)
    step["tensors"]["positions"][-1] += 1
    return _line(step)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def write_pairs(folder: Path, num_pairs: int) -> Path:
    """Writes the traces and their table, and gives the path of the table."""
    samples = {side: Sample(path) for side, path in SAMPLES.items()}
    for side in samples:
        (folder / side).mkdir(parents=True, exist_ok=True)
    table = folder / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["baseline", "candidate", "name"])
        for number in range(num_pairs):
            names = {side: f"{side}/{number}.jsonl" for side in samples}
            for side, sample in samples.items():
                wrong = side == "fused" and number % WRONG == WRONG - 1
                sample.write(number, folder / names[side], wrong=wrong)
            rows.writerow([names["eager"], names["fused"], f"pair-{number}"])
    return table


def main() -> None:
    """Writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Where the traces and pairs.csv go.")
    parser.add_argument("--pairs", type=int, default=10_000, help="Default: 10000.")
    given = parser.parse_args()
    print(write_pairs(given.folder, given.pairs))


if __name__ == "__main__":
    main()
