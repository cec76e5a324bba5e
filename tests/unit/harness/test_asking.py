"""Asking every pod, and closed loops, against servers of our own whose behaviour is known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.harness import bench_guard
from tests.harness.every_pod import EveryPod, ready_addresses
from tests.harness.kept import Kept

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any] | bytes]]


class Server:
    """A server on a loopback address of its own, on which several can have the same port."""

    def __init__(self, host: str, answer: Answer, port: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.connections: set[Any] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: else the kernel waits for an acknowledgement between them

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.connections.add(self.client_address)
                status, content = answer(body)
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def says(word: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": f"the {word}"}}], "usage": {"completion_tokens": 16}}


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(host: str, answer: Answer, port: int = 0) -> Server:
        started.append(Server(host, answer, port))
        return started[-1]

    yield start
    for server in started:
        server.close()


def test_the_time_is_that_of_the_last_pod(serve: Callable[..., Server]) -> None:
    late = threading.Event()
    first = serve("127.0.0.1", lambda _: (200, says("swordfish")))
    serve("127.0.0.2", lambda _: (200, says("swordfish" if late.is_set() else "periwinkle")), first.port)
    times: list[float] = []

    def release() -> None:
        times.append(time.time())
        late.set()

    timer = threading.Timer(0.3, release)
    timer.start()
    with EveryPod(["127.0.0.1", "127.0.0.2"], first.port) as pods:
        at = pods.last_correct("hot-0", "swordfish", timeout=20)
    assert at >= times[0]
    assert len(first.bodies) == 1, "a pod that has answered is not asked again"


def test_each_model_of_a_walk_must_answer_its_own_word(serve: Callable[..., Server]) -> None:
    words = {"a": "swordfish", "b": "periwinkle"}
    server = serve("127.0.0.1", lambda body: (200, says(words[body["model"]])))
    with EveryPod(["127.0.0.1"], server.port) as pods:
        pods.last_of(list(words.items()), 20)
        assert [body["model"] for body in server.bodies] == ["a", "b"]
        with pytest.raises(AssertionError, match=r"b did not answer 'swordfish' in time; last: 200 the periwinkle"):
            pods.last_of([("a", "swordfish"), ("b", "swordfish")], 0.3)


def test_what_is_refused_or_cut_is_asked_again_and_shown_when_it_never_comes(serve: Callable[..., Server]) -> None:
    answers = iter([(404, {"error": "no such model"}), (503, b"busy"), (200, says("swordfish"))])
    server = serve("127.0.0.1", lambda _: next(answers, (404, b"gone")))
    with EveryPod(["127.0.0.1"], server.port) as pods:
        pods.last_correct("hot-0", "swordfish", timeout=20)
        with pytest.raises(AssertionError, match="last: 404 gone"):
            pods.last_correct("hot-0", "swordfish", timeout=0.3)
    assert len(server.connections) == 1, "the connection is kept"


def test_an_address_where_nobody_listens_is_told() -> None:
    with EveryPod(["127.0.0.9"], 1) as pods, pytest.raises(AssertionError, match="ConnectionRefusedError"):
        pods.last_correct("hot-0", "swordfish", timeout=0.2)
    with pytest.raises(AssertionError, match="no pod is ready"):
        EveryPod([], 1)


def test_only_ready_pods_that_stay_are_asked() -> None:
    def pod(address: str, ready: str, **metadata: str) -> dict[str, Any]:
        return {"metadata": metadata, "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}}

    pods = [pod("10.0.0.3", "True"), pod("10.0.0.2", "False"), pod("10.0.0.1", "True"), pod("10.0.0.4", "True", deletionTimestamp="now")]
    assert ready_addresses([*pods, {"metadata": {}, "status": {}}]) == ["10.0.0.1", "10.0.0.3"]


def test_a_connection_that_broke_is_opened_again_by_the_next_request(serve: Callable[..., Server]) -> None:
    server = serve("127.0.0.1", lambda _: (200, says("swordfish")))
    client = Kept("127.0.0.1", server.port)
    assert client.word("a", "?") == (200, "the swordfish")
    server.close()
    client.close()
    with pytest.raises(OSError):
        client.word("a", "?")
    serve("127.0.0.1", lambda _: (200, says("periwinkle")), server.port)
    assert client.word("a", "?") == (200, "the periwinkle")


def side(server: Server) -> bench_guard.Side:
    return bench_guard.Side("127.0.0.1", "m", port=server.port)


def says_all(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as long as it was asked for."""
    return {**says("x"), "usage": {"completion_tokens": body["max_tokens"]}}


def test_a_latency_is_the_median_without_the_first_requests(serve: Callable[..., Server]) -> None:
    pause, count = threading.Event(), iter(range(1000))

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if next(count) < bench_guard.WARM:
            pause.wait(0.15)
        return 200, says_all(body)

    server = serve("127.0.0.1", answer)
    took = bench_guard.median_latency(side(server), count=8)
    assert 0 < took < 0.15
    assert len(server.bodies) == bench_guard.WARM + 8


def test_a_closed_loop_has_as_many_requests_at_once_as_clients(serve: Callable[..., Server]) -> None:
    lock, pause, now, most = threading.Lock(), threading.Event(), [0], [0]

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        pause.wait(0.05)
        with lock:
            now[0] -= 1
        return 200, says_all(body)

    server = serve("127.0.0.1", answer)
    rate = bench_guard.throughput(side(server), clients=4, seconds=0.5, stream=False)
    assert most[0] == 4
    assert 10 < rate / 16 <= 4 / 0.05 * 1.2, "tokens, of answers of 16 on average"
    assert len(server.connections) == 4


def test_a_block_with_an_incomplete_answer_does_not_count(serve: Callable[..., Server]) -> None:
    count = iter(range(1000))
    server = serve("127.0.0.1", lambda body: (200, says_all(body) if next(count) < 6 else {"usage": {"completion_tokens": 15}}))
    with pytest.raises(AssertionError, match="clients failed, so the block does not count"):
        bench_guard.throughput(side(server), clients=2, seconds=5, stream=False)
    with pytest.raises(AssertionError, match=r"2 of 2 clients failed.*not a complete answer"):
        bench_guard.throughput(side(server), clients=2, seconds=5, stream=False)


def test_a_stream_is_complete_with_its_end_only() -> None:
    asked = bench_guard.question("m", 16, stream=True)
    assert json.loads(asked.body)["stream"] is True
    assert asked.complete(b'data: {"choices": []}\n\ndata: [DONE]\n\n')
    assert not asked.complete(b'data: {"choices": []}\n\n')
    assert not bench_guard.question("m", 16).complete(b'{"usage": {"completion_tokens": 15}}')
    assert bench_guard.question("m", 16).complete(b'{"usage":{"prompt_tokens":4,"completion_tokens":16}}')
