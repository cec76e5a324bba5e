"""`sweep`: the command with its instructions and its last word; what it does to a store is in tests/unit/store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from graftwork_agent.__main__ import main
from graftwork_store.store import Store

from tests.unit.agent.pod import SCHEMAS
from tests.unit.store.seeds import fields, make_adapter

RESULT = json.loads((SCHEMAS / "sweep-result.schema.json").read_text())
INSTRUCTIONS = json.loads((SCHEMAS / "sweep.schema.json").read_text())
KEEP = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GRAFTWORK_STORE_URL", f"file://{tmp_path / 'store'}")
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(tmp_path / "log"))
    return Store.from_env()


def run(tmp_path: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
    document = {"apiVersion": "graftwork.dev/sweep/v1", "namespace": "ml", "installation": "mine", "keep": [], "retainSeconds": 0, **changes}
    (tmp_path / "sweep.json").write_text(json.dumps(document))
    code = main(["sweep", "--instructions", str(tmp_path / "sweep.json")])
    result = json.loads((tmp_path / "log").read_bytes())
    jsonschema.validate(result, RESULT)
    if code == 0:
        jsonschema.validate(document, INSTRUCTIONS)
    return code, result


def test_the_result_has_the_numbers(tmp_path: Path, store: Store) -> None:
    kept = store.publish(make_adapter(tmp_path / "a", seed=1), "ml", "medical", fields())
    store.publish(make_adapter(tmp_path / "b", seed=2), "ml", "medical", fields())
    code, first = run(tmp_path, keep=[kept.digest])
    assert (code, first) == (0, _swept(kept=1, waiting=1))
    code, second = run(tmp_path, keep=[kept.digest])
    assert (code, second) == (0, _swept(kept=1, removed=1) | {"removedBytes": second["removedBytes"]})
    assert second["removedBytes"] > 1000
    assert store.fetch(kept.source, tmp_path / "out").digest == kept.digest


def _swept(**counts: int) -> dict[str, Any]:
    numbers = {"kept": 0, "waiting": 0, "removed": 0, "removedBytes": 0}
    return {"apiVersion": "graftwork.dev/sweep-result/v1", "outcome": "Succeeded", "reason": "Swept", "message": "", **numbers, **counts}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apiVersion": "graftwork.dev/sweep/v2"}, "sweep/v2"),
        ({"namespace": 7}, "must be strings"),
        ({"installation": 7}, "must be strings"),
        ({"installation": "a/b"}, "installation 'a/b'"),
        ({"namespace": "../other"}, "namespace '../other'"),
        ({"keep": "all"}, "keep a list"),
        ({"keep": [KEEP, "sha256:12"]}, "keep has 'sha256:12'"),
        ({"keep": [KEEP, None]}, "keep has None"),
        ({"retainSeconds": -1}, "retainSeconds is -1"),
        ({"retainSeconds": True}, "retainSeconds is True"),
        ({"retainSeconds": None}, "retainSeconds is None"),
    ],
)
def test_instructions_with_one_wrong_entry_remove_nothing(tmp_path: Path, store: Store, changes: dict[str, Any], message: str) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    run(tmp_path)
    code, result = run(tmp_path, **changes)
    assert (code, result["outcome"], result["reason"]) == (65, "Failed", "InvalidSpec")
    assert message in result["message"]
    assert store.read_manifest(published.source).digest == published.digest


def test_a_store_of_another_installation_is_left_alone_and_told(tmp_path: Path, store: Store) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    run(tmp_path)
    code, result = run(tmp_path, installation="other")
    assert (code, result["outcome"], result["reason"]) == (65, "Failed", "StoreShared")
    assert "give each cluster and operator a prefix of its own in store.url" in result["message"]
    assert store.read_manifest(published.source).digest == published.digest


def test_a_digest_that_joins_the_list_while_it_runs_is_kept(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    published = store.publish(make_adapter(tmp_path / "a"), "ml", "medical", fields())
    run(tmp_path)
    real = Store.sweep

    def later(self: Store, namespace: str, installation: str, keep: Any, retain: int) -> Any:
        def grown() -> Any:
            found = keep()
            document = json.loads((tmp_path / "sweep.json").read_text())
            (tmp_path / "sweep.json").write_text(json.dumps({**document, "keep": [published.digest]}))
            return found

        return real(self, namespace, installation, grown, retain)

    monkeypatch.setattr(Store, "sweep", later)
    assert run(tmp_path)[1] == _swept(kept=1)
    assert store.read_manifest(published.source).digest == published.digest


def test_instructions_that_are_not_there_are_refused(tmp_path: Path, store: Store) -> None:
    assert main(["sweep", "--instructions", str(tmp_path / "nothing.json")]) == 65
    assert json.loads((tmp_path / "log").read_bytes())["reason"] == "InvalidSpec"


def test_a_store_that_does_not_answer_is_tried_again(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GRAFTWORK_STORE_URL": "s3://b/p",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }.items():
        monkeypatch.setenv(name, value)
    code, result = run(tmp_path)
    assert (code, result["reason"]) == (70, "StoreUnreachable")
