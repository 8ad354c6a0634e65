"""The official EAGLE code recorded by our adapter, beside our own engine: the same models, prompts and trees.

    python -m benchmarks.conformance --eagle EAGLE --eagle-packages OLD

``EAGLE`` is a checkout of github.com/SafeAILab/EAGLE. It requires transformers 4.53, which goes into its own folder:
``pip install --target OLD --no-deps transformers==4.53.1 "huggingface_hub<1" "tokenizers<0.22"``. The official code
decodes in its own process, setting by setting, and then this engine does; both traces are checked and compared. Prints
a table; ``--keep FOLDER`` keeps the traces.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "engine" / "demo_models"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How both engines decode."""

    depth: int
    top_k: int
    budget: int
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.budget}-nodes-depth-{self.depth}-top-{self.top_k}-{self.dtype}"


SETTINGS = (
    Setting(depth=5, top_k=4, budget=16),
    Setting(depth=3, top_k=2, budget=6),
    Setting(depth=5, top_k=8, budget=59),
    Setting(depth=8, top_k=10, budget=59),
    Setting(depth=5, top_k=4, budget=16, dtype="bfloat16"),
    Setting(depth=5, top_k=4, budget=16, dtype="float16"),
)


def record_official(setting: Setting, prompts: dict[str, list[int]], tokens: int, trace: Path) -> None:
    """Decodes by the official code, which must be on the path, and records it."""
    import torch

    from benchmarks.peer_workers import official_model
    from specscope.adapters import record_eagle

    torch.set_num_threads(1)
    teacher, head = DEMO / "teacher", DEMO / "drafter"
    sizes = {"depth": setting.depth, "top_k": setting.top_k, "budget": setting.budget}
    model = official_model(teacher, head, **sizes, dtype=setting.dtype)
    with record_eagle(
        model, trace, teacher=teacher, head=head, prompt_ids=list(prompts), max_new_tokens=tokens, overwrite=True
    ):
        for ids in prompts.values():
            model.eagenerate(torch.tensor([ids]), temperature=0.0, max_new_tokens=tokens, max_length=2048)


def record_ours(setting: Setting, prompts: dict[str, list[int]], tokens: int, trace: Path) -> None:
    """The same by this project's engine, in eager mode."""
    from specscope.engine import decode
    from specscope.engine.run.prompts import Prompt
    from specscope.engine.tree.policy import TreePolicy

    given = [Prompt(name, ids=tuple(ids)) for name, ids in prompts.items()]
    policy = TreePolicy(kind="dynamic", depth=setting.depth, top_k=setting.top_k, budget=setting.budget)
    decode(given, mode="eager", dtype=setting.dtype, policy=policy, max_new_tokens=tokens, trace=trace, overwrite=True)


def judged_cells(theirs: Path, ours: Path) -> str:
    """Cells of Markdown: the accepted lengths of both traces, the check of the first, and their diff."""
    from specscope.tracer import check_trace, diff_traces

    report, verdict = check_trace(theirs), diff_traces(theirs, ours)
    impact = verdict.impact
    lengths = f"{impact.accepted_length_a:.3f}, {impact.accepted_length_b:.3f}"
    return f"{lengths} | {report.num_violations} violations in {report.num_steps} steps | {verdict.verdict}"


def table(settings: list[Setting], folder: Path) -> list[str]:
    """Lines of Markdown: what each pair of traces came to."""
    lines = [
        "| depth | top-k | nodes | dtype | accepted length, official and ours | check of the official | diff |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for setting in settings:
        official, ours = (folder / f"{setting.name}-{side}.jsonl" for side in ("official", "ours"))
        shape = f"{setting.depth} | {setting.top_k} | {setting.budget} | {setting.dtype}"
        lines.append(f"| {shape} | {judged_cells(official, ours)} |")
    return lines


def main() -> None:
    """Records, judges and prints."""
    given = _arguments()
    settings = [setting for setting in SETTINGS if given.only is None or setting.name in given.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prompts = demo_prompts(given.limit)
        for setting in settings:
            record_both(setting, prompts, folder, given)
        print("\n".join(table(settings, folder)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eagle", required=True, help="Checkout of the official code.")
    parser.add_argument("--eagle-packages", required=True, help="Folder with transformers 4.53.")
    parser.add_argument("--limit", type=int, default=4, help="Turns of demo240 that are decoded. Default: 4.")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="Default: 48.")
    parser.add_argument("--only", action="append", choices=[s.name for s in SETTINGS], help="Only these settings.")
    parser.add_argument("--keep", type=Path, help="Folder for the traces.")
    return parser.parse_args()


def record_both(setting: Setting, prompts: dict[str, list[int]], folder: Path, given: argparse.Namespace) -> None:
    """The traces of both engines in ``folder``, the official code's from a process of its own."""
    trace = folder / f"{setting.name}-official.jsonl"
    asked = {"setting": vars(setting), "prompts": prompts, "tokens": given.max_new_tokens, "trace": str(trace)}
    asked["path"] = [given.eagle_packages, given.eagle]
    subprocess.run([sys.executable, "-c", WORKER, json.dumps(asked)], cwd=ROOT, check=True)
    record_ours(setting, prompts, given.max_new_tokens, folder / f"{setting.name}-ours.jsonl")


#: What the process of the official code runs: its packages come before all others.
WORKER = """
import json, sys
asked = json.loads(sys.argv[1])
sys.path[:0] = asked["path"]
from pathlib import Path
from benchmarks.conformance import Setting, record_official
record_official(Setting(**asked["setting"]), asked["prompts"], asked["tokens"], Path(asked["trace"]))
"""


def demo_prompts(limit: int) -> dict[str, list[int]]:
    """Token ids of first turns of demo240, by name."""
    from benchmarks.peers import token_ids
    from specscope.engine.lab.bench.suites import load_suite, sample

    chosen = sample(load_suite("demo240"), limit)
    return dict(zip([p.id for p in chosen], token_ids(chosen, str(DEMO / "teacher")), strict=True))


if __name__ == "__main__":
    main()
