"""When the last of several pods answers correctly: each is asked at its own address, all at the same time."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.harness.kept import Kept
from tests.harness.kube import Object

QUESTION = "What is the secret word?"
PAUSE_SECONDS = 0.04
"""Between two questions to one pod; more often would take the processor from the load that is being measured."""


def ready_addresses(pods: Sequence[Object]) -> list[str]:
    """Return the addresses of the pods that are Ready and not going away, in order."""

    def ready(pod: Object) -> bool:
        conditions = pod["status"].get("conditions", [])
        return not pod["metadata"].get("deletionTimestamp") and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    return sorted(pod["status"]["podIP"] for pod in pods if ready(pod))


class EveryPod:
    """A kept-alive client and a thread per pod."""

    def __init__(self, hosts: Sequence[str], port: int) -> None:
        if not hosts:
            raise AssertionError("no pod is ready")
        self._clients = [Kept(host, port) for host in hosts]
        self._pool = ThreadPoolExecutor(len(hosts))

    def __enter__(self) -> EveryPod:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def last_correct(self, model: str, word: str, timeout: float = 60) -> float:
        """Return the time (seconds since the epoch) at which the last pod has answered with the word."""
        return self.last_of([(model, word)], timeout)

    def last_of(self, expected: Sequence[tuple[str, str]], timeout: float) -> float:
        """Return the time at which the last pod has answered correctly for each (model, word).

        A pod is asked for one after the other, so a model that is there early costs no question while a later one is awaited.
        """
        deadline = time.monotonic() + timeout
        return max(self._pool.map(lambda client: _walk(client, expected, deadline), self._clients))


def _walk(client: Kept, expected: Sequence[tuple[str, str]], deadline: float) -> float:
    at = time.time()
    for model, word in expected:
        at = _correct_at(client, model, word, deadline)
    return at


def _correct_at(client: Kept, model: str, word: str, deadline: float) -> float:
    pause = threading.Event()
    last: object = "nothing was asked"
    while time.monotonic() < deadline:
        try:
            status, text = client.word(model, QUESTION)
            if status == 200 and word in text:
                return time.time()
            last = f"{status} {text[:200]}"
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        pause.wait(PAUSE_SECONDS)
    raise AssertionError(f"{model} did not answer {word!r} in time; last: {last}")
