"""Our engine beside its peers, on the same models and prompts, in one run.

    python benchmarks/peers.py
    python benchmarks/peers.py --eagle EAGLE --eagle-packages OLD --teacher TEACHER --drafter HEAD --prompts FILE

Peers are transformers' greedy, assisted and prompt-lookup decoding and, where its checkout is given, official EAGLE
(github.com/SafeAILab/EAGLE). That one requires transformers 4.53, which goes into its own folder:
``pip install --target OLD transformers==4.53.1``. Each engine runs in its own process, one at a time, and every prompt
is decoded by every method before the next one, the order rotating. A method is measured against its own engine's greedy
decoding by the teacher only; its outputs are compared with those of transformers' greedy decoding.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import IO, Any, NamedTuple

from benchmarks.peer_workers import Options
from specscope.engine.lab.bench.suites import DEMO_PROMPTS, load_files, load_suite, sample
from specscope.engine.run.prompts import Prompt

DEMO = DEMO_PROMPTS.parent
#: Options that are numbers, and what they are where they are not given. Threads are per engine, of which one runs at a
#: time.
NUMBERS = {"rounds": 1, "max-new-tokens": 96, "depth": 5, "top-k": 4, "budget": 16, "threads": 1}
WORKER = Path(__file__).with_name("peer_workers.py")


class Answer(NamedTuple):
    """What a method decoded."""

    output_ids: list[int]  # cut at the length
    num_tokens: int  # before that
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over wall time."""
        return self.num_tokens / self.seconds


class Worker:
    """One engine in its process.

    Raises:
        SystemExit: where it cannot be loaded, with its last words.
    """

    def __init__(self, engine: str, options: Options) -> None:
        self.engine = engine
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        command = [sys.executable, str(WORKER), engine, json.dumps(options)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)
        self.methods: list[str] = self._read()["methods"]

    def decode(self, method: str, ids: list[int]) -> Answer:
        """The output of ``method`` after ``ids``, and how long it took inside the process."""
        _of(self._process.stdin).write(json.dumps({"method": method, "ids": ids}) + "\n")
        _of(self._process.stdin).flush()
        return Answer(**self._read())

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _read(self) -> Any:
        line = _of(self._process.stdout).readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        last = ([line for line in self._errors.read().splitlines() if line.strip()] or ["nothing was printed"])[-1]
        hint = "; it requires transformers 4.53: see --eagle-packages" if "ImportError" in last else ""
        raise SystemExit(f"{self.engine} failed: {last}{hint}")


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@dataclass(kw_only=True)
class Method:
    """One way to decode, and what it did, in the order of the prompts; rounds one after another."""

    worker: Worker
    name: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.worker.engine}: {self.name}"

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all time."""
        return sum(a.num_tokens for a in self.answers) / sum(a.seconds for a in self.answers)

    def ratios(self, other: Method) -> list[float]:
        """How many times as fast as ``other`` each prompt was decoded, round by round."""
        return [a.tokens_per_s / b.tokens_per_s for a, b in zip(self.answers, other.answers, strict=True)]

    def first_difference(self, other: Method, names: Sequence[str]) -> str:
        """Where its outputs part from those of ``other``; ``names`` are the prompts'."""
        for name, a, b in zip(names, self.answers, other.answers, strict=False):
            if a.output_ids != b.output_ids:
                pairs = zip(a.output_ids, b.output_ids, strict=False)
                shorter = min(len(a.output_ids), len(b.output_ids))
                return f"{name}, token {next((n for n, (x, y) in enumerate(pairs) if x != y), shorter)}"
        return "same"


def measure(methods: Sequence[Method], prompts: Sequence[list[int]], rounds: int) -> None:
    """Decodes each prompt by every method, after the first one by each, which is not counted."""
    for method in methods:
        method.worker.decode(method.name, prompts[0])
    for number in range(rounds):
        for place, ids in enumerate(prompts):
            first = (place + number) % len(methods)
            for method in [*methods[first:], *methods[:first]]:
                method.answers.append(method.worker.decode(method.name, ids))


