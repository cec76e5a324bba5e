"""What `up` does after an earlier one that ended well, badly or in the middle; the real parts are replaced by a list of what was called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import lifecycle, network
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace starting and ending by notes."""
    calls: list[str] = []

    def start(layout: Layout, *_: object) -> None:
        calls.append("start")
        lifecycle._enter(layout, "up")

    def end(layout: Layout, *_: object) -> None:
        calls.append("end")
        layout.phase.unlink(missing_ok=True)

    monkeypatch.setattr(lifecycle, "_up", start)
    monkeypatch.setattr(lifecycle, "_down", end)
    monkeypatch.setattr(network, "require_free", lambda: None)
    return calls


def _up(root: Path) -> bool:
    return lifecycle.up(Layout(root), Path("/bin"), lambda _: None)


def test_a_second_up_does_nothing(tmp_path: Path, called: list[str]) -> None:
    assert _up(tmp_path) is True
    assert _up(tmp_path) is False
    assert called == ["start"]


@pytest.mark.parametrize("left", ["starting", "stopping"])
def test_what_was_killed_in_its_middle_is_cleaned_up_first(tmp_path: Path, called: list[str], left: str) -> None:
    lifecycle._enter(Layout(tmp_path), left)
    assert _up(tmp_path) is True
    assert called == ["end", "start"]


def test_a_cluster_from_before_a_restart_of_the_machine_is_not_up(tmp_path: Path, called: list[str]) -> None:
    layout = Layout(tmp_path)
    layout.phase.write_text("up another-boot\n")
    assert lifecycle.phase(layout) == "stopping"
    assert _up(tmp_path) is True
    assert called == ["end", "start"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ClusterError, OSError])
def test_a_start_that_is_interrupted_or_fails_cleans_up_and_says_so(
    tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch, problem: type[BaseException]
) -> None:
    def start(layout: Layout, *_: object) -> None:
        lifecycle._enter(layout, "starting")
        raise problem

    monkeypatch.setattr(lifecycle, "_up", start)
    with pytest.raises(problem):
        _up(tmp_path)
    assert called == ["end"]
    assert lifecycle.phase(Layout(tmp_path)) == "down"


def test_nothing_is_touched_where_the_network_is_not_free(tmp_path: Path, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> None:
        raise ClusterError("not free")

    monkeypatch.setattr(network, "require_free", taken)
    with pytest.raises(ClusterError, match="not free"):
        _up(tmp_path)
    assert called == []
