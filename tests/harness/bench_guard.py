"""A phase of `make bench-adapters`: what the guard costs a request. One engine process, asked with it and past it, in turns.

Both sides ask for the same adapter and get the same answer; with the guard it has its public name, which the guard maps and writes back.
"""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.harness import abba, plain, records, switched
from tests.harness.bench_stage import NAME, TAUGHT, Stage, agent_status
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


@dataclass(frozen=True)
class Side:
    """The engine as one of the two sides sees it."""

    host: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    port: int = plain.PORT

    def client(self) -> Kept:
        """Return a kept connection."""
        return Kept(self.host, self.port, self.headers)

    def says(self, word: str) -> None:
        """Make sure that it is the adapter who answers, by the name that was asked for."""
        client = self.client()
        status, text = client.word(self.model, "What is the secret word?")
        client.close()
        if status != 200 or word not in text:
            raise AssertionError(f"{self.model}: {status} {text[:200]}")


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
    name = agent_status(pod["status"]["podIP"])["routes"][alias]
    host = switched.start(stage.kube, pod, NAME, alias, name, stage.source(alias))
    guarded, unguarded = Side(host, alias), Side(host, name, switched.HEADER)
    for side in (guarded, unguarded):
        side.says(word)
    pairs = stage.sizes.pairs
    took = abba.compare(partial(median_latency, guarded), partial(median_latency, unguarded), pairs)
    stage.save(*latency_figures(took))
    for what, stream in (("answers", False), ("streams", True)):
        rates = abba.compare(partial(throughput, guarded, stream=stream), partial(throughput, unguarded, stream=stream), pairs)
        stage.save(*throughput_figures(what, rates))
        print(f"{what}: {statistics.median(pair[1] for pair in rates):.0f} tokens/s past the guard", flush=True)
    plain.remove(stage.kube)


def latency_figures(pairs: list[abba.Pair]) -> list[records.Figure]:
    """Return what the guard adds to the p50 of a request: the median of the pairs, and the far end of its interval, which the limit is for."""
    added = [MILLISECONDS * each for each in abba.differences(pairs)]
    print(f"guard, p50 with - without: {abba.shown(added, 'ms')}", flush=True)
    name = "guard: added to the p50 of a one-token answer"
    return _median_and_far_end(name, added, "ms", 1)


def throughput_figures(what: str, pairs: list[abba.Pair]) -> list[records.Figure]:
    """Return which share of the throughput the guard takes: the median of the pairs, and the far end of its interval, which the limit is for."""
    lost = [1 - each for each in abba.ratios(pairs)]
    print(f"guard, {what} of about {TOKENS} tokens, {CLIENTS} clients, lost: {abba.shown(lost, 'of the throughput')}", flush=True)
    return _median_and_far_end(f"guard: share of the throughput lost, {CLIENTS} clients, {what} of about {TOKENS} tokens", lost, "of 1", 0.02)


def _median_and_far_end(name: str, samples: list[float], unit: str, limit: float) -> list[records.Figure]:
    kept = [round(sample, 4) for sample in samples]
    return [
        records.Figure(f"{name}, median of {len(samples)} pairs", round(statistics.median(samples), 4), unit, None, kept),
        records.Figure(f"{name}, far end of the 95 % interval", round(abba.interval(samples)[1], 4), unit, limit, kept),
    ]


def median_latency(side: Side, count: int = ONE_BLOCK) -> float:
    """Return the median seconds of requests that one client sends one after the other."""
    client, asked = side.client(), question(side.model, 1)
    took = []
    for number in range(WARM + count):
        began = time.perf_counter()
        _ask(client, asked)
        if number >= WARM:
            took.append(time.perf_counter() - began)
    client.close()
    return statistics.median(took)


def tokens_of(client: int, number: int) -> int:
    """Return how long an answer is asked for: of several lengths, or all clients would go in step, and a delay of one be a delay of all."""
    return TOKENS // 2 + (5 * number + 3 * client) % (TOKENS + 1)


def throughput(side: Side, clients: int = CLIENTS, seconds: float = BLOCK_SECONDS, *, stream: bool) -> float:
    """Return the tokens per second of clients that each send the next request when the last is answered.

    The time is from the first request to the last answer, so nothing is counted that is not in the time, nor the other way round.
    """
    start = threading.Barrier(clients)
    done: list[tuple[int, float, float]] = []
    errors: list[Exception] = []

    def work(index: int) -> None:
        client, count, number = side.client(), 0, 0
        try:
            _ask(client, question(side.model, TOKENS, stream=stream))  # opens the connection
            start.wait(60)
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                tokens = tokens_of(index, number)
                _ask(client, question(side.model, tokens, stream=stream))
                count, number = count + tokens, number + 1
            done.append((count, began, time.monotonic()))
        except (OSError, http.client.HTTPException, AssertionError, threading.BrokenBarrierError) as error:
            errors.append(error)
            start.abort()
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(clients)]
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
