"""What ``TreeGenerate`` says where it cannot be used: in its own words, with its own arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from specscope.engine.hf import TreeGenerate, tree_generate
from specscope.engine.hf.words import in_own_words
from specscope.engine.tree.policy import TreePolicy
from specscope.tracer.errors import UsageError
from specscope.tracer.files.reader import TraceReader

PROMPT = [5, 9, 2, 33, 8]


@pytest.fixture(scope="module")
def model(teacher_folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(teacher_folder, dtype=torch.float32).eval()
    return loaded


def generate(model: Any, options: object) -> None:
    model.generate(torch.tensor([PROMPT]), custom_generate=tree_generate, specscope=options, max_new_tokens=3)


def test_a_drafter_in_place_of_options_is_named_with_what_was_meant(model: Any) -> None:
    for given, message in (
        ("ngram", "got specscope='ngram', wanted options: specscope=TreeGenerate('ngram')"),
        (7, "got specscope=int, wanted options: specscope=TreeGenerate('ngram')"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            generate(model, given)


def test_errors_name_arguments_and_no_options_of_the_command_line(model: Any, tmp_path: Path) -> None:
    wrong = {
        'give drafter="eagle3:PATH", or a drafter that needs no head: drafter="ngram", drafter="model:PATH" with': (
            TreeGenerate("eagle3")
        ),
        "got drafter 'magic', wanted eagle3": TreeGenerate("magic"),
        'give drafter="model:PATH", a folder': TreeGenerate("model"),
        "choose another name, or pass overwrite=True": TreeGenerate(trace=tmp_path / "there.jsonl"),
        'got trace_level="tensors" and redact: tensors': TreeGenerate(
            trace=tmp_path / "t.jsonl", redact="long-enough", trace_level="tensors"
        ),
    }
    (tmp_path / "there.jsonl").write_text("precious")
    for message, options in wrong.items():
        with pytest.raises(UsageError, match=re.escape(message)) as caught:
            model.generate(torch.tensor([PROMPT]), custom_generate=tree_generate, specscope=options, max_new_tokens=3)
        assert "--" not in str(caught.value)
    with pytest.raises(UsageError, match='drafter="eagle3:PATH"'):
        TreeGenerate("eagle3").loaded(model)
    in_both = "pass --allow-nonfinite (allow_nonfinite=True in Python) to record it"
    assert in_own_words(in_both) == "pass allow_nonfinite=True to record it"


def test_depth_top_k_and_budget_are_set_as_the_docstring_says(model: Any, tmp_path: Path) -> None:
    trace = tmp_path / "deep.jsonl"
    options = TreeGenerate("ngram", policy=TreePolicy("dynamic", depth=7, top_k=8, budget=48), trace=trace)
    generate(model, options)
    with TraceReader(trace) as reader:
        policy = reader.manifest.tree_policy
    assert (policy.kind, policy.depth, policy.top_k, policy.budget) == ("dynamic", 7, 8, 48)
    assert 'policy=TreePolicy("dynamic", depth=7, top_k=8, budget=48)' in (TreeGenerate.__doc__ or "")
