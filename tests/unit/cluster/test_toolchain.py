"""Building the pinned tools, with a program in Go's place that does as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import toolchain
from tests.cluster.progress import ClusterError
from tests.cluster.toolchain import ALL_TOOLS, Go, Tool, build_tools, go_version_of

REPOSITORY = Path(__file__).parents[3]
FAKE_GO = """#!/bin/sh
# go build -trimpath -ldflags FLAGS -o FOLDER/ tool
[ "$1" = version ] && { echo "go version go1.26.9 linux/amd64"; exit 0; }
echo "$PWD" >>"$FAKE_GO_LOG"
[ -n "$FAKE_GO_FIFO" ] && read -r _ <"$FAKE_GO_FIFO"
[ -e fail ] && { echo "x.go:1: undefined: y"; exit 2; }
name=$(basename "$PWD")
echo built >"$6$name"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small tools, a fake Go and an empty cache; return the folder of the tools."""
    folder = tmp_path / "tools"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        (folder / name / "go.mod").write_text(f"module x\n\ntool example.org/{name}/cmd\n\nrequire example.org/{name} v1.2.3\n")
        (folder / name / "go.sum").write_text("")
    go = tmp_path / "go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_LOG", str(tmp_path / "calls"))
    monkeypatch.setattr(toolchain, "TOOLS", folder)
    monkeypatch.setattr(toolchain, "ALL_TOOLS", (Tool("one", ("one",), "1 s"), Tool("two", ("two",), "1 s", optional=True)))
    monkeypatch.setattr(toolchain, "need_go", lambda _: Go(str(go), "go1.26.9"))
    return folder


def _calls(tools: Path) -> int:
    log = tools.parent / "calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_what_is_built_is_not_built_again_and_optional_tools_only_when_named(tools: Path) -> None:
    said: list[str] = []
    together = build_tools(said.append)
    assert sorted(path.name for path in together.iterdir()) == ["one"]
    assert build_tools(said.append) == together
    assert _calls(tools) == 1
    assert said == ["one 1.2.3: building (1 s the first time)", "one 1.2.3: built"]
    assert build_tools(said.append, ["two"]) == together
    assert sorted(path.name for path in together.iterdir()) == ["one", "two"]
    assert not any(path.is_symlink() for path in together.iterdir())


def test_a_build_that_fails_says_what_the_compiler_said_and_leaves_nothing_half(tools: Path) -> None:
    (tools / "one" / "fail").touch()
    with pytest.raises(ClusterError, match=r"(?s)one 1\.2\.3.*ended with 2.*undefined: y"):
        build_tools(lambda _: None)
    assert not [path for path in (tools.parent / "cache" / "bin").iterdir() if path.is_dir()]
    (tools / "one" / "fail").unlink()
    assert (build_tools(lambda _: None) / "one").exists()


def test_a_build_that_makes_another_program_is_refused(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "ALL_TOOLS", (Tool("one", ("one", "three"), "1 s"),))
    with pytest.raises(ClusterError, match="made no three"):
        build_tools(lambda _: None)


def test_a_tool_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ClusterError, match="'three' is not known; the tools are: kubernetes, helm"):
        toolchain.select(["three"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_leaves_nothing_that_passes_for_a_result(tools: Path, number: signal.Signals) -> None:
    fifo = tools.parent / "fifo"
    os.mkfifo(fifo)
    script = (
        "from pathlib import Path; from tests.cluster import toolchain as t\n"
        f"t.TOOLS = Path({str(tools)!r}); t.ALL_TOOLS = (t.Tool('one', ('one',), '1 s'),)\n"
        f"t.need_go = lambda _: t.Go({str(tools.parent / 'go')!r}, 'go1.26.9')\n"
        "t.build_tools(lambda _: None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, env={**os.environ, "FAKE_GO_FIFO": str(fifo)}, stderr=subprocess.DEVNULL
    )
    with fifo.open("w") as gate:  # opens when the build reads: it is in its middle now
        process.send_signal(number)
        process.wait(20)
        if number == signal.SIGKILL:  # the compiler outlives its parent; by any other signal it has been ended
            gate.write("go on\n")
    found = [path.name for path in (tools.parent / "cache" / "bin").iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert found == []
    assert (build_tools(lambda _: None) / "one").read_text() == "built\n"


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.9 linux/amd64", (1, 9)), ("command not found", None), ("", None)],
)
def test_the_version_of_go_is_read_as_numbers(text: str, version: tuple[int, int] | None) -> None:
    assert go_version_of(text) == version


def test_every_tool_has_a_pinned_module_and_a_version() -> None:
    for tool in ALL_TOOLS:
        assert (tool.folder / "go.sum").read_text()
        assert tool.version().startswith("v"), tool.name


def test_the_version_that_kubernetes_says_is_the_one_that_is_built() -> None:
    kubernetes = next(tool for tool in ALL_TOOLS if tool.name == "kubernetes")
    stamps = {name.rpartition(".")[2]: value for name, value in kubernetes.stamps}
    major, minor, _ = kubernetes.version().removeprefix("v").split(".")
    assert stamps == {"gitVersion": kubernetes.version(), "gitMajor": major, "gitMinor": minor}
