"""Whether pipelined decoding gives the teacher's own tokens, on many held-out prompts.

    python -m benchmarks.ppsd_lossless --prompts 4 --tokens 32
    python -m benchmarks.ppsd_lossless --prompts 64 --turns 2 --out lossless.jsonl

Each prompt is decoded in one process, then on K stages with the exit after layer E, for K = 2, 3, 5 and E = 2, 4, 5:
with the trained head (where there is one for E), with an untrained one, with drafts that always hold and with drafts
that never do. Stages are threads of this process: tokens do not depend on how stages are started. Results go to
``--out``, one line per prompt and setting, and a line that is there is not computed again. ``--only`` names the
settings to run, such as ``2-4-trained``. Exits 1 where a token differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from specscope.tracer.files.whole import written_whole

STAGES, EXITS = (2, 3, 5), (2, 4, 5)


class Setting(NamedTuple):
    """A pipeline and its drafts."""

    stages: int
    exit_layer: int
    drafts: str

    @property
    def name(self) -> str:
        """As ``--only`` gives it."""
        return "-".join(map(str, self))


def main() -> None:
    """Decodes, compares, and prints how many were equal."""
    options = _options()
    known = known_lines(options.out)
    texts = _texts(options)
    counts = {"equal": 0, "different": 0}
    for setting in _settings(options.only):
        for line in _compared(setting, texts, options, known):
            counts["equal" if line["equal"] else "different"] += 1
            if not line["equal"]:
                print("different:", json.dumps(line))
    print(json.dumps({**counts, "conversations": len(texts), "turns": options.turns, "tokens": options.tokens}))
    sys.exit(1 if counts["different"] else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--turns", type=int, default=1, help="of each conversation; the next prompt's text follows")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens per turn")
    parser.add_argument("--corpus", type=Path, help="folder of Python files; default: the standard library")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="settings: stages-exit-drafts")
    return parser.parse_args()


def known_lines(out: Path | None) -> dict[str, dict[str, Any]]:
    """The results in ``out``, by key; a last line that was cut off is removed."""
    if out is None or not out.exists():
        return {}
    text = out.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):  # interrupted within its last line, which is computed again
        text = text[: text.rfind("\n") + 1]
        with written_whole(out) as partial:
            partial.write_text(text, encoding="utf-8")
    lines = (json.loads(line) for line in text.splitlines())
    return {line["key"]: line for line in lines}


def _texts(options: argparse.Namespace) -> list[list[str]]:
    """The turns of each conversation."""
    from specscope.engine.lab.training.corpus import load_corpus, stdlib_root
    from specscope.engine.lab.training.measure import held_out_prompts

    count = options.prompts * options.turns
    prompts = [p.turns[0] for p in held_out_prompts(load_corpus(options.corpus or stdlib_root()), count, seed=3)]
    return [prompts[at : at + options.turns] for at in range(0, len(prompts), options.turns)]


def _settings(only: list[str]) -> Iterator[Setting]:
    """All of them, or those that ``only`` names."""
    return (setting for setting in _all_settings() if not only or setting.name in only)


def _all_settings() -> Iterator[Setting]:
    from specscope.engine.drafters.names import demo_exit_heads

    heads = demo_exit_heads()
    for stages in STAGES:
        for exit_layer in EXITS:
            drafts = ("trained",) if exit_layer in heads else ()
            yield from (Setting(stages, exit_layer, name) for name in (*drafts, "untrained", "always", "never"))


def _compared(
    setting: Setting, texts: list[list[str]], options: argparse.Namespace, known: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A line per conversation."""
    pipeline = None
    for number, turns in enumerate(texts):
        key = f"{setting.name}, {number} of {options.prompts}x{options.turns}, {options.tokens}"
        if key not in known:
            pipeline = pipeline or _Pipeline(setting, options.tokens)
            known[key] = {"key": key, **setting._asdict(), **pipeline.compare(turns)}
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known[key]) + "\n")
        yield known[key]


class _Pipeline:
    """The stages of one setting, and the whole teacher beside them."""

    def __init__(self, setting: Setting, num_tokens: int) -> None:
        from specscope.engine.load.models import load_models
        from specscope.engine.ppsd.choice import PipelineChoice
        from specscope.engine.ppsd.rank import load_rank
        from specscope.engine.ppsd.turns import stop_rules
        from specscope.engine.settings import ModelChoice, Settings

        self._setting = setting
        drafter = "early-exit" if setting.drafts == "trained" else "early-exit:untrained"
        settings = Settings(choice=ModelChoice(drafter=drafter, device="cpu"), max_new_tokens=num_tokens)
        choice = PipelineChoice(num_stages=setting.stages, exit_layer=setting.exit_layer)
        self._ranks = [load_rank(settings, choice, rank, recording=False) for rank in range(setting.stages)]
        self._whole = load_models(replace(settings.choice, drafter="none", mode="baseline"))
        self._rules = stop_rules(settings, self._ranks[0].stage.part)

    def compare(self, turns: list[str]) -> dict[str, Any]:
        """Whether all turns of one conversation are equal, and how many drafts held."""
        from specscope.engine.lab.selftest.threads import local_pipeline
        from specscope.engine.loop.session import Session

        tokenizer = self._whole.teacher.tokenizer
        session = Session(self._whole.teacher, self._whole.drafter)
        context, drafted, accepted, equal = list[int](), 0, 0, True
        stages = [rank.stage for rank in self._ranks]
        for stage in stages:
            stage.cut(0)
        text: list[int] = []  # what always and never follow
        with local_pipeline(stages, self._draft(text)) as pipeline:
            for turn in turns:
                context = [*context, *tokenizer(turn).input_ids]  # type: ignore[misc]
                for _ in session.decode(context, self._rules):
                    pass
                text[:] = [*context, *session.result.output_ids]
                result = pipeline.decode(context, self._rules)
                equal &= result.output_ids == session.result.output_ids
                drafted, accepted = drafted + result.num_drafted, accepted + result.num_accepted
                context = list(text)
        return {"equal": equal, "drafted": drafted, "accepted": accepted}

    def _draft(self, text: list[int]) -> Any:
        from specscope.engine.ppsd.outcome import Drafted

        if self._setting.drafts in ("trained", "untrained"):
            return self._ranks[0].exit_draft
        wrong = self._setting.drafts == "never"

        def draft(_: Any, item: Any) -> Drafted:
            following = text[item.position + 1] if item.position + 1 < len(text) else 0
            return Drafted((following + wrong) % self._whole.teacher.vocab_size, None)

        return draft


if __name__ == "__main__":
    main()
