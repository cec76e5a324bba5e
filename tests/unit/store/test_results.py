from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from graftwork_store import results
from hypothesis import given
from hypothesis import strategies as st

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/design/schemas/result.schema.json").read_text())
DATASET = {"examples": 512, "validation": 51, "tokens": 210000, "digest": "sha256:" + "a" * 64, "format": "messages", "warnings": []}


def full(message: str, warnings: list[str]) -> dict[str, Any]:
    return results.build(
        "Succeeded",
        "Published",
        message,
        adapter={"source": "store://ml/medical/3f2a9c41d0e7", "digest": "sha256:" + "b" * 64, "rank": 16, "sizeBytes": 123456},
        base={"fingerprint": "sha256:" + "c" * 64},
        dataset={**DATASET, "warnings": warnings},
        evaluation={"baseLoss": 7.1, "adapterLoss": 0.4, "improvement": 0.94, "verdict": "Passed"},
        training={"steps": 120, "seconds": 31.2, "loss": 0.2},
        memory={"measuredPeakBytes": 1900000000},
        publishedAt="2026-11-21T13:00:00.123456Z",
    )


@given(message=st.text(max_size=6000), warnings=st.lists(st.text(max_size=2000), max_size=8))
def test_a_result_always_fits_is_valid_and_keeps_its_numbers(message: str, warnings: list[str]) -> None:
    result = full(message, warnings)
    data = results.encode(result)
    assert len(data) <= 4096
    read = json.loads(data)
    jsonschema.validate(read, SCHEMA)
    for field in ("adapter", "base", "evaluation", "training", "memory", "publishedAt", "reason"):
        assert read[field] == result[field]
    assert {key: value for key, value in read["dataset"].items() if key != "warnings"} == {
        key: value for key, value in DATASET.items() if key != "warnings"
    }


def test_a_short_result_is_written_as_it_is() -> None:
    result = full("done", ["one", "two"])
    assert json.loads(results.encode(result)) == result


def test_warnings_go_before_the_message_does() -> None:
    read = json.loads(results.encode(full("m" * 1500, ["w" * 1000] * 4)))
    assert read["message"] == "m" * 1500
    assert len(read["dataset"]["warnings"]) < 4


def test_shortening_changes_nothing_of_what_was_given() -> None:
    result = full("m" * 9000, ["w" * 9000])
    results.encode(result)
    assert len(result["message"]) == 9000
    assert len(result["dataset"]["warnings"][0]) == 9000


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        ("Succeeded", "Published", 0),
        ("Rejected", "BelowGate", 0),
        ("Failed", "DatasetInvalid", 64),
        ("Failed", "ModelInvalid", 65),
        ("Failed", "SourceNotFound", 65),
        ("Failed", "SourceDenied", 65),
        ("Failed", "SourceUnreachable", 70),
        ("Failed", "DiskFull", 70),
        ("Failed", "StoreUnreachable", 70),
        ("Failed", "TrainingFailed", 70),
    ],
)
def test_exit_codes_follow_the_contract(outcome: str, reason: str, code: int) -> None:
    assert results.exit_code(results.build(outcome, reason)) == code


def test_the_message_goes_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    results.write(results.build("Failed", "DiskFull", "no room"))
    assert json.loads((tmp_path / "log").read_bytes()) == {
        "apiVersion": "graftwork.dev/result/v1",
        "outcome": "Failed",
        "reason": "DiskFull",
        "message": "no room",
    }


def test_a_place_that_cannot_be_written_is_no_error_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(results.build("Failed", "DiskFull"), tmp_path / "no" / "such" / "folder")
    assert "cannot write" in capsys.readouterr().err
