"""Runs the machine's own programs (ip, iptables, ctr) and says clearly which one failed and how."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tests.cluster.progress import ClusterError


def run(command: Sequence[str], given: str | None = None, check: bool = True) -> str:
    """Run a program to its end and return what it printed; raise ClusterError if it fails and `check` is set."""
    try:
        done = subprocess.run(list(command), input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]}: not found; `python3 -m tests.cluster preflight` says which package holds it") from error
    if check and done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)[:300]}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def succeeds(command: Sequence[str], given: str | None = None) -> bool:
    """Tell whether a program ends with 0."""
    try:
        return subprocess.run(list(command), input=given, capture_output=True, text=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
