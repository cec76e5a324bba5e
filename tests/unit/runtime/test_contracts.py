from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from graftwork import contracts

ORIGINALS = Path(__file__).parents[3] / "docs" / "design" / "schemas"


@pytest.mark.parametrize(
    "name",
    [
        contracts.AGENT_STATUS,
        contracts.PROGRESS,
        contracts.RESULT,
        contracts.IMPORT_RESULT,
        contracts.SWEEP_RESULT,
        contracts.INSPECT_RESULT,
        contracts.FILL_RESULT,
        contracts.FILL_PROGRESS,
    ],
)
def test_the_packaged_schema_is_the_documented_one(name: str) -> None:
    packaged = files("graftwork.contracts").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    assert packaged == (ORIGINALS / f"{name}.schema.json").read_text(encoding="utf-8"), f"copy docs/design/schemas/{name}.schema.json"


def test_a_refusal_names_place_and_rule() -> None:
    with pytest.raises(contracts.ContractError, match="progress: phase: 'Dancing' is not one of"):
        contracts.parse(contracts.PROGRESS, _progress(phase="Dancing"))


def test_unknown_fields_are_allowed() -> None:
    assert contracts.parse(contracts.PROGRESS, _progress(extra=1))["extra"] == 1


@pytest.mark.parametrize("data", [b"[]", b"", b"\xff", b"[" * 100_000], ids=["a list", "empty", "not UTF-8", "deep"])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(contracts.ContractError):
        contracts.parse(contracts.PROGRESS, data)


def _progress(**changes: object) -> bytes:
    import json

    numbers = dict.fromkeys(("step", "steps", "epoch", "tokensPerSecond", "etaSeconds", "loss", "evalLoss", "dataset"))
    return json.dumps({"apiVersion": "graftwork.dev/progress/v1", "version": "1", "phase": "Training", **numbers, **changes}).encode()
