"""What Prometheus knows of two versions of an alias: PromQL over the guard's metrics, asked in a thread, never waited for by a pass.

The series are scraped from `/graftwork/metrics` of the serving pods. Of the labels that a scrape adds only `namespace` and `pod` are relied on.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from graftwork.clock import Clock
from graftwork.cluster.kinds import Key
from graftwork.cluster.protocol import WakeApi
from graftwork.facts.canary import Numbers, Observation, Question
from graftwork.facts.text import clip

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
THREADS = 4
PROBE_SECONDS = 60
ANSWERED, FAILED, ABANDONED, TTFT_SUM, TTFT_COUNT = "answered", "failed", "abandoned", "ttft_sum", "ttft_count"
ENDED = "graftwork_requests_ended_total"
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    ANSWERED: (ENDED, ('outcome="answered"',)),  # 4xx too: a client's fault says nothing of the adapter
    FAILED: (ENDED, ('outcome="failed"',)),
    ABANDONED: (ENDED, ('outcome="abandoned"',)),
    TTFT_SUM: ("graftwork_time_to_first_token_seconds_sum", ()),
    TTFT_COUNT: ("graftwork_time_to_first_token_seconds_count", ()),
}
STARTED = "graftwork_series_start_time_seconds"
"""When the series of an alias' version began in one engine process, with the labels that they have."""
WHAT = "what"
SCRAPE = "instance, job, endpoint, container, service"
"""Labels of a scrape: a pod that is scraped twice (two jobs, or both of its metrics paths) is counted once."""


class PrometheusError(Exception):
    """Prometheus did not answer as its API says. The text is the same for the same trouble, so that it can stand in a status."""


def promql(question: Question, window_seconds: int) -> str:
    """Return the one query for all numbers, so that they are of one moment: a sample per number and version, told apart by label `what`."""
    versions = "|".join(str(version) for version in sorted({question.stable, question.candidate}))
    pods = f"{question.deployment}-[a-z0-9]+(-[a-z0-9]+)?"  # the names of a Deployment's pods, long ones without the second dash
    chosen = [f'namespace="{question.namespace}"', f'pod=~"{pods}"', f'alias="{question.alias}"', f'version=~"{versions}"']
    counted = {what: _counted(name, chosen, also, window_seconds, question.since) for what, (name, also) in METRICS.items()}
    return " or ".join(
        f'label_replace(sum by (version) (max without ({SCRAPE}) ({expression})), "{WHAT}", "{what}", "", "")' for what, expression in counted.items()
    )


def _counted(name: str, chosen: Sequence[str], also: Sequence[str], window_seconds: int, since: datetime | None) -> str:
    """Return what a counter counted in the window.

    `increase` misses what the first sample of a series has: one that began in the step counts from zero. That a series has no sample from before the
    step does not say so - Prometheus may have been away - and an old one's first sample has what its process counted in its whole life.
    """
    series, window = f"{name}{{{','.join([*chosen, *also])}}}", f"[{window_seconds}s]"
    if since is None:
        return f"increase({series}{window})"
    started = f"min_over_time({STARTED}{{{','.join(chosen)}}}{window}) >= {since.timestamp():.3f}"
    new = f"(max_over_time({series}{window}) unless {series} offset {window_seconds}s) and ignoring (outcome) ({started})"
    return f"({new}) or increase({series}{window})"


def window_seconds(question: Question, now: datetime) -> int:
    """Return the seconds since the step began, as PromQL wants them."""
    return PROBE_SECONDS if question.since is None else max(1, math.ceil((now - question.since).total_seconds()))


def observation(question: Question, samples: object) -> Observation:
    """Return the numbers of an answer; raise PrometheusError if it is none."""
    found: dict[tuple[str, str], float] = {}
    try:
        for sample in samples:  # type: ignore[attr-defined]  # anything may have come
            labels, value = sample["metric"], float(sample["value"][1])
            if math.isfinite(value):
                found[labels[WHAT], labels["version"]] = value
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise PrometheusError("answered something that is not a vector of PromQL") from error
    return Observation(_numbers(found, question.candidate), _numbers(found, question.stable))


