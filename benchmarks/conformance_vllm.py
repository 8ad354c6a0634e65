"""vLLM recorded by our adapter, beside our own engine: the same models, prompts and chains of drafts.

    python -m benchmarks.conformance_vllm --vllm-python VLLM/bin/python

``VLLM`` is an environment that has vllm and this project, best its CPU build (docs/adapters.md says how to make one).
vLLM drafts by its own EAGLE-3 head, by a draft model and by lookup, and verifies what this engine has drafted. Every
setting runs in a process of its own; its outputs and its own count of accepted drafts must be those that were recorded.
Prints a table; ``--keep FOLDER`` keeps the traces.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conformance import DEMO, ROOT, demo_prompts, judged_cells

DEPTH = 5
TEACHER, HEAD = DEMO / "teacher", DEMO / "drafter"
#: For a vLLM that runs in one process, uses little memory, listens on loopback alone and reports nothing.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How both engines decode."""

    name: str
    drafter: str  # as ``specscope run --drafter`` has it
    method: str  # vLLM's; replay: it verifies what this engine has drafted
    rows: int = 1
    dtype: str = "float32"
    model: str | None = None  # vLLM's, of what drafts; teacher-8: the teacher's first eight layers
    stop_strings: tuple[str, ...] = ()


SETTINGS = (
    Setting(name="eagle3", drafter=f"eagle3:{HEAD}", method="eagle3", model=str(HEAD)),
    Setting(name="eagle3, 4 rows", drafter=f"eagle3:{HEAD}", method="eagle3", model=str(HEAD), rows=4),
    Setting(name="eagle3, bfloat16", drafter=f"eagle3:{HEAD}", method="eagle3", model=str(HEAD), dtype="bfloat16"),
    Setting(
        name="eagle3, stop strings",
        drafter=f"eagle3:{HEAD}",
        method="eagle3",
        model=str(HEAD),
        stop_strings=("ment", "value", "text.g", "read"),
    ),
    Setting(name="draft model", drafter="model:teacher-8", method="draft_model", model="teacher-8"),
    Setting(name="eagle3, our drafts", drafter=f"eagle3:{HEAD}", method="replay"),
    Setting(name="lookup, our drafts", drafter="ngram", method="replay"),
    Setting(name="vLLM's lookup", drafter="ngram:1-5", method="ngram"),  # it follows the first match, ours weighs all
)


def record_ours(setting: Setting, prompts: dict[str, list[int]], tokens: int, folder: Path) -> Path:
    """Decodes by this project's engine, fused, and records it."""
    from specscope.engine import decode
    from specscope.engine.run.prompts import Prompt
    from specscope.engine.tree.policy import chain_policy

    trace = folder / f"{setting.name}-ours.jsonl"
    decode(
        [Prompt(name, ids=tuple(ids)) for name, ids in prompts.items()],
        drafter=setting.drafter.replace("teacher-8", str(folder / "teacher-8")),
        dtype=setting.dtype,
        policy=chain_policy(DEPTH),
        max_new_tokens=tokens,
        stop_strings=setting.stop_strings,
        trace=trace,
        overwrite=True,
    )
    return trace


def arguments_of(setting: Setting, ours: Path) -> dict[str, Any]:
    """What ``vllm.LLM`` is called with."""
    from specscope.adapters import recorded_drafts

    drafts: dict[str, Any] = {"method": setting.method, "num_speculative_tokens": DEPTH}
    if setting.method == "ngram":
        drafts |= {"prompt_lookup_min": 1, "prompt_lookup_max": 5}
    if setting.model is not None:
        drafts["model"] = setting.model.replace("teacher-8", str(ours.parent / "teacher-8"))
    speculation = recorded_drafts(ours) if setting.method == "replay" else {"speculative_config": drafts}
    return {
        "model": str(TEACHER),
        "dtype": setting.dtype,
        "max_model_len": 2048,
        "max_num_seqs": setting.rows,
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "per_request_spec_decode_metrics": "detailed",
        **speculation,
    }


