"""GRAFTWORK_RUN: what is accepted, and what is said of what is not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from graftwork_store import results
from graftwork_trainer.config import parse_run
from graftwork_trainer.errors import RunError

from tests.unit.trainer.samples import RUN, schema


def changed(path: str, value: object) -> str:
    run: Any = copy.deepcopy(RUN)
    at = run
    *parents, last = path.split(".")
    for name in parents:
        at = at[name]
    if value is None and last != "maxSteps":
        del at[last]
    else:
        at[last] = value
    return json.dumps(run)


def test_the_contracts_example_is_accepted_and_follows_the_schema() -> None:
    schema("run").validate(RUN)
    run = parse_run(json.dumps(RUN))
    assert (run.lora.rank, run.training.batch_size, run.training.max_steps, run.alias) == (16, 4, None, "medical")
    assert run.lora.target_modules == "all-linear"


def test_auto_batch_size_and_a_list_of_modules_are_accepted() -> None:
    assert parse_run(changed("training.batchSize", "auto")).training.batch_size is None
    assert parse_run(changed("lora.targetModules", ["q_proj", "q_proj", "v_proj"])).lora.target_modules == ("q_proj", "v_proj")
    assert parse_run(changed("training.maxSteps", 60)).training.max_steps == 60


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "graftwork.dev/run/v2"),
        ("method", "dora"),
        ("lora.rank", 0),
        ("lora.rank", True),
        ("lora.alpha", "32"),
        ("lora.dropout", 1),
        ("lora.targetModules", []),
        ("lora.targetModules", "some"),
        ("training.epochs", 0),
        ("training.learningRate", -1),
        ("training.learningRate", 10),
        ("training.batchSize", 0),
        ("training.batchSize", "big"),
        ("training.maxSeqLength", 2.5),
        ("training.packing", "yes"),
        ("training.warmupRatio", 2),
        ("training.scheduler", "magic"),
        ("training.seed", -1),
        ("training.maxSteps", 0),
        ("dataset.format", "csv"),
        ("dataset.validation", 0.95),
        ("dataset", []),
        ("publish.alias", "Medical"),
        ("publish.alias", "a--b"),
        ("publish.alias", "a" * 41),
        ("base.path", ""),
        ("base.source", None),
        ("evaluation.gate.minImprovement", "0.1"),
        ("progressPort", 70000),
    ],
)
def test_a_wrong_field_is_named_with_its_value_its_rule_and_what_would_work(path: str, value: object) -> None:
    with pytest.raises(RunError) as caught:
        parse_run(changed(path, value))
    name = "GRAFTWORK_RUN" if path == "" else path
    assert caught.value.message.startswith(f"{name} is {value!r}: ")
    assert ";" in caught.value.message
    assert results.exit_code(results.build("Failed", caught.value.reason)) == 65


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"apiVersion": null}'])
def test_what_is_not_a_run_is_refused(text: str) -> None:
    with pytest.raises(RunError) as caught:
        parse_run(text)
    assert caught.value.reason == "InvalidSpec"