def table(methods: Sequence[Method], names: Sequence[str]) -> list[str]:
    """Lines: each method against its own engine's greedy decoding, and against official EAGLE where it ran."""
    reference = next(m for m in methods if m.worker.engine == "transformers" and m.name == "greedy")
    official = next((m for m in methods if m.label == "eagle: eagle3"), None)
    header = "| engine | tokens/s | over its greedy: mean | median | worst prompt |"
    lines = [header + (" over official EAGLE |" if official else "") + " outputs |"]
    lines.append("|---|" + "---:|" * (4 + bool(official)) + "---|")
    for method in methods:
        greedy = next(m for m in methods if m.worker is method.worker and m.name == "greedy")
        cells = [method.label, f"{method.tokens_per_s:.1f}", *_over(method, greedy)]
        if official is not None:
            cells.append(f"{method.tokens_per_s / official.tokens_per_s:.2f}x")
        cells.append(method.first_difference(reference, names))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _over(method: Method, greedy: Method) -> list[str]:
    """Mean, median and worst ratio; none for the greedy decoding itself."""
    if method is greedy:
        return ["-"] * 3
    ratios = method.ratios(greedy)
    return [f"{ratio:.2f}x" for ratio in (mean(ratios), median(ratios), min(ratios))]


def token_ids(prompts: Sequence[Prompt], teacher: str) -> list[list[int]]:
    """The context of each prompt's first turn."""
    from transformers import AutoTokenizer

    from specscope.engine.run.conversation import Conversation

    tokenizer = None if all(prompt.ids for prompt in prompts) else AutoTokenizer.from_pretrained(teacher)
    return [Conversation(tokenizer, prompt).context(0, [], []) for prompt in prompts]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Our engine beside its peers, in one run.")
    parser.add_argument("--teacher", default=str(DEMO / "teacher"), help="Hugging Face folder. Default: the demo's.")
    parser.add_argument("--drafter", default=str(DEMO / "drafter"), help="EAGLE-3 head's folder. Default: the demo's.")
    parser.add_argument("--assistant", help="Model for assisted decoding. Default: the teacher's first layers.")
    parser.add_argument("--eagle", help="Checkout of official EAGLE.")
    parser.add_argument("--eagle-packages", help="Folder with transformers 4.53 for official EAGLE.")
    parser.add_argument("--prompts", type=Path, action="append", help="Prompt file; first turns are decoded.")
    parser.add_argument("--suite", help="Bundled prompts, such as demo240.")
    parser.add_argument("--limit", type=int, help="Only so many prompts, balanced over the categories.")
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args(arguments)


def settings_of(given: argparse.Namespace) -> str:
    """The options that are numbers, for people."""
    return ", ".join(f"{name} {vars(given)[name.replace('-', '_')]}" for name in NUMBERS)


def main() -> None:
    """Measures and prints."""
    given = parse_arguments()
    names = ("teacher", "drafter", "assistant", "eagle", "eagle_packages", "max_new_tokens", "depth", "top_k", "budget")
    options = Options(**{name: getattr(given, name) for name in (*names, "threads")})  # type: ignore[typeddict-item]
    loaded = load_suite(given.suite) if given.suite else load_files(given.prompts or [DEMO_PROMPTS])
    prompts = sample(loaded, given.limit)
    engines = ["transformers", "ours", *(["eagle"] if given.eagle else [])]
    with ExitStack() as stack:
        workers = []
        for engine in engines:
            workers.append(Worker(engine, options))
            stack.callback(workers[-1].close)
        methods = [Method(worker=worker, name=name) for worker in workers for name in worker.methods]
        measure(methods, token_ids(prompts, given.teacher), given.rounds)
    print("\n".join(table(methods, [prompt.id for prompt in prompts])))
    print(f"\n{len(prompts)} prompts; {settings_of(given)}")
    if not given.eagle:
        print("official EAGLE did not run: give its checkout with --eagle")


if __name__ == "__main__":
    main()
