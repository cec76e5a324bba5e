"""What a person reads: preflight, status, progress."""

from __future__ import annotations

import io

import pytest

from tests.cluster import packages, preflight, toolchain
from tests.cluster.cli import parser
from tests.cluster.preflight import MISSING, NOTE, OK, Row, render
from tests.cluster.progress import Progress
from tests.cluster.status import pod_trouble


def test_preflight_says_what_is_missing_and_what_to_type_in_one_screen() -> None:
    text = render(
        [
            Row(OK, "root", "yes", "never shown"),
            Row(NOTE, "disk", "12 GiB free", "use a larger disk"),
            Row(MISSING, "memory", "4.0 GiB", "12 GiB are needed"),
        ]
    )
    assert text.splitlines() == [
        "  ok      root    yes",
        "  note    disk    12 GiB free",
        "                  -> use a larger disk",
        "  MISSING memory  4.0 GiB",
        "                  -> 12 GiB are needed",
        "Not ready: memory",
    ]


def test_preflight_is_ready_with_notes_only() -> None:
    assert render([Row(NOTE, "go", "none", "installed when needed")]).endswith("Ready. Type: make demo")


def test_preflight_of_this_machine_fits_a_screen_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "need_go", lambda _: pytest.fail("preflight must not install"))
    monkeypatch.setattr(packages, "ensure", lambda _: pytest.fail("preflight must not install"))
    text = render(preflight.check())
    assert len(text.splitlines()) <= 30
    for subject in ("root", "platform", "disk", "memory", "python3", "go", "packages", "cgroup", "network", "docker"):
        assert f" {subject} " in text


def test_memory_is_read_in_gib() -> None:
    assert preflight.memory_gib("MemTotal:       25165824 kB\nMemFree: 1 kB\n") == 24.0


def test_packages_are_looked_for_by_what_they_hold() -> None:
    assert packages.missing(lambda _: True) == []
    assert packages.missing(lambda name: name not in {"etcd", "/usr/lib/cni/ptp"}) == ["etcd-server"]
    assert packages.missing(lambda name: "cni" not in name) == ["containernetworking-plugins"]
    assert packages.command(["runc", "gcc"]) == "apt-get install -y --no-install-recommends runc gcc"


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        ({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}, ""),
        ({"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}, ""),
        ({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}, "Running not ready"),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull"}}}]}, "Pending ErrImageNeverPull"),
        ({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, "Pending CrashLoopBackOff"),
        ({"phase": "Failed"}, "Failed"),
    ],
)
def test_a_pod_that_is_not_fine_says_why(status: dict[str, object], trouble: str) -> None:
    assert pod_trouble({"metadata": {"name": "p"}, "status": status}) == trouble


def test_progress_is_one_plain_line_per_step() -> None:
    stream = io.StringIO()
    say = Progress(stream)
    say("kubernetes 1.34.4: building (about 5 min the first time)")
    assert stream.getvalue() == "[   0s] kubernetes 1.34.4: building (about 5 min the first time)\n"


def test_kind_is_marked_untested_wherever_it_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["up", "--help"])
    assert "UNTESTED" in capsys.readouterr().out
