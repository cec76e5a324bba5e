"""The CRDs on a real API server: they are established, and what each stores, shows and scales."""

from __future__ import annotations

import pytest

from tests.control_plane.api_server import ApiServer
from tests.control_plane.objects import PLURALS, Objects, spec_of


def test_api_server_accepts_crds(api_server: ApiServer) -> None:
    done = api_server.run("kubectl", "get", "crd", "-o", "name")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", PLURALS)
def test_smallest_spec_is_accepted(objects: Objects, kind: str) -> None:
    print(objects.made(kind))
