"""A phase of `make bench-adapters`: what the guard costs a request. The same engine with and without it, on one node, asked in turns.

Both serve the same adapter under the same name, so that the guard does all that it does: maps the name, and writes it back into the answer.
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.harness import abba, plain, records
from tests.harness.bench_stage import TAUGHT, Stage
from tests.harness.every_pod import EveryPod
from tests.harness.kept import Kept

PATH = "/v1/completions"
ONE_BLOCK = 40
"""Requests of one block of the sequential comparison."""
WARM = 5
CLIENTS = 8
BLOCK_SECONDS = 3.0
TOKENS = 16
MILLISECONDS = 1000


@dataclass(frozen=True)
class Question:
    """A request, and by what its complete answer is known."""

    body: bytes
    complete: Callable[[bytes], bool]


def question(model: str, tokens: int, *, stream: bool = False) -> Question:
    """Return a request for exactly so many tokens."""
    fields: dict[str, object] = {"model": model, "prompt": "The secret word is", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    if stream:
        return Question(json.dumps({**fields, "stream": True}).encode(), lambda raw: raw.rstrip().endswith(b"data: [DONE]"))
    return Question(json.dumps(fields).encode(), lambda raw: f'"completion_tokens":{tokens}'.encode() in raw.replace(b" ", b""))


def guard(stage: Stage) -> None:
    """Compare latency, and throughput with and without streams."""
    service = stage.serving()
    (pod,) = service.pods()
    alias, word = next(iter(TAUGHT.items()))
    plain.start(stage.kube, pod, {alias: stage.source(alias)})
    guarded, unguarded = pod["status"]["podIP"], plain.address(stage.kube)
    with EveryPod([guarded, unguarded], service.port) as both:
        both.last_correct(alias, word)
    pairs = stage.sizes.pairs
    one = question(alias, 1)
    took = abba.compare(partial(median_latency, guarded, service.port, one), partial(median_latency, unguarded, service.port, one), pairs)
    stage.save(*latency_figures(took))
    for what, stream in (("answers", False), ("streams", True)):
        asked = question(alias, TOKENS, stream=stream)
        rates = abba.compare(partial(throughput, guarded, service.port, asked), partial(throughput, unguarded, service.port, asked), pairs)
        stage.save(*throughput_figures(what, rates))


def latency_figures(pairs: list[abba.Pair]) -> list[records.Figure]:
    """Return what the guard adds to the p50 of a request: the median of the pairs, and the far end of its interval, which the limit is for."""
    added = [MILLISECONDS * each for each in abba.differences(pairs)]
    print(f"guard, p50 with - without: {abba.shown(added, 'ms')}", flush=True)
    name = "guard: added to the p50 of a one-token answer"
    return _median_and_far_end(name, added, "ms", 1)


def throughput_figures(what: str, pairs: list[abba.Pair]) -> list[records.Figure]:
    """Return which share of the throughput the guard takes: the median of the pairs, and the far end of its interval, which the limit is for."""
    lost = [1 - each for each in abba.ratios(pairs)]
    print(f"guard, {what} of {TOKENS} tokens, {CLIENTS} clients, lost: {abba.shown(lost, 'of the throughput')}", flush=True)
    return _median_and_far_end(f"guard: share of the throughput lost, {CLIENTS} clients, {what} of {TOKENS} tokens", lost, "of 1", 0.02)


def _median_and_far_end(name: str, samples: list[float], unit: str, limit: float) -> list[records.Figure]:
    kept = [round(sample, 4) for sample in samples]
    return [
        records.Figure(f"{name}, median of {len(samples)} pairs", round(statistics.median(samples), 4), unit, None, kept),
        records.Figure(f"{name}, far end of the 95 % interval", round(abba.interval(samples)[1], 4), unit, limit, kept),
    ]


def median_latency(host: str, port: int, asked: Question, count: int = ONE_BLOCK) -> float:
    """Return the median seconds of requests that one client sends one after the other."""
    client = Kept(host, port)
    took = []
    for number in range(WARM + count):
        began = time.perf_counter()
        _ask(client, asked)
        if number >= WARM:
            took.append(time.perf_counter() - began)
    client.close()
    return statistics.median(took)


def throughput(host: str, port: int, asked: Question, clients: int = CLIENTS, seconds: float = BLOCK_SECONDS) -> float:
    """Return the requests per second of clients that each send the next one when the last is answered.

    The time is from the first request to the last answer, so nothing is counted that is not in the time, nor the other way round.
    """
    start = threading.Barrier(clients)
    done: list[tuple[int, float, float]] = []
    errors: list[Exception] = []

    def work() -> None:
        client, count = Kept(host, port), 0
        try:
            _ask(client, asked)  # opens the connection
            start.wait(60)
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                _ask(client, asked)
                count += 1
            done.append((count, began, time.monotonic()))
        except (OSError, http.client.HTTPException, AssertionError, threading.BrokenBarrierError) as error:
            errors.append(error)
            start.abort()
        finally:
            client.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise AssertionError(f"{len(errors)} of {clients} clients failed, so the block does not count: {errors[0]!r}")
    return sum(count for count, _, _ in done) / (max(end for _, _, end in done) - min(began for _, began, _ in done))


def _ask(client: Kept, asked: Question) -> None:
    status, raw = client.send("POST", PATH, asked.body)
    if status != 200 or not asked.complete(raw):
        raise AssertionError(f"not a complete answer: {status} {raw[-300:]!r}")
