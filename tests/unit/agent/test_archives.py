"""Archives that nobody vouches for: each is wrong in one way, and nothing outside of the target is ever touched."""

from __future__ import annotations

import contextlib
import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graftwork_agent import archives
from graftwork_agent.archives import extract
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import FileNotAllowed, SourceInvalid, SourceNotFound, StoreError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agent.web_source import adapter_bytes, make_tar, make_zip, tar_entry
from tests.unit.store.seeds import make_adapter

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter") / "a")


@pytest.fixture(scope="module")
def files(adapter: Path) -> dict[str, bytes]:
    return adapter_bytes(adapter)


def take_out(tmp_path: Path, data: bytes, name: str, limit: int = LIMIT) -> Path:
    (tmp_path / "packed").write_bytes(data)
    (tmp_path / "out").mkdir(exist_ok=True)
    extract(f"https://h/{name}", tmp_path / "packed", tmp_path / "out", limit)
    return tmp_path / "out"


def refused(tmp_path: Path, data: bytes, name: str, kind: type[StoreError] = FileNotAllowed, limit: int = LIMIT) -> str:
    with pytest.raises(kind) as caught:
        take_out(tmp_path, data, name, limit)
    assert type(caught.value) is kind
    assert {path.name for path in tmp_path.iterdir()} == {"packed", "out"}
    assert all(path.is_file() and not path.is_symlink() for path in (tmp_path / "out").iterdir())
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.tar.gz", make_tar),
        ("a.tgz", make_tar),
        ("a.tar", lambda files: make_tar(files, packed=False)),
        ("a.tar.gz", lambda files: make_tar(files, packed=False)),
        ("a.zip", make_zip),
        ("a.zip", lambda files: make_zip(files, method=zipfile.ZIP_STORED)),
    ],
)
@pytest.mark.parametrize("folder", ["", "./", "legal/checkpoint/"])
def test_the_adapter_is_found_wherever_it_lies(
    tmp_path: Path, adapter: Path, files: dict[str, bytes], name: str, make: Callable[[dict[str, bytes]], bytes], folder: str
) -> None:
    inside = {f"{folder}{path}": data for path, data in files.items()} | {f"{folder}README.md": b"read", f"{folder}optimizer.bin": b"\x80"}
    out = take_out(tmp_path, make(inside), name)
    assert adapter_digest(out) == adapter_digest(adapter)
    assert {path.name for path in out.iterdir()} == set(files)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tar_entry("notes", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "entry 'notes' is a link to '/etc/passwd'"),
        (tar_entry("vocab.json", type=tarfile.SYMTYPE, linkname="../../secret"), "entry 'vocab.json' is a link to '../../secret'"),
        (tar_entry("merges.txt", type=tarfile.LNKTYPE, linkname="adapter_config.json"), "is a link to 'adapter_config.json'"),
        (tar_entry("merges.txt", type=tarfile.FIFOTYPE), "is not a regular file"),
        (tar_entry("merges.txt", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "is not a regular file"),
        (tar_entry("merges.txt", type=tarfile.CONTTYPE), "is not a regular file"),
        (tar_entry("/etc/merges.txt"), "has an absolute path"),
        (tar_entry("../merges.txt"), "leads out of the folder by '..'"),
        (tar_entry("a/../../notes"), "leads out of the folder by '..'"),
        (tar_entry("..\\merges.txt"), "a backslash"),
        (tar_entry("C:merges.txt"), "an absolute path"),
        (tar_entry("../up", type=tarfile.DIRTYPE), "leads out of the folder"),
        (tar_entry("other/adapter_config.json"), "is adapter_config.json a second time, after 'adapter_config.json'"),
    ],
    ids=str,
)
def test_an_entry_of_a_tar_that_is_no_plain_file_of_the_folder_is_named(
    tmp_path: Path, files: dict[str, bytes], entry: tarfile.TarInfo, message: str
) -> None:
    assert message in refused(tmp_path, make_tar(files, ((entry, b""),)), "a.tar.gz")


def zip_entry(name: str, mode: int = 0, **changes: Any) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (zip_entry("notes", stat.S_IFLNK | 0o777), "entry 'notes' is a link"),
        (zip_entry("merges.txt", stat.S_IFLNK | 0o777), "entry 'merges.txt' is a link"),
        (zip_entry("merges.txt", stat.S_IFIFO), "is not a regular file"),
        (zip_entry("/etc/merges.txt"), "has an absolute path"),
        (zip_entry("../merges.txt"), "leads out of the folder by '..'"),
        (zip_entry("..\\merges.txt"), "a backslash"),
        (zip_entry("../up/"), "leads out of the folder"),
        (zip_entry("b/adapter_config.json"), "a second time"),
        (zip_entry("merges.txt", compress_type=zipfile.ZIP_LZMA), "a method other than store and deflate"),
        (zip_entry("merges.txt", compress_type=zipfile.ZIP_BZIP2), "a method other than store and deflate"),
    ],
    ids=str,
)
def test_an_entry_of_a_zip_that_is_no_plain_file_of_the_folder_is_named(
    tmp_path: Path, files: dict[str, bytes], entry: zipfile.ZipInfo, message: str
) -> None:
    assert message in refused(tmp_path, make_zip(files, ((entry, b"x"),)), "a.zip")


