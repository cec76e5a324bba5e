"""What the container `vllm` asks of its node: CPU, memory, /dev/shm and disk.

GPU engine (G GPUs, each with a worker process):

    cpu               2 (API server, EngineCore) + G (a worker's loop never sleeps)
    memory, request   4 GiB (API server, EngineCore) + G x (2 GiB + adapters)
    memory, limit     2 x (4 GiB + G x 2 GiB) + G x kept adapters + weights + shm
    shm               2 GiB + (G - 1) GiB

CPU engine:

    cpu               500m: what it may count on; it takes all that is free
    memory, request   2.5 GiB (its three processes) + weights + R x (KV space + 2 x adapters) + (R - 1) GiB
    memory, limit     2 x (request without adapters) + R x (adapters + kept adapters) + shm
    shm               1 GiB

R is the number of ranks (tensor x pipeline): each has a KV space of its own. `adapters` is maxLoaded, of which at most 8 are asked for, x what one of
maxRank weighs: each worker keeps what it has loaded in host memory. On CPUs the slots are host memory, too: twice. vLLM keeps more of them than have
a slot (--max-cpu-loras: `kept adapters`), because it forgets only the name of what is unloaded; a node need not promise room for them, and the limit
must not be in their way. Where it is not known what an adapter weighs there is no limit.

Where the numbers are from. 2.5 GiB: engines of the test cluster with vLLM 0.32.0 for CPU and a model of 3 million parameters have 1.8 to 2.9 GB
resident, 2.4 GiB mostly, of which their weights are nothing and their KV space is touched only as it fills. /dev/shm: a message queue from EngineCore
to the workers (10 chunks of 16 MiB, VLLM_MQ_MAX_CHUNK_BYTES_MB) and one back from each (10 of 24 MiB), beside NCCL's and PyTorch's; 2 GiB is what
vLLM's own example for Kubernetes gives it. 4 and 2 GiB for GPU engines are set, not measured: no GPU was at hand. That is why the limit is twice
as much; weights are in it because a loader may hold them in host memory for a while. They are in no request: files are read through the page cache,
which gives way. /dev/shm is memory of the pod, and counts against the limit. There is no CPU limit: it would slow down what has free cores beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from graftwork.sizing.memory import GIB, MIB

SERVER_BYTES, WORKER_BYTES, CPU_ENGINE_BYTES, RANK_BYTES = 4 * GIB, 2 * GIB, 5 * GIB // 2, GIB
GPU_SHM_BYTES, CPU_SHM_BYTES, MORE_SHM_BYTES = 2 * GIB, GIB, GIB
SERVER_MILLICORES, WORKER_MILLICORES, CPU_MILLICORES = 2000, 1000, 500
ASKED_ADAPTERS = 8
"""Of so many adapters a node has to promise the room: more than that may never come, and would keep the pod from nodes that fit."""
DISK_TENTHS, DISK_SLACK_BYTES = 11, 256 * MIB
"""Beside the files of a model: what file systems need, and what is written while a download goes on."""


@dataclass(frozen=True)
class Need:
    """What is asked of the node. `limit_bytes` None: no limit, because what the engine does with host memory is the user's to say."""

    millicores: int
    request_bytes: int
    limit_bytes: int | None
    shm_bytes: int
    how: str


@dataclass(frozen=True)
class Adapters:
    """The adapters of an engine: so many have a slot, so many are kept in host memory; `bytes` of one, None: not known."""

    slots: int = 0
    kept: int = 0
    bytes: int | None = 0

    @property
    def asked(self) -> int:
        """Bytes of those that a node has to have room for."""
        return min(self.slots, ASKED_ADAPTERS) * (self.bytes or 0)

    @property
    def known(self) -> bool:
        """Whether it is known what they weigh."""
        return self.bytes is not None or not self.slots

    @property
    def how(self) -> str:
        """What the request has of them, in words."""
        if not self.slots:
            return "no adapters"
        size = "what is not known" if self.bytes is None else _mib(self.bytes)
        return f"{min(self.slots, ASKED_ADAPTERS)} adapters x {size}"


def gpu_engine(gpus: int, weights_bytes: int, adapters: Adapters, *, limited: bool = True) -> Need:
    """Return the need of an engine with so many GPUs; `weights_bytes` of the whole model."""
    base = SERVER_BYTES + gpus * WORKER_BYTES
    shm = GPU_SHM_BYTES + (gpus - 1) * MORE_SHM_BYTES
    limit = 2 * base + gpus * adapters.kept * (adapters.bytes or 0) + weights_bytes + shm
    how = f"4 GiB + {gpus} GPU{'s' if gpus > 1 else ''} x (2 GiB + {adapters.how})"
    millicores = SERVER_MILLICORES + gpus * WORKER_MILLICORES
    return Need(millicores, base + gpus * adapters.asked, limit if limited and adapters.known else None, shm, how)


def cpu_engine(weights_bytes: int, kv_space_bytes: int, adapters: Adapters, *, ranks: int = 1, limited: bool = True) -> Need:
    """Return the need of an engine on CPUs; `kv_space_bytes` of each of its ranks."""
    base = CPU_ENGINE_BYTES + weights_bytes + ranks * kv_space_bytes + (ranks - 1) * RANK_BYTES
    limit = 2 * base + ranks * (adapters.slots + adapters.kept) * (adapters.bytes or 0) + CPU_SHM_BYTES
    each = f"KV space {_mib(kv_space_bytes)} + 2 x {adapters.how}"
    spread = each if ranks == 1 else f"{ranks} ranks x ({each}) + {ranks - 1} GiB"
    how = f"2.5 GiB + weights {_mib(weights_bytes)} + {spread}"
    request = base + 2 * ranks * adapters.asked
    return Need(CPU_MILLICORES, request, limit if limited and adapters.known else None, CPU_SHM_BYTES, how)


def disk_bytes(files_bytes: int) -> int:
    """Return the room for a model's files: a volume that is full ends its pod by name, where a full node would end others."""
    return -(-files_bytes * DISK_TENTHS // 10) + DISK_SLACK_BYTES


def _mib(size: int) -> str:
    return f"{ceil(size / MIB)} MiB"


def memory_quantity(size: int) -> str:
    """Return bytes as Kubernetes writes them, rounded up to a MiB."""
    mebibytes = ceil(size / MIB)
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"


def cpu_quantity(millicores: int) -> str:
    """Return a share of CPU as Kubernetes writes it."""
    return f"{millicores // 1000}" if millicores % 1000 == 0 else f"{millicores}m"
