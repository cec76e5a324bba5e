"""A cluster that was up before has the calls of earlier runs in its audit log; a run reads its own only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import audit, machine


def line(verb: str) -> str:
    at = "2026-11-21T13:00:00.000000Z"
    event = {
        "stage": "ResponseComplete",
        "user": {"username": audit.OPERATOR},
        "verb": verb,
        "objectRef": {"resource": "pods"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": at,
        "stageTimestamp": at,
    }
    return json.dumps(event) + "\n"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "audit_log", lambda: tmp_path / "audit.log")
    monkeypatch.delenv(machine.RUN_BEGAN, raising=False)
    return tmp_path / "audit.log"


def test_only_what_was_called_in_this_run_counts(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_text(line("delete"))
    for name, value in machine.mark_run().items():
        monkeypatch.setenv(name, value)
    with log.open("a") as file:
        file.write(line("patch"))
    assert [call.verb for call in audit.calls(log, audit.OPERATOR, machine.run_began())] == ["patch"]


def test_a_log_that_began_anew_and_a_run_that_nobody_marked_are_read_from_their_beginning(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.mark_run() == {machine.RUN_BEGAN: "0"}
    log.write_text(line("patch"))
    assert machine.run_began() == 0
    monkeypatch.setenv(machine.RUN_BEGAN, "1000000")
    assert machine.run_began() == 0
