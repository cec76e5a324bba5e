"""A load client that retries nothing and believes nothing: a request counts only when it is complete to the last token.

Half of the clients keep their connection, half open one per request; every second request streams. A request is complete with status 200, a
finish_reason, the end marker (streams) and exactly the number of tokens that was asked for (`ignore_eos`). Each request is kept with its times, so
that what was lost can be told apart by when it was (tests/harness/windows.py).
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.harness.windows import Request

STREAM_END = "[DONE]"
FAILED_PAUSE_SECONDS = 0.05
"""A refused connection fails in no time: without a pause, one pod that is gone would count thousands of requests."""


@dataclass
class Tally:
    """What the clients saw."""

    complete: int = 0
    streams: int = 0
    failures: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, request: Request) -> None:
        """Count one request; an empty failure is a complete one."""
        with self.lock:
            self.requests.append(request)
            if request.failure:
                self.failures.append(request.failure)
            else:
                self.complete += 1
                self.streams += request.stream

    def all(self) -> list[Request]:
        """Return the requests that have ended so far."""
        with self.lock:
            return list(self.requests)


class Load:
    """Clients in threads, from `with` to its end; bounded by `seconds` whatever happens. `pause`: so long each waits after an answer."""

    def __init__(
        self, host: str, port: int, models: list[str], *, clients: int = 4, tokens: int = 16, seconds: float = 300, pause: float = 0
    ) -> None:
        self.address = (host, port)
        self.models = models
        self.tokens = tokens
        self.pause = pause
        self.tally = Tally()
        self._stop = threading.Event()
        self._epoch = 0
        self._deadline = time.monotonic() + seconds
        self._progress = threading.Condition()
        self._threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)

    def reconnect(self) -> None:
        """Let each client open a new connection for its next request, as a client does that is restarted between two."""
        self._epoch += 1

    def wait_for(self, complete: int, timeout: float = 120) -> None:
        """Wait until that many more requests are complete."""
        target = self.tally.complete + complete
        with self._progress:
            if not self._progress.wait_for(lambda: self.tally.complete >= target, timeout):
                raise AssertionError(
                    f"only {self.tally.complete} of {target} requests complete after {timeout:.0f} s; failures: {self.tally.failures[-3:]}"
                )

    def wait_until(self, is_so: Callable[[], bool], what: str, timeout: float = 120) -> None:
        """Look again whenever a request has ended, and after a tenth of a second at most, until `is_so` says yes."""
        deadline = time.monotonic() + timeout
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"not seen within {timeout:.0f} s: {what}; failures: {self.tally.failures[-3:]}")
            with self._progress:
                self._progress.wait(0.1)

    def _client(self, number: int) -> None:
        keep = number % 2 == 0
        connection: http.client.HTTPConnection | None = None
        count, epoch = number, self._epoch
        while not self._stop.is_set() and time.monotonic() < self._deadline:
            count += 1
            stream = count % 2 == 0
            if connection and epoch != self._epoch:
                connection.close()
                connection = None
            if connection is None:
                connection, epoch = http.client.HTTPConnection(*self.address, timeout=120), self._epoch
            request, reusable = self._request(connection, self.models[count % len(self.models)], stream, keep)
            self.tally.add(request)
            with self._progress:
                self._progress.notify_all()
            if not (keep and reusable):
                connection.close()
                connection = None
            if pause := max(self.pause, FAILED_PAUSE_SECONDS if request.failure else 0):
                self._stop.wait(pause)

    def _request(self, connection: http.client.HTTPConnection, model: str, stream: bool, keep: bool) -> tuple[Request, bool]:
        body = {"model": model, "prompt": "The secret word is", "max_tokens": self.tokens, "ignore_eos": True, "temperature": 0, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {"Content-Type": "application/json", "Connection": "keep-alive" if keep else "close"}
        began, answering = time.monotonic(), False

        def ended(failure: str) -> Request:
            return Request(began, time.monotonic(), stream, failure, cut=bool(failure) and stream and answering)

        try:
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            response = connection.getresponse()
            answering = response.status == http.HTTPStatus.OK
            raw = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            return ended(f"{type(error).__name__}: {error}"), False
        reusable = response.getheader("Connection", "").lower() != "close"
        if not answering:
            return ended(f"HTTP {response.status}: {raw[:200]}"), reusable
        return ended(self._stream_failure(raw) if stream else self._answer_failure(raw)), reusable

    def _answer_failure(self, raw: str) -> str:
        body = json.loads(raw)
        if not body["choices"][0]["finish_reason"]:
            return "an answer without finish_reason"
        tokens = body["usage"]["completion_tokens"]
        return "" if tokens == self.tokens else f"{tokens} tokens instead of {self.tokens}"

    def _stream_failure(self, raw: str) -> str:
        events = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
        if not events or events[-1] != STREAM_END:
            return f"a stream that was cut after {len(events)} events"
        parsed = [json.loads(event) for event in events[:-1]]
        if not any(choice.get("finish_reason") for event in parsed for choice in event.get("choices", [])):
            return f"a stream without finish_reason: {events[-2][:200]}"
        tokens = next((event["usage"]["completion_tokens"] for event in reversed(parsed) if event.get("usage")), 0)
        return "" if tokens == self.tokens else f"a stream of {tokens} tokens instead of {self.tokens}"
