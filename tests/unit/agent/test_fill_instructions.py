"""What the operator may ask a fill for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from graftwork_agent import filling
from graftwork_agent.fill_instructions import Instructions

from tests.unit.agent.filler import FILL_SCHEMA, RESULT_SCHEMA, key_of

WANTED: dict[str, Any] = {
    "apiVersion": "graftwork.dev/fill/v1",
    "deployment": {"namespace": "ml", "name": "support"},
    "source": f"hf://acme/tiny@{'a' * 40}",
    "revision": "a" * 40,
    "key": key_of("hf://acme/tiny", "a" * 40),
    "files": {"count": 7, "bytes": 6100000, "digest": "sha256:" + "0" * 64},
    "keep": ["aa00bb11cc22"],
    "to": "/cache",
    "progressPort": 9902,
}


def test_what_follows_the_schema_is_understood() -> None:
    jsonschema.validate(WANTED, FILL_SCHEMA)
    found = Instructions.parse(json.dumps(WANTED | {"later": 1}))
    assert (found.claim, found.place, found.keep, found.to) == ("support-cache", "hf://acme/tiny", ("aa00bb11cc22",), Path("/cache"))
    assert Instructions.parse(json.dumps(WANTED | {"source": "s3://b/p@1"})).place == "s3://b/p@1"


def test_the_key_is_that_of_the_contract() -> None:
    assert key_of("hf://acme/tiny", "a" * 40) == "c6910d64671a"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "graftwork.dev/fill/v2"}, "fill/v2"),
        ({"key": "../../etc"}, "key"),
        ({"keep": ["aa00bb11cc22", "*"]}, "keep"),
        ({"keep": "aa00bb11cc22"}, "keep must be a list"),
        ({"files": {"count": 1, "bytes": -1, "digest": "sha256:" + "0" * 64}}, "files.bytes"),
        ({"to": "cache"}, "absolute"),
        ({"revision": "main"}, "revision"),
        ({"deployment": None}, "TypeError"),
    ],
)
def test_instructions_that_break_their_contract_touch_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    claim = tmp_path / "claim"
    claim.mkdir()
    assert filling.run({"GRAFTWORK_FILL": json.dumps(WANTED | {"to": str(claim)} | change)}) == 65
    result = json.loads((tmp_path / "log").read_bytes())
    jsonschema.validate(result, RESULT_SCHEMA)
    assert result["reason"] == "InvalidSpec"
    assert words in result["message"]
    assert list(claim.iterdir()) == []
