"""The process around a run: its environment, its signals and its memory. Nothing heavy is imported here."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import socket
import sys
import threading
from pathlib import Path

from graftwork_trainer.errors import EXIT_TERMINATED


def prepare_environment(scratch: Path) -> None:
    """Set what the libraries read when they are imported: no network, caches in `scratch`, as many threads as the pod may use."""
    caches = scratch / "cache"
    caches.mkdir(parents=True, exist_ok=True)
    settings = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(caches),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TMPDIR": str(caches),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(usable_cpus()),
        # Threads that spin at barriers make training on a busy node six times slower (measured: 38 s and 20 s against 6 s and 5 s).
        "OMP_WAIT_POLICY": "PASSIVE",
        "LOGNAME": "graftwork",  # torch asks for a user's name, which a random uid does not have
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # It says on some CPUs that it would like to download a faster kernel.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def usable_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: its affinity, and the quota of its cgroup (version 2 or 1), whichever is less.

    Without the quota every library starts a thread per CPU of the node, and the kernel then throttles all of them.
    """
    allowed = len(os.sched_getaffinity(0))
    for quota_file, period_file in ((root / "cpu.max", None), (root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us")):
        try:
            fields = quota_file.read_text().split() + (period_file.read_text().split() if period_file else [])
            quota, period = int(fields[0]), int(fields[1])
        except (OSError, ValueError, IndexError):
            continue  # absent, or "max": no quota
        if quota > 0 and period > 0:
            return max(1, min(allowed, math.ceil(quota / period)))
    return allowed


def exit_promptly_on_sigterm() -> None:
    """End the process with 143 as soon as SIGTERM arrives.

    A Python handler alone waits for the main thread to come back from torch, which can take a whole step; as process 1 of a container the
    default action would not even exist. An interrupted publish is invisible, so nothing has to be tidied up.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def wait() -> None:
        while data := reader.recv(1):
            if data[0] == signal.SIGTERM:
                print("terminated by SIGTERM", file=sys.stderr, flush=True)
                os._exit(EXIT_TERMINATED)
        writer.close()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def peak_memory_bytes() -> int:
    """Return the most memory the run held: the GPU's where there is one, else the process's resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
