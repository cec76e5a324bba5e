"""Which pods of a Service are ready, as its EndpointSlices say, from `with` to its end."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable

from tests.harness.kube import Kube, Object
from tests.harness.windows import Sample

FIRST_SECONDS = 20


class Ready:
    """A thread that reads a watch. Nothing is missed between two looks, and each change has its time."""

    def __init__(self, kube: Kube, service: str) -> None:
        self._command = kube.command(
            "get", "endpointslices", "-l", f"kubernetes.io/service-name={service}", "--watch", "--output-watch-events", "-o", "json"
        )
        self._slices: dict[str, frozenset[str]] = {}
        self._samples: list[Sample] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Ready:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread.start()
        self.wait(bool, FIRST_SECONDS, "a ready pod")
        return self

    def __exit__(self, *_: object) -> None:
        early = self._process.poll()
        self._process.kill()
        self._process.wait()
        self._thread.join(timeout=10)
        if early is not None:
            raise AssertionError(f"the watch of the endpoints ended early (exit code {early}): what it did not see is not known")

    @property
    def samples(self) -> list[Sample]:
        """What was seen so far."""
        with self._changed:
            return list(self._samples)

    def wait(self, until: Callable[[frozenset[str]], bool], timeout: float, what: str) -> None:
        """Return when the addresses of the ready pods are as wanted."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._samples) and until(self._samples[-1][1]), timeout):
                raise AssertionError(f"not seen within {timeout:.0f} s: {what}; ready are {self._samples[-1:]}")

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            with self._changed:
                if event["type"] == "DELETED":
                    self._slices.pop(name, None)
                else:
                    self._slices[name] = ready_of(event["object"])
                self._samples.append((time.monotonic(), frozenset[str]().union(*self._slices.values())))
                self._changed.notify_all()


def ready_of(item: Object) -> frozenset[str]:
    """Return the addresses of an EndpointSlice that get requests."""
    return frozenset(address for each in item.get("endpoints") or () if each["conditions"].get("ready") for address in each["addresses"])
