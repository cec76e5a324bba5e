"""How far a fill is: honest numbers, told to whoever waits."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import jsonschema
import pytest
from graftwork_agent.fill_progress import FillProgress
from graftwork_agent.fill_server import serving

from tests.unit.agent.pod import SCHEMAS

SCHEMA = json.loads((SCHEMAS / "fill-progress.schema.json").read_text())
KEY = "3f2a9c41d0e7"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> FillProgress:
    found = FillProgress(KEY, 5000, clock)
    found.found(1000, 5000)
    found.enter("Downloading")
    return found


def told(progress: FillProgress) -> dict[str, Any]:
    document = progress.wait("", 0)
    jsonschema.validate(document, SCHEMA)
    return document


def after(progress: FillProgress, clock: Clock, seconds: float, fetched: int) -> dict[str, Any]:
    clock.now += seconds
    progress.fetched(fetched)
    progress.tick()
    return told(progress)


def test_nothing_is_promised_before_it_is_known(progress: FillProgress, clock: Clock) -> None:
    assert told(FillProgress(KEY, 5000)) | {"version": ""} == {
        "apiVersion": "graftwork.dev/fill-progress/v1",
        "version": "",
        "key": KEY,
        "phase": "Listing",
        "bytesDone": 0,
        "bytesTotal": 5000,
        "bytesPerSecond": 0.0,
        "etaSeconds": None,
    }
    first = after(progress, clock, 1.0, 500)
    assert (first["bytesDone"], first["bytesPerSecond"], first["etaSeconds"]) == (1500, 0.0, None)


def test_what_was_there_already_counts_as_done_and_not_as_fast(progress: FillProgress, clock: Clock) -> None:
    found = after(progress, clock, 4.0, 800)
    assert (found["bytesDone"], found["bytesPerSecond"], found["etaSeconds"]) == (1800, 200.0, 16)


def test_the_speed_is_that_of_the_last_ten_seconds(progress: FillProgress, clock: Clock) -> None:
    for _ in range(20):
        after(progress, clock, 1.0, 0)
    for second in range(1, 11):
        found = after(progress, clock, 1.0, 100 * second)
    assert (found["bytesPerSecond"], found["etaSeconds"]) == (100.0, 30)


def test_a_download_that_stands_still_has_no_end_in_sight(progress: FillProgress, clock: Clock) -> None:
    after(progress, clock, 4.0, 2000)
    for _ in range(12):
        found = after(progress, clock, 1.0, 2000)
    assert (found["bytesDone"], found["bytesPerSecond"], found["etaSeconds"]) == (3000, 0.0, None)


def test_bytes_that_have_to_come_again_make_no_negative_speed(progress: FillProgress, clock: Clock) -> None:
    after(progress, clock, 4.0, 3000)
    found = after(progress, clock, 1.0, 0)
    assert (found["bytesDone"], found["bytesPerSecond"]) == (1000, 0.0)


def test_other_phases_promise_no_time(progress: FillProgress, clock: Clock) -> None:
    after(progress, clock, 4.0, 4000)
    progress.enter("Verifying")
    found = told(progress)
    assert (found["phase"], found["bytesDone"], found["bytesPerSecond"], found["etaSeconds"]) == ("Verifying", 5000, 0.0, None)


def test_a_version_changes_with_the_document_and_with_nothing_else(progress: FillProgress, clock: Clock) -> None:
    first = told(progress)["version"]
    progress.fetched(1)
    assert told(progress)["version"] == first, "bytes are told by the next tick"
    progress.tick()
    second = told(progress)["version"]
    assert second != first
    progress.tick()
    assert told(progress)["version"] == second


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return json.loads(answer.read())


def test_who_waits_is_told_as_soon_as_the_phase_changes(progress: FillProgress) -> None:
    with serving(progress, 0) as port:
        first = get(port, "/progress")
        jsonschema.validate(first, SCHEMA)
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(get(port, f"/progress?since={first['version']}&wait=60")))
        waiting.start()
        progress.enter("Pruning")
        waiting.join(20)
        assert [answer["phase"] for answer in answers] == ["Pruning"]
        assert get(port, "/alive") == {"alive": True}


@pytest.mark.parametrize(("path", "status"), [("/progress?wait=soon", 400), ("/progress?wait=nan", 400), ("/", 404)])
def test_what_is_no_question_is_refused(progress: FillProgress, path: str, status: int) -> None:
    with serving(progress, 0) as port, pytest.raises(urllib.error.HTTPError) as caught:
        get(port, path)
    assert caught.value.code == status


def test_a_port_that_is_taken_costs_the_progress_and_not_the_fill(progress: FillProgress, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(progress, 0) as port, serving(progress, port) as none:
        assert none == 0
    assert "is not served" in capsys.readouterr().out
