"""The load client sees what a server does to it: a complete answer, a refusal, a stream that is cut."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.harness.load import Load
from tests.harness.windows import Request

TOKENS = 2


class Engine(BaseHTTPRequestHandler):
    """Answers as the server's `manner` says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        stream = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["stream"]
        manner: dict[str, object] = vars(self.server)["manner"]
        ports: set[int] = vars(self.server)["ports"]
        ports.add(self.client_address[1])
        choice, usage = {"finish_reason": "length"}, {"completion_tokens": TOKENS}
        if stream:
            lines = [json.dumps({"choices": [choice]}), json.dumps({"choices": [], "usage": usage}), "[DONE]"]
            body = "".join(f"data: {line}\n\n" for line in lines).encode()
        else:
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(int(str(manner["status"])))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if manner["cut"]:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    vars(server).update(manner={"status": 200, "cut": False}, ports=set())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def asked(server: ThreadingHTTPServer, requests: int = 8) -> list[Request]:
    """Return what two clients saw."""
    with Load("127.0.0.1", server.server_address[1], ["m"], clients=2, tokens=TOKENS) as load:
        load.wait_until(lambda: len(load.tally.all()) >= requests, "requests", 20)
    return load.tally.all()


def test_complete_answers_are_complete_and_every_second_is_a_stream(engine: ThreadingHTTPServer) -> None:
    found = asked(engine)
    assert [each.failure for each in found] == [""] * len(found)
    assert {each.stream for each in found} == {True, False}
    assert all(each.began < each.ended for each in found)


def test_a_stream_that_ends_before_its_end_is_cut_and_an_answer_that_does_is_lost(engine: ThreadingHTTPServer) -> None:
    vars(engine)["manner"]["cut"] = True
    found = asked(engine)
    assert all(each.failure for each in found)
    assert [each.cut for each in found] == [each.stream for each in found]


def test_a_refused_stream_is_lost_and_not_cut(engine: ThreadingHTTPServer) -> None:
    vars(engine)["manner"]["status"] = 503
    found = asked(engine)
    assert all(each.failure.startswith("HTTP 503") and not each.cut for each in found)


def test_clients_that_are_told_to_open_a_new_connection_do_so_between_two_requests(engine: ThreadingHTTPServer) -> None:
    ports: set[int] = vars(engine)["ports"]
    with Load("127.0.0.1", engine.server_address[1], ["m"], clients=1, tokens=TOKENS) as load:  # client 0 keeps its connection
        load.wait_for(4)
        assert len(ports) == 1
        load.reconnect()
        load.wait_for(4)
    assert len(ports) == 2
    assert load.tally.failures == []
