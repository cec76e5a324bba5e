"""Command line: `python3 -m tests.cluster COMMAND`, from the root of the repository."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import images_load, kind, leftovers, lifecycle, packages, preflight, status, toolchain
from tests.cluster.layout import Layout
from tests.cluster.progress import ClusterError, Progress


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python3 -m tests.cluster", description="A real two-node Kubernetes cluster on this machine, without Docker.")
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def provider(command: argparse.ArgumentParser) -> None:
        text = "embedded (default); kind: by a Docker engine, UNTESTED; auto: kind where `docker info` answers"
        command.add_argument("--provider", choices=("embedded", "kind", "auto"), default="embedded", help=text)

    up = sub.add_parser("up", help="start the cluster, building what is not built yet; harmless if it is up")
    up.add_argument("--helper-image", help="image with /bin/sh that makes volume folders; it must be on both nodes (default: one made from busybox)")
    provider(up)
    down = sub.add_parser("down", help="end the cluster; imported images and logs stay")
    down.add_argument("--purge", action="store_true", help="remove images and logs too")
    provider(down)
    sub.add_parser("status", help="components, nodes, pods that are not fine, disk")
    sub.add_parser("preflight", help="what this machine has, what is missing, what to type")
    build = sub.add_parser("build", help="build the pinned tools into the cache and print their folder")
    build.add_argument(
        "tool", nargs="*", help=f"default: all but kind and prometheus; one of: {', '.join(tool.name for tool in toolchain.ALL_TOOLS)}"
    )
    sub.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    load = sub.add_parser("load", help="import OCI archives into both nodes; an image that is there is skipped")
    load.add_argument("archive", nargs="+", type=Path)
    provider(load)
    for name, text in (("stop", "stop components, e.g. apiserver or kubelet-b"), ("start", "start stopped components and wait until they work")):
        sub.add_parser(name, help=text).add_argument("component", nargs="+")
    left = sub.add_parser("leftovers", help="save what is on the machine before `up`, or compare with it after `down`")
    left.add_argument("action", choices=("save", "compare"))
    left.add_argument("file", type=Path)
    return top


def _by_kind(arguments: argparse.Namespace) -> bool:
    if arguments.provider == "kind":
        kind.require_engine()
        return True
    return arguments.provider == "auto" and kind.engine_answers()


def _up(arguments: argparse.Namespace, layout: Layout, say: Progress) -> None:
    if _by_kind(arguments):
        kind.up(layout, toolchain.build_tools(say, ["kubernetes", "helm", "kind"]), say)
        print(f"export KUBECONFIG={kind.kubeconfig(layout)}")
        return
    preflight.require()
    packages.ensure(say)
    binaries = toolchain.build_tools(say)
    if lifecycle.up(layout, binaries, say, arguments.helper_image):
        say("the cluster is up")
    print(f"export KUBECONFIG={layout.kubeconfig}\nexport PATH={binaries}:$PATH")


def _down(arguments: argparse.Namespace, layout: Layout, say: Progress) -> None:
    if _by_kind(arguments):
        kind.down(layout, toolchain.build_tools(say, ["kind"]), say)
    else:
        lifecycle.down(layout, say, arguments.purge)


def _load(arguments: argparse.Namespace, say: Progress) -> None:
    if _by_kind(arguments):
        lines = kind.load(toolchain.build_tools(say, ["kind"]), arguments.archive)
    else:
        lines = []
        for archive in arguments.archive:
            references = images_load.references_in(archive)
            if not references:
                raise ClusterError(f"{archive}: carries no image name; write it with a name (buildah push IMAGE oci-archive:FILE:NAME:TAG)")
            for reference in references:
                lines += images_load.load_image(archive, reference)
    for line in lines:
        say(line)


def _leftovers(arguments: argparse.Namespace, layout: Layout) -> int:
    if arguments.action == "save":
        leftovers.save(arguments.file, layout)
        return 0
    lines = leftovers.leftovers(leftovers.load(arguments.file), layout)
    print("\n".join(lines) or "nothing is left behind")
    return 1 if lines else 0


def run(arguments: argparse.Namespace, layout: Layout, say: Progress) -> int:
    """Carry out one command; return the exit status."""
    match arguments.command:
        case "up":
            _up(arguments, layout, say)
        case "down":
            _down(arguments, layout, say)
        case "status":
            print(status.report(layout))
            return 0 if lifecycle.phase(layout) == "up" else 3
        case "preflight":
            rows = preflight.check()
            print(preflight.render(rows))
            return 1 if any(row.state == preflight.MISSING for row in rows) else 0
        case "build":
            print(toolchain.build_tools(say, arguments.tool or None))
        case "kubeconfig":
            print(layout.kubeconfig)
        case "load":
            _load(arguments, say)
        case "stop":
            for name in arguments.component:
                lifecycle.stop_component(name, layout)
        case "start":
            for name in arguments.component:
                lifecycle.start_component(name, layout)
        case "leftovers":
            return _leftovers(arguments, layout)
    return 0


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors that a person can mend are said without a traceback."""
    arguments = parser().parse_args(argv)
    # A stopped CI job sends SIGTERM: cleaned up after like Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(arguments, Layout.default(), Progress())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
