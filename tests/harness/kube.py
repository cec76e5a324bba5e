"""A thin client over kubectl: JSON in and out, and waiting on the watch stream instead of sleeping."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = dict[str, Any]


class KubectlError(RuntimeError):
    """kubectl ended with an error; the message is its standard error."""


class WaitTimeoutError(AssertionError):
    """The awaited state was not seen in time; the message shows the last state that was."""


@dataclass(frozen=True)
class Kube:
    """kubectl bound to one cluster and one namespace."""

    kubectl: str
    kubeconfig: Path
    namespace: str = "default"

    def within(self, namespace: str) -> Kube:
        """Return the same client for another namespace."""
        return Kube(self.kubectl, self.kubeconfig, namespace)

    def command(self, *args: str) -> list[str]:
        """Return the full command line of a kubectl call."""
        return [self.kubectl, f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *args]

    def run(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run kubectl and return its standard output; raise KubectlError when it fails."""
        done = subprocess.run(self.command(*args), input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Object) -> None:
        """Create or update objects the way a user's `kubectl apply` does."""
        self.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def apply_file(self, path: Path) -> str:
        """Apply a file and return what kubectl printed."""
        return self.run("apply", "-f", str(path))

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None when it does not exist."""
        done = subprocess.run(
            self.command("get", kind, name, "-o", "json", "--ignore-not-found"), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip())
        return json.loads(done.stdout) if done.stdout.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind in the namespace."""
        extra = ("-l", selector) if selector else ()
        items: list[Object] = json.loads(self.run("get", kind, "-o", "json", *extra))["items"]
        return items

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], *extra: str) -> None:
        """Merge-patch an object."""
        self.run("patch", kind, name, "--type=merge", "-p", json.dumps(patch), *extra)

    def delete(self, kind: str, *names: str, timeout: float = 180) -> None:
        """Delete objects and wait until they are gone; absent ones are fine."""
        self.run("delete", kind, *names, "--ignore-not-found", f"--timeout={int(timeout)}s", timeout=timeout + 10)

    def watch(self, kind: str, name: str = "", selector: str = "", deadline: float | None = None) -> Iterator[tuple[str, Object]]:
        """Yield (event type, object) from the watch stream, beginning with what is there, until `deadline` (time.monotonic).

        One object is chosen by its field: asked for it by name, kubectl reads it, watches from "any version" and leaves out the first event, and with
        it a change that came in between.
        """
        chosen = (f"--field-selector=metadata.name={name}",) if name else ()
        args = ["get", kind, *chosen, *(("-l", selector) if selector else ()), "--watch", "--output-watch-events", "-o", "json"]
        process = subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), process.kill) if deadline is not None else None
        if timer:
            timer.start()
        try:
            yield from _documents(process)
        finally:
            if timer:
                timer.cancel()
            process.kill()
            process.wait()

    def wait(self, kind: str, name: str, until: Callable[[Object], Any], timeout: float, what: str = "") -> Object:
        """Return the object as soon as `until` is true of it; a watch that ends early (API server restart) is opened again."""
        deadline = time.monotonic() + timeout
        last: Object | None = None
        while time.monotonic() < deadline:
            for event, item in self.watch(kind, name, deadline=deadline):
                if event == "DELETED":
                    last = None
                    continue
                last = item
                if until(item):
                    return item
            if deadline - time.monotonic() > 0.2:
                threading.Event().wait(0.2)  # not found yet, or the stream was cut: kubectl returned at once
        shown = json.dumps((last or {}).get("status"), indent=1)[:3000] if last else "it does not exist"
        raise WaitTimeoutError(f"{kind}/{name} in {self.namespace}: not {what or 'as expected'} after {timeout:.0f} s; last status: {shown}")

    def wait_condition(self, kind: str, name: str, condition: str, status: str = "True", timeout: float = 240) -> Object:
        """Wait until a condition of the object's current generation has the status."""
        return self.wait(kind, name, lambda item: condition_is(item, condition, status), timeout, f"{condition}={status}")

    def wait_gone(self, kind: str, selector: str = "", timeout: float = 180) -> None:
        """Wait until no object of the kind (with the labels) is left."""
        if self.list(kind, selector):
            extra = ("-l", selector) if selector else ("--all",)
            self.run("wait", kind, *extra, "--for=delete", f"--timeout={int(timeout)}s", timeout=timeout + 10)

    def logs(self, pod: str, container: str = "", tail: int = 50) -> str:
        """Return the last lines of a container, or the reason why there are none."""
        try:
            return self.run("logs", pod, *(("-c", container) if container else ()), f"--tail={tail}")
        except KubectlError as error:
            return str(error)


def _documents(process: subprocess.Popen[str]) -> Iterator[tuple[str, Object]]:
    """Read kubectl's watch events: one JSON document per line."""
    assert process.stdout
    for line in process.stdout:
        document = json.loads(line)
        found = document["object"]
        for item in found["items"] if str(found.get("kind", "")).endswith("List") else [found]:  # of Events it prints what is there as lists
            yield document["type"], item


def condition(item: Object, name: str) -> Object:
    """Return a condition of an object, {} when it has none of that type."""
    return next((c for c in item.get("status", {}).get("conditions", []) if c["type"] == name), {})


def condition_is(item: Object, name: str, status: str) -> bool:
    """Say whether a condition has a status and speaks of the object's current generation."""
    found = condition(item, name)
    return found.get("status") == status and found.get("observedGeneration", item["metadata"]["generation"]) == item["metadata"]["generation"]


def environment_kubeconfig(kubeconfig: Path) -> dict[str, str]:
    """Return the process environment with KUBECONFIG set, for programs such as helm."""
    return {**os.environ, "KUBECONFIG": str(kubeconfig)}
