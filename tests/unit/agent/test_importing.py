"""`import`: what the download left is verified and published, or refused with a reason and nothing published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from graftwork_agent.__main__ import main
from graftwork_store.digest import adapter_digest
from graftwork_store.store import Store

from tests.unit.agent.pod import SCHEMAS
from tests.unit.store.seeds import HIDDEN, PREFIX, bf16, fields, lora_config, lora_tensors, make_adapter, write_safetensors

RESULT = json.loads((SCHEMAS / "import-result.schema.json").read_text())
INSTRUCTIONS = json.loads((SCHEMAS / "import.schema.json").read_text())
MANIFEST = json.loads((SCHEMAS / "manifest.schema.json").read_text())
Q_A = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"


class Scratch:
    """The import container: its scratch volume, its store, its environment and its last word."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.folder = root / "scratch" / "adapter"
        self.env = {"GRAFTWORK_STORE_URL": f"file://{root / 'store'}"}
        self._monkeypatch = monkeypatch
        (root / "scratch").mkdir()
        (root / "scratch" / "source.json").write_text(json.dumps({"source": "hf://acme/legal", "revision": "8a1c"}))

    @property
    def store(self) -> Store:
        return Store.from_env(self.env)

    def run(self, prescribed: str = "", **changes: Any) -> tuple[int, dict[str, Any]]:
        document: dict[str, Any] = {
            "apiVersion": "graftwork.dev/import/v1",
            "adapter": {"namespace": "ml", "name": "legal-1", "uid": "u-1", "alias": "legal"},
            "source": "hf://acme/legal@main",
            "digest": prescribed,
        }
        jsonschema.validate(document, INSTRUCTIONS)
        variables = {
            "GRAFTWORK_IMPORT": json.dumps(document | changes),
            "GRAFTWORK_SCRATCH": str(self.root / "scratch"),
            "GRAFTWORK_TERMINATION_LOG": str(self.root / "log"),
            **self.env,
        }
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        code = main(["import"])
        data = (self.root / "log").read_bytes()
        assert len(data) <= 4096
        result = json.loads(data)
        jsonschema.validate(result, RESULT)
        return code, result

    def published(self) -> list[str]:
        return sorted(str(path.relative_to(self.root / "store")) for path in (self.root / "store").rglob("*") if path.is_file())


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    return Scratch(tmp_path, monkeypatch)


def test_an_adapter_is_published_and_its_digest_told(scratch: Scratch) -> None:
    make_adapter(scratch.folder, base_model_name_or_path="Qwen/Qwen3-8B", revision="main", rank_pattern={"k_proj": 9})
    (scratch.folder / "README.md").write_text("not published")
    code, result = scratch.run()
    digest = adapter_digest(scratch.folder)
    source = f"store://ml/legal/{digest[7:19]}"
    size = sum((scratch.folder / name).stat().st_size for name in ("adapter_config.json", "adapter_model.safetensors"))
    assert (code, result["outcome"], result["reason"]) == (0, "Succeeded", "Imported")
    assert result["adapter"] == {"source": source, "digest": digest, "rank": 9, "sizeBytes": size}
    assert result["resolved"] == {"source": "hf://acme/legal", "revision": "8a1c"}
    assert result["base"] == {"source": "Qwen/Qwen3-8B", "revision": "main", "fingerprint": ""}
    manifest = scratch.store.fetch(source, scratch.root / "out", digest)
    jsonschema.validate(manifest.raw, MANIFEST)
    assert (manifest.rank, manifest.base_source, manifest.base_fingerprint) == (9, "Qwen/Qwen3-8B", "")
    assert manifest.raw["targetModules"] == ["o_proj", "q_proj"]
    assert manifest.raw["lineage"] == {"namespace": "ml", "adapter": "legal-1", "uid": "u-1", "source": "hf://acme/legal", "revision": "8a1c"}


def test_the_same_again_changes_nothing_and_says_the_same(scratch: Scratch) -> None:
    make_adapter(scratch.folder)
    _, first = scratch.run()
    before = {path: (scratch.root / "store" / path).stat().st_mtime_ns for path in scratch.published()}
    code, again = scratch.run(first["adapter"]["digest"])
    assert (code, again["adapter"]) == (0, first["adapter"])
    assert {path: (scratch.root / "store" / path).stat().st_mtime_ns for path in scratch.published()} == before


def test_an_adapter_that_a_run_published_keeps_the_fingerprint_that_it_knows(scratch: Scratch) -> None:
    make_adapter(scratch.folder)
    scratch.store.publish(scratch.folder, "ml", "legal", fields("sha256:" + "7" * 64))
    assert scratch.run()[1]["base"]["fingerprint"] == "sha256:" + "7" * 64


def test_a_target_that_is_a_pattern_stays_one(scratch: Scratch) -> None:
    make_adapter(scratch.folder, target_modules=r".*\.q_proj")
    _, result = scratch.run()
    assert scratch.store.read_manifest(result["adapter"]["source"]).raw["targetModules"] == [r".*\.q_proj"]


def test_without_facts_the_source_is_the_one_that_was_asked_for(scratch: Scratch) -> None:
    make_adapter(scratch.folder, base_model_name_or_path=7)
    (scratch.root / "scratch" / "source.json").unlink()
    _, result = scratch.run()
    assert result["resolved"] == {"source": "hf://acme/legal@main", "revision": ""}
    assert result["base"]["source"] == ""


def config(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "adapter_config.json").write_text(json.dumps(lora_config(**changes)))


