"""Archives hold what an OCI reader looks for, layers are verified and made once, and pruning keeps what is in use."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.imagebuild.archive import diff_ids, layer_digests, write_archive
from tests.cluster.imagebuild.layers import Layers, Storage
from tests.cluster.imagebuild.prune import outdated
from tests.cluster.progress import ClusterError

LAYER, IMAGE = "c0ffee", "1mage"
HEADER, CONTENT, TRAILER = b"header of a file", b"content of a file", b"\0" * 1024
PLAIN = HEADER + CONTENT + TRAILER
DIFF_ID = hashlib.sha256(PLAIN).hexdigest()


@pytest.fixture(params=["overlay", "vfs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A containers/storage folder with one image of two layers, the upper of which has a file."""
    driver, root = request.param, tmp_path / "root"
    files = root / "overlay" / LAYER / "diff" if driver == "overlay" else root / "vfs/dir" / LAYER
    for folder in (files / "etc", root / f"{driver}-layers", root / f"{driver}-images"):
        folder.mkdir(parents=True)
    (files / "etc/file").write_bytes(CONTENT)
    entries = [
        {"type": 2, "payload": base64.b64encode(HEADER).decode()},
        {"type": 1, "name": "etc/file", "size": len(CONTENT), "payload": "AAAA"},
        {"type": 1, "name": "etc/", "payload": None},
        {"type": 2, "payload": base64.b64encode(TRAILER).decode()},
    ]
    with gzip.open(root / f"{driver}-layers/{LAYER}.tar-split.gz", "wt") as out:
        out.write("\n\n".join(json.dumps(entry) for entry in entries))
    (root / f"{driver}-layers/layers.json").write_text(json.dumps([{"id": "lower"}, {"id": LAYER, "parent": "lower"}]))
    (root / f"{driver}-images/images.json").write_text(json.dumps([{"id": IMAGE, "layer": LAYER}]))
    return Storage(root, driver)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Layers(tmp_path / "layers", scratch)


def test_the_layers_of_an_image_are_listed_lowest_first(storage: Storage) -> None:
    assert storage.layer_ids(IMAGE) == ["lower", LAYER]


def test_a_layer_is_put_together_from_its_headers_and_its_files(storage: Storage) -> None:
    assert b"".join(storage.chunks(LAYER)) == PLAIN


def test_a_layer_is_compressed_once(storage: Storage, layers: Layers) -> None:
    first = layers.get(DIFF_ID, storage, LAYER)
    made = first.path.stat().st_mtime_ns
    assert layers.get(DIFF_ID, storage, "gone") == first
    assert first.path.stat().st_mtime_ns == made
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.digest


def test_a_layer_without_zstd_is_compressed_by_gzip(storage: Storage, layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    blob = layers.get(DIFF_ID, storage, LAYER)
    assert blob.media_type.endswith("tar+gzip")
    assert gzip.decompress(blob.path.read_bytes()) == PLAIN


def test_a_layer_with_another_content_than_its_diff_id_is_refused_and_not_kept(storage: Storage, layers: Layers, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="in its place"):
        layers.get("0" * 64, storage, LAYER)
    assert not list((tmp_path / "layers").iterdir())


def test_an_archive_is_an_oci_layout_with_one_named_image(storage: Storage, layers: Layers, tmp_path: Path) -> None:
    blob = layers.get(DIFF_ID, storage, LAYER)
    config = json.dumps({"rootfs": {"diff_ids": [f"sha256:{DIFF_ID}"]}}).encode()
    assert diff_ids(config) == [DIFF_ID]
    write_archive(tmp_path / "a.tar", "localhost/graftwork/a:1", config, [blob])
    write_archive(tmp_path / "b.tar", "localhost/graftwork/a:1", config, [blob])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert all(hashlib.sha256(data).hexdigest() == Path(name).name for name, data in content.items() if name.startswith("blobs/"))
    (row,) = json.loads(content["index.json"])["manifests"]
    assert set(row["annotations"].values()) == {"localhost/graftwork/a:1"}
    manifest = json.loads(content["blobs/sha256/" + row["digest"].removeprefix("sha256:")])
    assert content["blobs/sha256/" + manifest["config"]["digest"].removeprefix("sha256:")] == config
    assert [layer["digest"] for layer in manifest["layers"]] == [f"sha256:{blob.digest}"]
    assert blob.digest in layer_digests(tmp_path / "a.tar")


def archive(name: str, number: int) -> str:
    return f"{name}-{number:016x}.oci.tar"


def test_pruning_keeps_the_newest_two_of_each_name_and_always_what_this_checkout_uses() -> None:
    files = [(archive("agent", n), float(n)) for n in range(4)] + [(archive("engine-cpu", 9), 0.0), ("notes.txt", 0.0)]
    assert outdated(files, set()) == [archive("agent", 0), archive("agent", 1)]
    assert outdated(files, {f"agent-{0:016x}"}) == [archive("agent", 1), archive("agent", 2)]
