"""`python3 -m graftwork_agent install|download|inspect|fill|import|sweep|serve`."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own is not imported: see main
if TYPE_CHECKING:
    import argparse


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Each imports only what it needs, so that init containers start fast."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["serve"]:  # lives as long as the pod: not a megabyte for a parser that it does not need
        from graftwork_agent.supervisor import main as supervise

        return supervise()
    given = _parser().parse_args(arguments)
    commands = {
        "install": _install,
        "download": _download,
        "inspect": _inspect,
        "fill": _fill,
        "import": _import,
        "sweep": _sweep,
        "serve": _serve,
    }
    return commands[given.command](given)


def _parser() -> argparse.ArgumentParser:
    import argparse
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="graftwork-agent", description="Prepares a serving pod and keeps its engine's adapters as the operator wants them."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("install", help="copy guard and entrypoint into the pod and make its token")
    put.add_argument("--to", type=Path, required=True)
    put.add_argument("--run-dir", type=Path, required=True)
    get = commands.add_parser("download", help="fill a folder from a source")
    get.add_argument("--source", required=True)
    get.add_argument("--to", type=Path, required=True)
    get.add_argument("--kind", choices=("model", "adapter"), default="model", help="a model or data set, or an adapter")
    get.add_argument("--facts", type=Path, help="where to write what an adapter's source was resolved to")
    get.add_argument("--digest", default="", help="sha256:<64 hex> of the listing that was inspected; another listing is refused")
    look = commands.add_parser("inspect", help="say what a model is, from its listing and the headers of its files")
    look.add_argument("--source", required=True)
    commands.add_parser("fill", help="bring a model into a cache's claim")
    commands.add_parser("import", help="verify a downloaded adapter and publish it to the store")
    clean = commands.add_parser("sweep", help="remove from the store what nobody references")
    clean.add_argument("--instructions", type=Path, required=True)
    serving = commands.add_parser("serve", help="the sidecar")
    serving.add_argument("--supervised", action="store_true", required=True, help="the agent itself; without it, the process that keeps it running")
    return parser


def _install(given: argparse.Namespace) -> int:
    from graftwork_agent.install import InstallError, install

    try:
        install(given.to, given.run_dir)
    except (InstallError, OSError) as error:
        print(f"install: {error}", file=sys.stderr)
        return 70
    return 0


def _download(given: argparse.Namespace) -> int:
    from graftwork_agent.downloading import run, run_adapter

    return run_adapter(given.source, given.to, given.facts) if given.kind == "adapter" else run(given.source, given.to, given.digest)


def _inspect(given: argparse.Namespace) -> int:
    from graftwork_agent.inspecting import run

    return run(given.source)


def _fill(given: argparse.Namespace) -> int:
    del given
    from graftwork_agent.filling import main as fill

    return fill()


def _import(given: argparse.Namespace) -> int:
    del given
    from graftwork_agent.importing import run

    return run()


def _sweep(given: argparse.Namespace) -> int:
    from graftwork_agent.sweep import run

    return run(given.instructions)


def _serve(given: argparse.Namespace) -> int:
    del given
    from graftwork_agent.serving import main as serve

    serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
