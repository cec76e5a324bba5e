"""`make engine-tables`: ask the pinned engine's image what it takes, and keep the answer as a file of the operator's package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster import images
from tests.cluster.cache import exclusive
from tests.cluster.imagebuild.build import archive_path, build
from tests.cluster.imagebuild.buildah import Buildah
from tests.cluster.imagebuild.places import REPOSITORY, default_places
from tests.cluster.imagebuild.processes import Processes
from tests.cluster.progress import ClusterError, Progress

IMAGE = "engine-cpu"
SCRIPT = REPOSITORY / "tests" / "e2e" / "engine_tables.py"
FOLDER = REPOSITORY / "operator" / "graftwork" / "engines"


def written(tables: dict[str, Any]) -> str:
    """Return the text of the file: one line per entry, so that a new engine's changes can be reviewed."""
    lines = []
    for key, value in tables.items():
        if isinstance(value, dict):
            entries = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{entries}\n }}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def asked() -> dict[str, Any]:
    """Return the tables that the image of this checkout prints; it is built, or taken from its archive, where it is not there."""
    places = default_places()
    graph = images.default_graph(places)
    build(graph, places, Progress(), [IMAGE])
    with exclusive(places.archives / ".lock"):
        places.work.mkdir(parents=True, exist_ok=True)
        buildah = Buildah(places.storage, places.work, Processes())
        reference = graph.reference(IMAGE)
        if not buildah.has(reference):
            buildah.pull(IMAGE, reference, archive_path(graph, places, IMAGE), places.logs / "engine-tables.log")
        said = buildah.run(reference, ["python3", "-c", SCRIPT.read_text(encoding="utf-8")])
    tables: dict[str, Any] = json.loads(said.splitlines()[-1])
    return tables


def main(folder: Path = FOLDER) -> int:
    """Write the file of the pinned version; an error a person can mend is one message and exit code 1."""
    try:
        tables = asked()
    except (ClusterError, subprocess.CalledProcessError) as error:
        print(f"engine-tables: {error}\n{getattr(error, 'stderr', '')}", file=sys.stderr)
        return 1
    path = folder / f"vllm-{tables['version']}.json"
    path.write_text(written(tables), encoding="utf-8")
    print(f"{path.relative_to(REPOSITORY)}: {len(tables['flags'])} flags, {len(tables['architectures'])} architectures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
