"""Every example is accepted by a real API server as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.control_plane.api_server import ApiServer

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted(api_server: ApiServer, namespace: str, path: Path) -> None:
    done = api_server.run("kubectl", "apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", str(path))
    assert done.returncode == 0, done.stderr
