from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from graftwork_store.digest import FileEntry, adapter_digest, adapter_entries, digest_of
from graftwork_store.errors import FileNotAllowed

from tests.unit.store.seeds import make_adapter

ENTRIES = [
    FileEntry("adapter_model.safetensors", 5, hashlib.sha256(b"hello").hexdigest()),
    FileEntry("adapter_config.json", 2, hashlib.sha256(b"{}").hexdigest()),
]


def test_the_digest_rule_is_pinned_by_a_known_vector() -> None:
    assert digest_of(ENTRIES) == "sha256:53db8bdd64ee49823e78b20de7bfd2a94f5cb04b50f5ff9ffeb493ef8ec64c6e"


def test_the_digest_does_not_depend_on_the_order_of_the_files() -> None:
    assert digest_of(ENTRIES) == digest_of(reversed(ENTRIES))


def test_a_folder_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"hello")
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    assert adapter_digest(tmp_path) == digest_of(ENTRIES)


@pytest.mark.parametrize("name", ["manifest.json", "README.md", "training_args.bin", ".gitattributes", "optimizer.pt"])
def test_files_outside_the_allow_list_do_not_count(tmp_path: Path, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    before = adapter_digest(folder)
    (folder / name).write_text("something")
    assert adapter_digest(folder) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "merges.txt"])
def test_tokenizer_files_count(tmp_path: Path, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    before = adapter_digest(folder)
    (folder / name).write_text("something")
    assert adapter_digest(folder) != before


def test_a_swapped_byte_changes_the_digest(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    before = adapter_digest(folder)
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "adapter_model.safetensors").write_bytes(data)
    assert adapter_digest(folder) != before


def test_a_link_is_refused(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(FileNotAllowed, match=r"tokenizer\.json: not a regular file"):
        adapter_entries(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_required_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / name).unlink()
    with pytest.raises(FileNotAllowed, match=name):
        adapter_entries(folder)


def test_entries_are_what_the_manifest_lists(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    entries = {entry.path: entry for entry in adapter_entries(folder)}
    data = (folder / "adapter_config.json").read_bytes()
    assert json.loads(data)["r"] == 4
    assert entries["adapter_config.json"] == FileEntry("adapter_config.json", len(data), hashlib.sha256(data).hexdigest())
