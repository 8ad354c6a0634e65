"""The published formats: their committed JSON Schemas are current, and frozen files of each satisfy them.

The frozen files are never changed. ``NAME-MAJOR.MINOR`` was written by the release whose format was that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from support.called import specscope
from support.traces import EAGER, FAULTY

from specscope.schemas.bisection import BISECTION_SCHEMA, Bisection
from specscope.schemas.pair_result import RESULT_SCHEMA, PairResult
from specscope.schemas.profile import PROFILE_SCHEMA, Profile
from specscope.schemas.published import PUBLISHED
from specscope.schemas.verdict import VERDICT_SCHEMA, Verdict

SCHEMAS = Path(__file__).parents[2] / "schemas"
FROZEN = Path(__file__).with_name("frozen")
MODELS: dict[str, tuple[type[BaseModel], str]] = {
    "verdict": (Verdict, VERDICT_SCHEMA),
    "results": (PairResult, RESULT_SCHEMA),
    "bisection": (Bisection, BISECTION_SCHEMA),
    "profile": (Profile, PROFILE_SCHEMA),
}
FROZEN_FILES = {
    "verdict": ["verdict-2.1.json"],
    "results": ["pair-result-1.0.jsonl"],
    "bisection": ["bisection-1.1.json"],
    "profile": ["profile-1.0.json"],
}
FILES = [(name, FROZEN / file) for name, files in FROZEN_FILES.items() for file in files]


def documents(path: Path) -> list[Any]:
    """The JSON values of a file: one, or one per line."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_committed_schema_is_the_models_own(name: str) -> None:
    file = PUBLISHED[name].file
    assert json.loads((SCHEMAS / file).read_text()) == PUBLISHED[name].json_schema(), (
        f"run: specscope schema --of {name} > schemas/{file}"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_prints_it(name: str) -> None:
    printed = specscope("schema", "--of", name)
    assert printed.code == 0
    assert printed.out == (SCHEMAS / PUBLISHED[name].file).read_text()


def test_every_schema_that_is_committed_is_published() -> None:
    assert {path.name for path in SCHEMAS.glob("*.schema.json")} == {format_.file for format_ in PUBLISHED.values()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_is_described(name: str) -> None:
    schema = PUBLISHED[name].json_schema()
    models = [schema, *schema["$defs"].values()]
    bare = [
        f"{model['title']}.{field}"
        for model in models
        for field, stated in model.get("properties", {}).items()
        if "description" not in stated and "$ref" not in stated  # what is referred to has its own
    ]
    assert bare == []


def test_the_trace_is_the_default() -> None:
    assert specscope("schema").out == specscope("schema", "--of", "trace").out


@pytest.mark.parametrize(("name", "path"), FILES, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_frozen_files_are_read_and_satisfy_the_schema(name: str, path: Path) -> None:
    model, _ = MODELS[name]
    validator = jsonschema.Draft202012Validator(PUBLISHED[name].json_schema())
    for document in documents(path):
        validator.validate(document)
        read = model.model_validate_json(json.dumps(document))
        assert json.loads(read.model_dump_json(by_alias=True, exclude_none=True)) == document


@pytest.mark.parametrize("name", FROZEN_FILES)
def test_the_current_version_is_frozen(name: str) -> None:
    frozen = {document["schema"] for file in FROZEN_FILES[name] for document in documents(FROZEN / file)}
    assert MODELS[name][1] in frozen


def test_every_frozen_file_is_tested() -> None:
    assert sorted(path.name for path in FROZEN.iterdir()) == sorted(path.name for _, path in FILES)


def test_what_diff_prints_satisfies_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(PUBLISHED["verdict"].json_schema())
    validator.validate(json.loads(specscope("diff", EAGER, FAULTY, "--format", "json").out))


def test_a_file_of_another_form_does_not() -> None:
    for name, path in FILES:
        document = documents(path)[0]
        needed = "device" if name == "profile" else "exit_code"
        del document[needed]
        with pytest.raises(jsonschema.ValidationError, match=needed):
            jsonschema.Draft202012Validator(PUBLISHED[name].json_schema()).validate(document)
