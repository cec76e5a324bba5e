"""The container images: `python3 -m tests.cluster.images build [name...] | list | refs | lock | prune`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from tests.cluster.imagebuild.build import GIB, archive_path, build
from tests.cluster.imagebuild.graph import IMAGES, Graph, torch_arguments
from tests.cluster.imagebuild.lock import refresh
from tests.cluster.imagebuild.places import Places, default_places
from tests.cluster.imagebuild.prune import prune
from tests.cluster.progress import ClusterError, Progress


def default_graph(places: Places) -> Graph:
    """The graph of this checkout with what this machine adds: where torch comes from (`GRAFTWORK_TORCH_SOURCES` sets the order)."""
    return Graph(places.repository, {"torch": torch_arguments(places.wheels, os.environ.get("GRAFTWORK_TORCH_SOURCES", ""))})


def references(names: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Name -> `reference` (what pods name) and `archive` (what a node imports) of `names`, built or not; if none, of all but the optional images."""
    places = default_places()
    graph = default_graph(places)
    return {name: {"reference": graph.reference(name), "archive": str(archive_path(graph, places, name))} for name in graph.select(list(names))}


def _list() -> None:
    optional = [image.name for image in IMAGES if image.optional]
    for name, row in {**references(), **references(optional)}.items():
        exists = os.path.isfile(row["archive"])
        size = f"{os.path.getsize(row['archive']) / GIB:6.2f} GiB" if exists else "not built"
        print(f"{name:12} {size:>10}  {row['reference']}")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster.images", description="Builds the container images without a registry.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the images that do not exist yet")
    building.add_argument("name", nargs="*", help="images to build (all but the optional ones)")
    commands.add_parser("list", help="show images, sizes and references")
    refs = commands.add_parser("refs", help="print {name: {reference, archive}} as JSON")
    refs.add_argument("name", nargs="*", help="images to print (all but the optional ones)")
    lock = commands.add_parser("lock", help="refresh the images' requirement locks")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions that the inputs allow")
    commands.add_parser("prune", help="remove all but the newest 2 archives of each image")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error a person can mend is one message and exit code 1."""
    arguments = _arguments(argv)
    places = default_places()
    try:
        if arguments.command == "build":
            build(default_graph(places), places, Progress(), arguments.name)
        elif arguments.command == "list":
            _list()
        elif arguments.command == "refs":
            print(json.dumps(references(arguments.name), indent=2))
        elif arguments.command == "lock":
            refresh(places, arguments.upgrade)
        else:
            prune(default_graph(places), places, Progress())
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished stays, nothing half-made is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