def _numbers(found: Mapping[tuple[str, str], float], version: int) -> Numbers:
    """Return the numbers of one version; without both series there are no requests, for no errors would be a guess."""
    text = str(version)
    answered, failed = found.get((ANSWERED, text)), found.get((FAILED, text))
    return Numbers(
        requests=None if answered is None or failed is None else answered + failed,
        errors=failed or 0.0,
        ttft_seconds=found.get((TTFT_SUM, text), 0.0),
        ttft_count=found.get((TTFT_COUNT, text), 0.0),
        abandoned=found.get((ABANDONED, text), 0.0),
    )


@dataclass
class _Asked:
    question: Question
    at: float
    answer: Observation | None = None
    task: asyncio.Task[None] | None = None


class Prometheus:
    """Asks in the background; see `PrometheusApi`."""

    def __init__(self, url: str, wake: WakeApi, clock: Clock, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """`wake` is called with the resource's key when an answer to one of its questions has come."""
        self._url = url.rstrip("/")
        self._wake = wake
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")  # its own: one that hangs takes nothing from others
        self._client: Any = None
        self._asked: dict[tuple[Key, str], _Asked] = {}

    def ask(self, key: Key, question: Question, pause_seconds: float) -> Observation | None:
        """Return the newest answer to this very question (None: none yet), and ask again unless that was less than the pause ago."""
        place, now = (key, question.alias), self._clock.monotonic()
        asked = self._asked.get(place)
        if asked is None or asked.question != question:
            self._drop(place)
            asked = self._asked[place] = _Asked(question, -math.inf)
        if asked.task is None and now - asked.at >= pause_seconds:
            asked.at = now
            asked.task = asyncio.create_task(self._follow(key, asked), name=f"prometheus of {key} {question.alias}")
        return asked.answer

    def forget(self, key: Key, but: Sequence[str] = ()) -> None:
        """Drop the resource's questions, but those of these aliases."""
        for place in [place for place in self._asked if place[0] == key and place[1] not in but]:
            self._drop(place)

    async def close(self) -> None:
        """End all asking."""
        tasks = [asked.task for asked in self._asked.values() if asked.task]
        for place in list(self._asked):
            self._drop(place)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _drop(self, place: tuple[Key, str]) -> None:
        asked = self._asked.pop(place, None)
        if asked and asked.task:
            asked.task.cancel()

    async def _follow(self, key: Key, asked: _Asked) -> None:
        answer = await self.observe(asked.question)
        if answer.problem and (asked.answer is None or not asked.answer.problem):
            logger.warning("%s: %s", key, answer.problem)
        asked.answer, asked.task = answer, None
        self._wake(key)

    async def observe(self, question: Question) -> Observation:
        """Ask once; what goes wrong is the observation's `problem`."""
        now = self._clock.now()
        query = promql(question, window_seconds(question, now))
        lasted = (now - question.since).total_seconds() if question.since else 0.0
        try:
            async with asyncio.timeout(self._timeout_seconds):  # the client's own limit is per read
                samples = await asyncio.get_running_loop().run_in_executor(self._threads, self._query, query)
            return replace(observation(question, samples), lasted_seconds=lasted)
        except TimeoutError:
            return Observation(problem=f"{self._name} did not answer within {self._timeout_seconds:g} s")
        except PrometheusError as error:
            return Observation(problem=f"{self._name} {error}")
        except Exception as error:
            logger.exception("asking %s failed", self._name)
            return Observation(problem=f"{self._name} could not be asked ({type(error).__name__})")

    @property
    def _name(self) -> str:
        address = urlsplit(self._url)
        return f"Prometheus at {address.hostname}{f':{address.port}' if address.port else ''}"  # never its credentials

    def _query(self, query: str) -> object:
        """Ask in a thread of its own. Imported here: an operator without canaries needs none of it."""
        from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
        from requests.exceptions import RequestException, Timeout
        from urllib3.util.retry import Retry

        try:
            if self._client is None:
                self._client = PrometheusConnect(url=self._url, retry=Retry(total=0, redirect=None), timeout=self._timeout_seconds)
            return self._client.custom_query(query)
        except Timeout as error:
            raise PrometheusError(f"did not answer within {self._timeout_seconds:g} s") from error
        except PrometheusApiClientException as error:
            raise PrometheusError(f"refused the query: {clip(str(error), 300)}") from error
        except (KeyError, TypeError, ValueError) as error:  # ValueError: not JSON
            raise PrometheusError("answered something that is not Prometheus' API; correct prometheus.url of the chart") from error
        except RequestException as error:
            raise PrometheusError(f"cannot be reached ({type(error).__name__})") from error
