"""Only processes that the cluster started are ended, and all of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.layout import Layout
from tests.cluster.processes import Component
from tests.cluster.progress import ClusterError

SLEEP = Component("sleeper", ["sleep", "600"], {})


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path)
    yield layout
    processes.stop_pids(layout, processes.all_ours(layout))


def test_a_component_is_started_found_stopped_and_started_again(layout: Layout) -> None:
    pid = processes.start(layout, SLEEP)
    assert processes.pid_of(layout, "sleeper") == pid
    assert processes.all_ours(layout) == {pid: "sleeper"}
    processes.stop(layout, "sleeper")
    assert processes.pid_of(layout, "sleeper") is None
    assert processes.known(layout) == ["sleeper"]
    again = processes.start_again(layout, "sleeper")
    assert again != pid
    assert processes.start_again(layout, "sleeper") == again


def test_a_process_is_found_though_its_number_was_never_written_down(layout: Layout) -> None:
    pid = processes.start(layout, SLEEP)
    processes.forget(layout)
    assert processes.pid_of(layout, "sleeper") is None
    assert processes.all_ours(layout) == {pid: "sleeper"}


def test_a_stranger_that_got_the_number_is_not_ended(layout: Layout) -> None:
    pid = processes.start(layout, SLEEP)
    processes.stop(layout, "sleeper")
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        record = layout.components / "sleeper.json"
        record.write_text(record.read_text().replace(f'"pid": {pid}', f'"pid": {stranger.pid}'))
        processes.stop(layout, "sleeper")
        processes.stop_pids(layout, [stranger.pid])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_of_another_cluster_is_not_ours(layout: Layout, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    other.root.mkdir()
    pid = processes.start(other, SLEEP)
    try:
        assert not processes.is_ours(pid, layout)
        assert processes.is_ours(pid, other)
    finally:
        processes.stop(other, "sleeper")


def test_a_process_that_ignores_the_polite_signal_is_ended_all_the_same(layout: Layout) -> None:
    fifo = layout.root / "ready"
    os.mkfifo(fifo)
    pid = processes.start(layout, Component("stubborn", ["sh", "-c", f"trap '' TERM; echo >{fifo}; exec sleep 600"], {}))
    fifo.read_text()  # returns when the trap is set
    processes.stop(layout, "stubborn", seconds=0.2)
    assert processes.start_time(pid) is None


def test_a_program_that_is_not_there_and_a_component_that_is_not_known_are_named(layout: Layout) -> None:
    with pytest.raises(ClusterError, match="ghost: /no/such/program cannot be started"):
        processes.start(layout, Component("ghost", ["/no/such/program"], {}))
    with pytest.raises(ClusterError, match="'ghost' is not known; known are: none"):
        processes.start_again(layout, "ghost")
