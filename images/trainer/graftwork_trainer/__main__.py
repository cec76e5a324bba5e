"""The command line: `graftwork-trainer` does a run; `tiny-model` and `put` help examples and tests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graftwork_store.errors import StoreError

from graftwork_trainer import __version__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graftwork-trainer", description="Without a command: do the run that GRAFTWORK_RUN describes.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command")
    tiny = commands.add_parser("tiny-model", help="make a tiny Qwen3 with random weights")
    tiny.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    tiny.add_argument("--seed", type=int, default=0, help="another seed gives other weights (default 0)")
    tiny.add_argument("--upload", default="", metavar="s3://BUCKET/PREFIX", help="also put it there; the bucket is made if it does not exist")
    put = commands.add_parser("put", help="put a file into a bucket, which is made if it does not exist")
    put.add_argument("file", type=Path)
    put.add_argument("url", metavar="s3://BUCKET/KEY")
    return parser


def main() -> int:
    """Do what the command line says; a run ends the process itself."""
    arguments = _parser().parse_args()
    if arguments.command is None:
        from graftwork_trainer import main as run

        run.main()
    try:
        if arguments.command == "put":
            from graftwork_trainer import objects

            objects.put_file(arguments.file, arguments.url)
        else:
            _tiny_model(arguments)
    except StoreError as error:
        print(f"graftwork-trainer: {error.message}", file=sys.stderr)
        return 1
    return 0


def _tiny_model(arguments: argparse.Namespace) -> None:
    from graftwork_trainer import process, tiny_model

    process.prepare_environment(arguments.to.parent)
    tiny_model.make(arguments.to, arguments.seed)
    if arguments.upload:
        from graftwork_trainer import objects

        objects.put_folder(arguments.to, arguments.upload)


if __name__ == "__main__":
    sys.exit(main())