def test_an_encrypted_entry_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    data = bytearray(make_zip({**files, "merges.txt": b"x"}, method=zipfile.ZIP_STORED))
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    assert "encrypted" in refused(tmp_path, bytes(data), "a.zip")


def test_weights_that_are_a_pickle_only_are_refused_with_the_remedy(tmp_path: Path, files: dict[str, bytes]) -> None:
    inside = {"a/adapter_config.json": files["adapter_config.json"], "a/adapter_model.bin": b"\x80"}
    for data, name in ((make_tar(inside), "a.tgz"), (make_zip(inside), "a.zip")):
        message = refused(tmp_path, data, name)
        assert "adapter_model.bin is a pickle" in message
        assert "safetensors.torch.save_file" in message
        (tmp_path / "out" / "adapter_config.json").unlink()


def test_an_archive_without_an_adapter_says_what_it_has(tmp_path: Path) -> None:
    message = refused(tmp_path, make_tar({"README.md": b"x", "model.safetensors": b"x"}), "a.tgz", SourceNotFound)
    assert "found 2 files: README.md, model.safetensors" in message


@pytest.mark.parametrize("cut", [0, 1, 10, 200, -30])
def test_an_archive_that_is_cut_off_is_named_so(tmp_path: Path, files: dict[str, bytes], cut: int) -> None:
    for make, name in ((make_tar, "a.tar.gz"), (make_zip, "a.zip")):
        (tmp_path / name).mkdir()
        assert "cannot be read as an archive" in refused(tmp_path / name, make(files)[:cut], name, SourceInvalid)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.tar"])
def test_something_else_is_not_an_archive(tmp_path: Path, name: str) -> None:
    assert "cannot be read as an archive" in refused(tmp_path, b"<html>" * 1000, name, SourceInvalid)


def test_what_swells_is_cut_at_the_limit(tmp_path: Path, files: dict[str, bytes]) -> None:
    bomb = b"\0" * (8 << 20)
    for make, name in ((make_tar, "a.tar.gz"), (make_zip, "a.zip")):
        data = make({**files, "tokenizer.json": bomb})
        assert len(data) < 100_000
        (tmp_path / name).mkdir()
        assert f"the limit of an adapter is {LIMIT}" in refused(tmp_path / name, data, name, SourceInvalid)
        assert sum(path.stat().st_size for path in (tmp_path / name / "out").iterdir()) <= LIMIT


def test_what_swells_in_files_that_nobody_wants_is_cut_too(tmp_path: Path, files: dict[str, bytes]) -> None:
    data = make_tar({"junk": b"\0" * (8 << 20), **files})
    assert "the limit of an adapter" in refused(tmp_path, data, "a.tar.gz", SourceInvalid)


def test_a_zip_that_lies_about_a_size_is_not_believed(tmp_path: Path, files: dict[str, bytes]) -> None:
    data = bytearray(make_zip({**files, "tokenizer.json": b"\0" * (8 << 20)}))
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)
    with pytest.raises(SourceInvalid):
        take_out(tmp_path, bytes(data), "a.zip")


def test_a_header_as_large_as_the_archive_says_is_never_held_in_memory(tmp_path: Path, files: dict[str, bytes]) -> None:
    long = tar_entry("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
    comments = tar_entry("pax", type=tarfile.XHDTYPE)
    huge = b"\0" * (64 << 20)
    for entry in (long, comments):
        (tmp_path / entry.name.strip("./@")).mkdir()
        data = make_tar(files, ((entry, huge),))
        tracemalloc.start()
        message = refused(tmp_path / entry.name.strip("./@"), data, "a.tar.gz", SourceInvalid, 1 << 30)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "a header of more than" in message
        assert peak < 16 << 20


def test_a_directory_of_a_zip_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    data = make_zip({**files, **{f"{number:04}{'x' * 200}": b"" for number in range(300)}})
    monkeypatch.setattr(archives, "HEADER_LIMIT_BYTES", 66_000)
    assert "a header of more than" in refused(tmp_path, data, "a.zip", SourceInvalid)


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    monkeypatch.setattr(archives, "ENTRIES_LIMIT", 10)
    many = {**{str(number): b"" for number in range(9)}, **files}
    for make, name in ((make_tar, "a.tar.gz"), (make_zip, "a.zip")):
        (tmp_path / name).mkdir()
        assert "more than 10 entries" in refused(tmp_path / name, make(many), name, SourceInvalid)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_change_of_bytes_does_more_than_refuse(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name, make = data.draw(st.sampled_from([("a.tar", lambda files: make_tar(files, packed=False)), ("a.tar.gz", make_tar), ("a.zip", make_zip)]))
    packed = bytearray(make(files))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(packed) - 1), st.integers(0, 255)), max_size=6)):
        packed[at] = value
    with contextlib.suppress(SourceInvalid, FileNotAllowed, SourceNotFound):
        take_out(folder, bytes(packed), name)
    assert {path.name for path in folder.iterdir()} == {"packed", "out"}
    assert {path.name for path in (folder / "out").iterdir()} <= set(files)


def test_a_sparse_file_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    buffer = io.BytesIO(gzip.decompress(make_tar({"merges.txt": b"x" * 512, **files})))
    data = bytearray(buffer.getvalue())
    data[156:157] = tarfile.GNUTYPE_SPARSE
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert "is not a regular file" in refused(tmp_path, bytes(data), "a.tar")
