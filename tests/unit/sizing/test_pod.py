from __future__ import annotations

import pytest
from graftwork.sizing import pod
from graftwork.sizing.memory import GIB, MIB
from graftwork.sizing.pod import Adapters, Need


@pytest.mark.parametrize(
    ("need", "cpu", "request_bytes", "limit", "shm"),
    [
        # 4 + 1 x (2 + 8 x 100/1024); 2 x (4 + 2) + 256 x 100/1024 + 15 + 2
        (pod.gpu_engine(1, 15 * GIB, Adapters(8, 256, 100 * MIB)), 3000, 6 * GIB + 800 * MIB, 12 * GIB + 25_600 * MIB + 17 * GIB, 2 * GIB),
        # a node need not promise room for 64: 4 + 2 x (2 + 8 x 100/1024); 2 x (4 + 4) + 2 x 256 x 100/1024 + 15 + 3
        (pod.gpu_engine(2, 15 * GIB, Adapters(64, 256, 100 * MIB)), 4000, 8 * GIB + 1600 * MIB, 16 * GIB + 51_200 * MIB + 18 * GIB, 3 * GIB),
        # 4 + 8 x 2; 2 x 20 + 640 + 9
        (pod.gpu_engine(8, 640 * GIB, Adapters()), 10_000, 20 * GIB, 40 * GIB + 640 * GIB + 9 * GIB, 9 * GIB),
        (pod.gpu_engine(8, 640 * GIB, Adapters(8, 256, None)), 10_000, 20 * GIB, None, 9 * GIB),
        (pod.gpu_engine(1, 15 * GIB, Adapters(), limited=False), 3000, 6 * GIB, None, 2 * GIB),
        # 2.5 + 0 + 1; 2 x 3.5 + 1
        (pod.cpu_engine(600, GIB, Adapters()), 500, 3584 * MIB + 600, 2 * (3584 * MIB + 600) + GIB, GIB),
        # 2.5 + 1.4 + 4 + 2 x 8 x 34 MiB; 2 x (2.5 + 1.4 + 4) + (8 + 256) x 34 MiB + 1
        (
            pod.cpu_engine(1400 * MIB, 4 * GIB, Adapters(8, 256, 34 * MIB)),
            500,
            (2560 + 1400 + 4096 + 544) * MIB,
            2 * (2560 + 1400 + 4096) * MIB + 264 * 34 * MIB + GIB,
            GIB,
        ),
        # 2.5 + 14 + 4 x 16 + 3; each rank has its own KV space
        (pod.cpu_engine(14 * GIB, 16 * GIB, Adapters(), ranks=4), 500, 83 * GIB + 512 * MIB, 2 * (83 * GIB + 512 * MIB) + GIB, GIB),
    ],
)
def test_need(need: Need, cpu: int, request_bytes: int, limit: int | None, shm: int) -> None:
    assert (need.millicores, need.request_bytes, need.limit_bytes, need.shm_bytes) == (cpu, request_bytes, limit, shm)


@pytest.mark.parametrize(("files", "size"), [(0, 256 * MIB), (10 * GIB, 11 * GIB + 256 * MIB), (700, 770 + 256 * MIB)])
def test_room_on_the_disk(files: int, size: int) -> None:
    assert pod.disk_bytes(files) == size


@pytest.mark.parametrize(("size", "text"), [(1, "1Mi"), (GIB, "1Gi"), (GIB + 1, "1025Mi"), (1536 * MIB, "1536Mi"), (700 * GIB, "700Gi")])
def test_quantities_are_written_as_the_api_server_writes_them(size: int, text: str) -> None:
    assert pod.memory_quantity(size) == text


@pytest.mark.parametrize(("cores", "text"), [(500, "500m"), (3000, "3"), (2500, "2500m")])
def test_cpu_quantities(cores: int, text: str) -> None:
    assert pod.cpu_quantity(cores) == text