def record_vllm_run(
    arguments: dict[str, Any], prompts: dict[str, list[int]], sampling: dict[str, Any], trace: Path
) -> None:
    """Decodes by vLLM, in this process, and records it; ``sampling`` are fields of its ``SamplingParams``.

    Raises:
        SystemExit: where the trace has another output, or other accepted lengths, than vLLM says.
    """
    from vllm import LLM, SamplingParams

    from specscope.adapters import record_vllm

    llm = LLM(**arguments)
    with record_vllm(llm, trace, prompt_ids=list(prompts), overwrite=True):
        asked = [{"prompt_token_ids": ids} for ids in prompts.values()]
        done = llm.generate(asked, SamplingParams(**sampling), use_tqdm=False)
    check_against(trace, dict(zip(prompts, done, strict=True)))


def check_against(trace: Path, answers: dict[str, Any]) -> None:
    """Holds the trace against what vLLM answered, by prompt.

    Raises:
        SystemExit: where they differ.
    """
    from specscope.tracer import TraceReader

    with TraceReader(trace) as reader:
        for entry in reader.turns:
            end, answer = reader.turn_end(entry), answers[entry.prompt_id].outputs[0]
            if end is None or end.output_ids != list(answer.token_ids):
                raise SystemExit(f"{entry.prompt_id}: the trace has another output than vLLM gave")
            lengths = [step.accepted_length for step in reader.steps(entry) if step.num_drafted]
            metrics = answer.spec_decode_metrics
            if metrics is None and isinstance(answer.stop_reason, str):
                continue  # vLLM gives no counts of a request that a stop string ended
            if metrics is None:
                raise SystemExit(f"{entry.prompt_id}: vLLM's answer has no spec_decode_metrics to compare")
            if lengths != list(metrics.per_step_accepted):
                raise SystemExit(f"{entry.prompt_id}: the trace has other accepted lengths than vLLM counted")


def cut_teacher(folder: Path, layers: int) -> None:
    """Writes the teacher's first ``layers`` layers as a model of their own."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(TEACHER, folder, dirs_exist_ok=True)
    config = json.loads((TEACHER / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
    weights = load_file(TEACHER / "model.safetensors")
    kept = {name: value for name, value in weights.items() if _layer_of(name) < layers}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _layer_of(name: str) -> int:
    """Of a parameter; 0 of one outside the layers."""
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else 0


def table(settings: list[Setting], folder: Path) -> list[str]:
    """Lines of Markdown: what each pair of traces came to."""
    lines = [
        "| drafts | accepted length, vLLM and ours | check of vLLM's trace | diff |",
        "| --- | --- | --- | --- |",
    ]
    for setting in settings:
        theirs, ours = (folder / f"{setting.name}-{side}.jsonl" for side in ("vllm", "ours"))
        lines.append(f"| {setting.name} | {judged_cells(theirs, ours)} |")
    return lines


def record_both(setting: Setting, prompts: dict[str, list[int]], folder: Path, given: argparse.Namespace) -> None:
    """The traces of both engines in ``folder``, vLLM's from a process of its own environment."""
    ours = record_ours(setting, prompts, given.max_new_tokens, folder)
    sampling = {"temperature": 0.0, "max_tokens": given.max_new_tokens, "stop": setting.stop_strings}
    asked: dict[str, Any] = {"arguments": arguments_of(setting, ours), "prompts": prompts, "sampling": sampling}
    asked["trace"] = str(folder / f"{setting.name}-vllm.jsonl")
    command = [given.vllm_python, "-c", WORKER, json.dumps(asked)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | ENVIRONMENT)


#: What vLLM's process runs.
WORKER = """
import json, sys
from pathlib import Path
from benchmarks.conformance_vllm import record_vllm_run
asked = json.loads(sys.argv[1])
record_vllm_run(asked["arguments"], asked["prompts"], asked["sampling"], Path(asked["trace"]))
"""


def main() -> None:
    """Records, judges and prints."""
    given = _arguments()
    settings = [setting for setting in SETTINGS if given.only is None or setting.name in given.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        cut_teacher(folder / "teacher-8", layers=8)
        prompts = demo_prompts(given.limit)
        for setting in settings:
            record_both(setting, prompts, folder, given)
        print("\n".join(table(settings, folder)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="Interpreter of the environment that has vLLM.")
    parser.add_argument("--limit", type=int, default=4, help="Turns of demo240 that are decoded. Default: 4.")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="Default: 48.")
    parser.add_argument("--only", action="append", choices=[s.name for s in SETTINGS], help="Only these settings.")
    parser.add_argument("--keep", type=Path, help="Folder for the traces.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
