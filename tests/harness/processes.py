"""Processes of pods as the host sees them, so that tests can end exactly one of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def of_pod(uid: str, needle: str) -> list[int]:
    """Return the process ids of a pod whose command line contains `needle`, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            groups = (entry / "cgroup").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if (uid in groups or uid.replace("-", "_") in groups) and needle in command:
            found.append(int(entry.name))
    return sorted(found)


def kill(uid: str, needle: str) -> list[int]:
    """End the oldest process of a pod that matches with SIGKILL, and return what was ended."""
    matching = of_pod(uid, needle)[:1]
    if not matching:
        raise AssertionError(f"pod {uid} has no process {needle!r}")
    for pid in matching:
        os.kill(pid, signal.SIGKILL)
    return matching