def tensor(name: str, value: Any) -> Callable[[Path], Any]:
    return lambda folder: write_safetensors(folder / "adapter_model.safetensors", lora_tensors() | {name: value})


def weights(data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "adapter_model.safetensors").write_bytes(data)


def linked(name: str) -> Callable[[Path], Any]:
    return lambda folder: ((folder / name).unlink(missing_ok=True), (folder / name).symlink_to("/etc/passwd"))


NAN = bf16(np.full((4, HIDDEN), np.nan))
SPOILED: list[tuple[Callable[[Path], Any], str, str]] = [
    (lambda folder: (folder / "adapter_config.json").unlink(), "FileNotAllowed", "adapter_config.json: missing"),
    (lambda folder: (folder / "adapter_model.safetensors").unlink(), "FileNotAllowed", "adapter_model.safetensors: missing"),
    (linked("adapter_model.safetensors"), "FileNotAllowed", "not a regular file"),
    (linked("tokenizer.json"), "FileNotAllowed", "tokenizer.json: not a regular file"),
    (lambda folder: (folder / "adapter_config.json").write_text("{"), "ConfigInvalid", "cannot be read as JSON"),
    (config(peft_type="IA3"), "ConfigInvalid", "peft_type 'IA3'"),
    (config(use_dora=True), "Unsupported", "DoRA"),
    (config(bias="all"), "Unsupported", "bias is 'all'"),
    (config(modules_to_save=["lm_head"]), "Unsupported", "modules_to_save"),
    (weights(b""), "TensorMismatch", "0 bytes are too few"),
    (weights(b"\xff" * 4096), "TensorMismatch", "the file is cut off or not safetensors"),
    (weights(b"PK\x03\x04" + b"x" * 100), "FileNotAllowed", "is a pickle under another name"),
    (weights(b"\x80\x02}q\x00."), "FileNotAllowed", "is a pickle under another name"),
    (tensor(Q_A, NAN), "NotFinite", f"{Q_A}: 64 of 64 values are NaN or infinite, the first at index 0"),
    (tensor(Q_A, bf16(np.ones((3, HIDDEN)))), "TensorMismatch", "shape [3, 16], the base and the rank need [4, any]"),
    (tensor(f"{PREFIX}lm_head.weight", bf16(np.ones((4, 4)))), "Unsupported", "not a LoRA weight"),
    (tensor(f"{PREFIX}x.lora_A.weight", bf16(np.ones((4, 4)))), "TensorMismatch", "has lora_A only"),
]


@pytest.mark.parametrize(("spoil", "reason", "message"), SPOILED, ids=[f"{row[1]}-{row[2][:40]}" for row in SPOILED])
def test_what_must_not_be_served_is_not_published_and_not_tried_again(
    scratch: Scratch, spoil: Callable[[Path], Any], reason: str, message: str
) -> None:
    spoil(make_adapter(scratch.folder))
    code, result = scratch.run()
    assert (code, result["outcome"], result["reason"], result["adapter"]) == (65, "Failed", reason, None)
    assert message in result["message"]
    assert scratch.published() == []


def test_weights_that_are_cut_off_are_not_published(scratch: Scratch) -> None:
    path = make_adapter(scratch.folder) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    code, result = scratch.run()
    assert (code, result["reason"]) == (65, "TensorMismatch")
    assert "the file is cut off" in result["message"]


def test_another_digest_than_the_one_that_was_prescribed_is_refused_with_both(scratch: Scratch) -> None:
    make_adapter(scratch.folder)
    code, result = scratch.run("sha256:" + "1" * 64)
    assert (code, result["reason"]) == (65, "DigestMismatch")
    assert adapter_digest(scratch.folder) in result["message"]
    assert "sha256:" + "1" * 64 in result["message"]
    assert scratch.published() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"apiVersion": "graftwork.dev/import/v2"}, "import/v2"),
        ({"adapter": {}}, "namespace"),
        ({"adapter": {"namespace": "ml", "name": "x", "uid": "u", "alias": "a--b"}}, "store://"),
        ({"adapter": {"namespace": "../x", "name": "x", "uid": "u", "alias": "a"}}, "store://"),
        ({"adapter": {"namespace": "ml", "name": "x", "uid": "u", "alias": 7}}, "must be strings"),
        ({"digest": "sha256:short"}, "store://"),
    ],
)
def test_instructions_that_are_not_of_the_contract_are_refused(scratch: Scratch, changes: dict[str, Any], message: str) -> None:
    make_adapter(scratch.folder)
    code, result = scratch.run(**changes)
    assert (code, result["reason"]) == (65, "InvalidSpec")
    assert message in result["message"]


def test_a_store_that_does_not_answer_is_tried_again(scratch: Scratch) -> None:
    make_adapter(scratch.folder)
    scratch.env = {
        "GRAFTWORK_STORE_URL": "s3://b/p",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    }
    code, result = scratch.run()
    assert (code, result["reason"]) == (70, "StoreUnreachable")
    assert "s3cr3t" not in json.dumps(result)


def test_a_message_of_any_length_fits(scratch: Scratch) -> None:
    make_adapter(scratch.folder, base_model_name_or_path="x" * 10_000, modules_to_save=["y" * 10_000])
    code, result = scratch.run()
    assert (code, result["reason"]) == (65, "Unsupported")
    config(base_model_name_or_path="x" * 10_000)(scratch.folder)
    assert scratch.run()[0] == 0
