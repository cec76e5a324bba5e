"""Image archives that are written without an image tool."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.images_load import load_image, references_in
from tests.cluster.layout import Layout
from tests.cluster.oci import archive_of, layer_of
from tests.cluster.progress import ClusterError


def test_equal_input_makes_equal_bytes() -> None:
    one, two = (archive_of("localhost/x:1", layer_of({"a": b"1"}, {"b": "a"}, ("tmp",)), {"Cmd": ["/a"]}) for _ in range(2))
    assert one == two


def test_every_blob_is_named_by_its_content_and_the_name_of_the_image_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive_of("localhost/x:1", layer_of({"a": b"1"}, {}), {}))
    with tarfile.open(path) as archive:
        blobs = {m.name: archive.extractfile(m) for m in archive if m.name.startswith("blobs/")}
        assert len(blobs) == 3
        assert all(name.endswith(hashlib.sha256(handle.read()).hexdigest()) for name, handle in blobs.items() if handle)
    assert references_in(path) == ["localhost/x:1"]


def test_an_archive_without_a_name_has_no_references(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        data = json.dumps({"manifests": [{"digest": "sha256:0"}]}).encode()
        entry = tarfile.TarInfo("index.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert references_in(path) == []


def test_what_is_no_archive_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_text("no archive")
    with pytest.raises(ClusterError, match=r"x\.tar: not a readable image archive.*buildah push"):
        references_in(path)


def test_loading_says_what_to_type_when_the_cluster_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(archive_of("localhost/x:1", layer_of({}, {}), {}))
    monkeypatch.setattr("tests.cluster.layout.RUN_PREFIX", "graftwork-unit-test-")
    with pytest.raises(ClusterError, match=r"containerd does not run; type: python3 -m tests\.cluster up"):
        load_image(archive, "localhost/x:1", layout=Layout(tmp_path))
    with pytest.raises(ClusterError, match="no such image archive"):
        load_image(tmp_path / "none.tar", "localhost/x:1", layout=Layout(tmp_path))
