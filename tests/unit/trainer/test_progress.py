"""Progress as the operator reads it: hanging requests over real HTTP, documents that follow the schema."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from graftwork_store import progress_server
from graftwork_trainer.progress import Progress

from tests.unit.trainer.samples import schema

DATASET = {"examples": 8, "validation": 2, "tokens": None, "digest": "sha256:" + "0" * 64, "format": "messages", "warnings": ["few"]}


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def port(progress: Progress) -> Iterator[int]:
    running = progress_server.serve(progress, 0)
    yield running.server_address[1]
    running.shutdown()
    running.server_close()


def get(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_progress_follows_the_schema_from_the_first_moment_on(progress: Progress, port: int) -> None:
    status, document = get(port, "/progress")
    assert status == 200
    schema("progress").validate(document)
    progress.update(phase="Training", step=1, steps=60, epoch=0.5, loss=math.nan, tokensPerSecond=math.inf, dataset=DATASET)
    _, document = get(port, "/progress?since=&wait=5")
    schema("progress").validate(document)
    assert (document["step"], document["loss"], document["tokensPerSecond"]) == (1, None, None)


def test_a_request_hangs_until_something_changes(progress: Progress, port: int) -> None:
    version = progress.snapshot()["version"]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(get(port, f"/progress?since={version}&wait=30")))
    thread.start()
    progress.update(step=7)
    thread.join(timeout=10)
    assert answers[0][1]["step"] == 7
    assert answers[0][1]["version"] != version


def test_a_request_ends_after_wait_without_a_change(progress: Progress, port: int) -> None:
    version = progress.snapshot()["version"]
    assert get(port, f"/progress?since={version}&wait=0.05") == (200, progress.snapshot())


def test_a_version_of_another_process_is_answered_at_once(port: int) -> None:
    assert get(port, "/progress?since=beef.0&wait=30")[0] == 200


def test_what_does_not_change_anything_keeps_the_version(progress: Progress) -> None:
    progress.update(step=1)
    version = progress.snapshot()["version"]
    progress.update(step=1)
    assert progress.snapshot()["version"] == version


@pytest.mark.parametrize(("path", "status"), [("/alive", 200), ("/", 404), ("/progress?wait=soon", 400), ("/progress?wait=nan", 400)])
def test_other_requests_are_told_what_is_wrong(port: int, path: str, status: int) -> None:
    assert get(port, path)[0] == status


def test_a_client_that_hangs_up_does_no_harm(progress: Progress, port: int) -> None:
    version = progress.snapshot()["version"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/progress?since={version}&wait=30")
    connection.close()
    progress.update(step=3)
    assert get(port, "/progress")[1]["step"] == 3
