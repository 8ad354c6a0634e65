"""Runs of tiny models, recorded: by drafter name, mode and prompts, in texts as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from specscope.engine.lab.faults import find_fault, injecting
from specscope.engine.load.models import load_models
from specscope.engine.run.prompts import Prompt
from specscope.engine.run.runner import RunRequest, TraceTarget, open_trace, run_turns
from specscope.engine.settings import GREEDY, ModelChoice, Settings
from support.tiny_models import POLICY, VOCAB

IDS = [Prompt("short", ids=(5, 9, 2)), Prompt("long", ids=tuple(range(3, 20)))]
TALKS = [Prompt("talk", turns=("5 9 2", "7 7 8", "3")), Prompt("chat", turns=("30 31", "12 4"))]


def words() -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the token ids in decimal."""
    inner = Tokenizer(models.WordLevel({str(token): token for token in range(VOCAB)}, unk_token="1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)


class TinyRuns:
    """Decodes with tiny models into traces of one folder."""

    def __init__(self, teacher: Path, head: Path, folder: Path) -> None:
        self.teacher, self.head, self.folder = teacher, head, folder

    def choice(
        self, drafter: str = "eagle3", mode: str = "fused", dtype: str = "float32", **changes: Any
    ) -> ModelChoice:
        """The models of a run; ``drafter`` without a path is the tiny one of its kind."""
        folders = {"eagle3": self.head, "eagle3+ngram": self.head, "model": self.teacher}
        name = f"{drafter}:{folders[drafter]}" if drafter in folders else drafter
        policy, rule = changes.pop("policy", POLICY), changes.pop("rule", GREEDY)
        wanted: Any = mode
        return ModelChoice(
            teacher=str(self.teacher),
            drafter=name,
            mode=wanted,
            dtype=dtype,
            device="cpu",
            policy=policy,
            rule=rule,
            graph=changes.pop("graph", "auto"),
        )

    def __call__(
        self, name: str = "run", drafter: str = "eagle3", prompts: list[Prompt] = IDS, tokens: int = 10, **changes: Any
    ) -> Path:
        """The trace of a run; what it raises is raised."""
        kinds = ("mode", "dtype", "policy", "rule", "graph")
        choice = self.choice(drafter, **{kind: changes.pop(kind) for kind in kinds if kind in changes})
        path = self.folder / f"{name}.jsonl"
        target = TraceTarget(path, changes.pop("level", "decisions"), overwrite=True)
        fault = find_fault(changes["fault"]) if changes.get("fault") is not None else None
        settings = Settings(choice=choice, max_new_tokens=tokens, seed=7, **changes)
        request = RunRequest(settings, prompts, target)
        loaded = load_models(choice)
        if any(prompt.turns for prompt in prompts):
            loaded.teacher.tokenizer = words()
        for _ in run_turns(request, loaded, open_trace(request, loaded, warn=print), change=injecting(fault)):
            pass
        return path
