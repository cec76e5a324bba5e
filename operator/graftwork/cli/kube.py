"""The user's kubectl: it knows kubeconfig, contexts and how to log in, and it acts with the user's rights, not the operator's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


class KubectlError(Exception):
    """kubectl ended with an error; the text is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the flags that the user gave: where, and in which namespace (empty: the context's)."""

    flags: tuple[str, ...] = ()
    program: str = "kubectl"

    @classmethod
    def of(cls, namespace: str, context: str, kubeconfig: str) -> Kubectl:
        """Return it with those of the flags that are not empty; `$KUBECTL` names another program than `kubectl`."""
        given = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
        return cls(tuple(f"--{name}={value}" for name, value in given.items() if value), os.environ.get("KUBECTL") or "kubectl")

    def get(self, kind: str, name: str) -> Object:
        """Read one object."""
        found: Object = json.loads(self._output("get", kind, name, "--output=json"))
        return found

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """Read one object; None if there is none. `namespace` is the object's own, and must agree with the user's flag if both are given."""
        flags = [f"--namespace={namespace}"] if namespace and not any(flag.startswith("--namespace=") for flag in self.flags) else []
        text = self._output("get", kind, name, "--output=json", "--ignore-not-found", *flags)
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, selector: str = "") -> Sequence[Object]:
        """Read all objects of the namespace with these labels."""
        found: Sequence[Object] = json.loads(self._output("get", kind, "--output=json", *([f"--selector={selector}"] if selector else [])))["items"]
        return found

    def passed_on(self, *arguments: str) -> int:
        """Run kubectl with its output going where ours goes; return its exit code."""
        return self._run(arguments, capture=False).returncode

    def _output(self, *arguments: str) -> str:
        done = self._run(arguments, capture=True)
        if done.returncode != 0:
            raise KubectlError((done.stderr or "").strip() or f"{self.program} ended with exit code {done.returncode}")
        return done.stdout

    def _run(self, arguments: Sequence[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([self.program, *arguments, *self.flags], capture_output=capture, text=True, check=False)
        except OSError as error:
            raise KubectlError(f"{self.program} cannot be run ({error.strerror}); install kubectl, or set KUBECTL to its path") from error
