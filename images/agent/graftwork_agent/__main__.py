"""`python3 -m graftwork_agent install|download|serve`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Each imports only what it needs, so that init containers start fast."""
    parser = argparse.ArgumentParser(
        prog="graftwork-agent", description="Prepares a serving pod and keeps its engine's adapters as the operator wants them."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("install", help="copy guard and entrypoint into the pod and make its token")
    put.add_argument("--to", type=Path, required=True)
    put.add_argument("--run-dir", type=Path, required=True)
    get = commands.add_parser("download", help="fill a folder from s3://")
    get.add_argument("--source", required=True)
    get.add_argument("--to", type=Path, required=True)
    serving = commands.add_parser("serve", help="the sidecar")
    serving.add_argument("--supervised", action="store_true", help="the agent itself; without it, the process that keeps it running")
    given = parser.parse_args(arguments)
    if given.command == "install":
        from graftwork_agent.install import InstallError, install

        try:
            install(given.to, given.run_dir)
        except (InstallError, OSError) as error:
            print(f"install: {error}", file=sys.stderr)
            return 70
        return 0
    if given.command == "download":
        from graftwork_agent.downloading import run

        return run(given.source, given.to)
    if not given.supervised:
        from graftwork_agent.supervisor import main as supervise

        return supervise()
    from graftwork_agent.serving import main as serve

    serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
