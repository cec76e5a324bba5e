from __future__ import annotations

import pytest
from graftwork.facts.problem import Problem
from graftwork.plan.sources import BASE_KINDS, DATASET_KINDS, MODEL_KINDS, Source, parse, pinned
from graftwork.reasons import Reason


@pytest.mark.parametrize(
    ("text", "kind", "name", "path"),
    [
        ("s3://models/tiny", "s3", "models", "tiny"),
        ("s3://models/a/b/", "s3", "models", "a/b"),
        ("pvc://weights/qwen/3-8b", "pvc", "weights", "qwen/3-8b"),
        ("configMap://words/train.jsonl", "configMap", "words", "train.jsonl"),
    ],
)
def test_a_source_is_kind_name_and_path(text: str, kind: str, name: str, path: str) -> None:
    assert parse("spec.dataset.source", text, DATASET_KINDS) == Source(kind, name, path, text)


@pytest.mark.parametrize(
    "text",
    ["", "tiny", "hf://org/model", "s3://models", "s3://models/", "s3:///x", "pvc://c/../x", "s3://m/a//b", "s3://m/a b", "configMap://words/a/b"],
)
def test_what_is_no_source_is_refused_with_its_field_and_value(text: str) -> None:
    found = parse("spec.dataset.source", text, DATASET_KINDS)
    assert isinstance(found, Problem)
    assert found.reason is Reason.SOURCE_INVALID
    assert f"spec.dataset.source is {text!r}" in found.message


def test_a_model_of_a_hub_is_owner_and_repository() -> None:
    found = parse("spec.model.source", "hf://Qwen/Qwen3-0.6B", MODEL_KINDS)
    assert found == Source("hf", "Qwen", "Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B")
    assert pinned(found, "a" * 40).text == f"hf://Qwen/Qwen3-0.6B@{'a' * 40}"
    assert (found.downloaded, found.resolved) == (True, True)
    assert isinstance(parse("spec.baseModel.source", "hf://Qwen/Qwen3-0.6B", BASE_KINDS), Problem)


@pytest.mark.parametrize("text", ["hf://Qwen", "hf://Qwen/", "hf://Qwen/a/b", "hf://Qwen/a@main", "hf://../a", "hf://Qwen/$(TOKEN)", "hf://Qwen/a b"])
def test_what_names_no_repository_is_refused_with_the_shape(text: str) -> None:
    found = parse("spec.model.source", text, MODEL_KINDS)
    assert isinstance(found, Problem)
    assert "hf://<owner>/<repository>" in found.message


def test_a_model_is_not_in_a_config_map() -> None:
    assert isinstance(parse("spec.model.source", "configMap://a/b", MODEL_KINDS), Problem)
