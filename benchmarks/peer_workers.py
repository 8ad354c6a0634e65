"""One engine in its own process, for ``benchmarks/peers.py``: official EAGLE requires another transformers than we do.

    python benchmarks/peer_workers.py ENGINE '{"teacher": ..., ...}'

Loads the engine, prints one line of JSON with the names of its methods, and then answers each line of JSON on standard
input, ``{"method": ..., "ids": [...]}``, with one: ``{"output_ids": [...], "num_tokens": ..., "seconds": ...}``. The
first method is teacher-only greedy decoding. What libraries print goes to standard error.

Official EAGLE ends some tokens after the length that it is given. All that an engine emitted up to the end of text
counts for its speed; its output is cut at the length.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict

Decode = Callable[[list[int]], list[int]]


class Options(TypedDict):
    """What the engines are given, paths as text."""

    teacher: str
    drafter: str  # the folder of an EAGLE-3 head
    assistant: str | None  # of transformers' assisted decoding; None: the teacher's own first layers
    eagle: str | None  # official EAGLE's checkout
    eagle_packages: str | None  # searched for packages before all others
    max_new_tokens: int
    depth: int
    top_k: int
    budget: int
    threads: int


def ours(options: Options) -> dict[str, Decode]:
    """This project's engine: fused, with the EAGLE-3 head, the same with trees no larger than pays, and with the
    n-gram lookup."""
    eagle3 = f"eagle3:{options['drafter']}"
    return {
        "greedy": _drafting(options, "none"),
        "eagle3": _drafting(options, eagle3),
        "eagle3, budget auto": _drafting(options, eagle3, sizing="measure"),
        "ngram": _drafting(options, "ngram"),
    }


def _drafting(options: Options, drafter: str, sizing: Literal["measure"] | None = None) -> Decode:
    """Our decoding with ``drafter``; with ``sizing`` the budget is the most that a tree may have."""
    from specscope.engine.load.models import load_models
    from specscope.engine.run.prompts import Prompt
    from specscope.engine.run.runner import RunRequest, run_turns
    from specscope.engine.settings import Settings
    from specscope.engine.tree.policy import TreePolicy

    settings = Settings.of(
        teacher=options["teacher"],
        drafter=drafter,
        mode="baseline" if drafter == "none" else "fused",
        device="cpu",
        policy=TreePolicy(
            kind="dynamic", depth=options["depth"], top_k=options["top_k"], budget=options["budget"], sizing=sizing
        ),
        max_new_tokens=options["max_new_tokens"],
    )
    models = load_models(settings.choice)

    def decode(ids: list[int]) -> list[int]:
        (report,) = run_turns(RunRequest(settings, [Prompt("prompt", ids=tuple(ids))]), models, None)
        return report.result.output_ids

    return decode


def transformers(options: Options) -> dict[str, Decode]:
    """transformers' ``generate``: greedy, assisted, and prompt lookup."""
    import torch
    from transformers import AutoModelForCausalLM

    load = AutoModelForCausalLM.from_pretrained
    model = load(options["teacher"], dtype=torch.float32).eval()
    if options["assistant"] is not None:
        assisted: dict[str, Any] = {"assistant_model": load(options["assistant"], dtype=torch.float32).eval()}
    else:
        assisted = {"assistant_early_exit": max(1, model.config.num_hidden_layers * 4 // 5)}

    common = {"max_new_tokens": options["max_new_tokens"], "do_sample": False, "pad_token_id": 0}
    return {
        "greedy": _generating(model, common),
        "assisted": _generating(model, {**common, **assisted}),
        "lookup": _generating(model, {**common, "prompt_lookup_num_tokens": options["depth"]}),
    }


def _generating(model: Any, settings: dict[str, Any]) -> Decode:
    """What ``model.generate`` emits by ``settings``."""
    import torch

    def decode(ids: list[int]) -> list[int]:
        given = torch.tensor([ids])
        output = model.generate(given, attention_mask=torch.ones_like(given), **settings)
        return [int(token) for token in output[0, len(ids) :]]

    return decode


def eagle(options: Options) -> dict[str, Decode]:
    """Official EAGLE, from the checkout, unchanged."""
    sys.path[:0] = [path for path in (options["eagle_packages"], options["eagle"]) if path is not None]
    import torch

    model = official_model(
        Path(options["teacher"]),
        Path(options["drafter"]),
        depth=options["depth"],
        top_k=options["top_k"],
        budget=options["budget"],
    )
    limit, eos = options["max_new_tokens"], model.tokenizer.eos_token_id

    def method(generate: Callable[..., Any]) -> Decode:
        def decode(ids: list[int]) -> list[int]:
            output = generate(torch.tensor([ids]), temperature=0.0, max_new_tokens=limit, max_length=2048)
            emitted = [int(token) for token in output[0, len(ids) :]]
            return emitted[: emitted.index(eos) + 1] if eos in emitted else emitted

        return decode

    return {"greedy": method(model.naivegenerate), "eagle3": method(model.eagenerate)}


def official_model(teacher: Path, head: Path, *, depth: int, top_k: int, budget: int, dtype: str = "float32") -> Any:
    """An ``EaModel`` of the official code, which must be on the path, and transformers 4 before it.

    It drafts one level more than its ``depth`` says, and counts the root in ``total_token``.
    """
    import torch
    from eagle.model.ea_model import EaModel  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        return EaModel.from_pretrained(
            use_eagle3=True,
            base_model_path=as_transformers_4(teacher, Path(folder, teacher.name)),
            ea_model_path=as_official_head(head, Path(folder, "heads", head.name)),
            total_token=budget + 1,
            depth=depth - 1,
            top_k=top_k,
            torch_dtype=getattr(torch, dtype),
        ).eval()


def as_transformers_4(teacher: Path, folder: Path) -> str:
    """The teacher's files in ``folder``, with the names that configurations had before transformers 5, and the index of
    weights by which the official code finds the embedding that its head shares."""
    written = ("config.json", "tokenizer_config.json")
    _link_all(teacher, folder, but=written)
    config = json.loads((teacher / "config.json").read_text())
    rotation = config.pop("rope_parameters", {})
    config.setdefault("rope_theta", rotation.get("rope_theta", 10000.0))
    config.setdefault("torch_dtype", config.pop("dtype", "float32"))
    (folder / "config.json").write_text(json.dumps(config))
    if (teacher / "tokenizer_config.json").is_file():
        tokenizer = json.loads((teacher / "tokenizer_config.json").read_text())
        if tokenizer.get("tokenizer_class") == "TokenizersBackend":
            tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        index.write_text(json.dumps({"weight_map": {"model.embed_tokens.weight": "model.safetensors"}}))
    return str(folder)


def as_official_head(head: Path, folder: Path) -> str:
    """The head's files in ``folder``. Where its configuration states ``target_hidden_size``, the official code takes
    the head to have an embedding, and leaves one that it does not have at its random start."""
    _link_all(head, folder, but=("config.json",))
    config = json.loads((head / "config.json").read_text())
    config.pop("target_hidden_size", None)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _link_all(source: Path, folder: Path, but: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name not in but:
            (folder / path.name).symlink_to(path.resolve())


ENGINES: dict[str, Callable[[Options], dict[str, Decode]]] = {
    "ours": ours,
    "transformers": transformers,
    "eagle": eagle,
}


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    options: Options = json.loads(sys.argv[2])
    import torch

    torch.set_num_threads(options["threads"])
    methods = ENGINES[sys.argv[1]](options)
    print(json.dumps({"methods": list(methods)}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        begun = time.perf_counter()
        with torch.inference_mode():
            emitted = methods[asked["method"]](asked["ids"])
        seconds = time.perf_counter() - begun
        output_ids = emitted[: options["max_new_tokens"]]
        answer = {"output_ids": output_ids, "num_tokens": len(emitted), "seconds": seconds}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
