from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from graftwork_store.errors import ModelInvalid
from graftwork_store.fingerprint import base_fingerprint, fingerprint_of, read_base
from graftwork_store.tensors import HeaderError, read_header

from tests.unit.store.seeds import f32, make_base, write_safetensors


def test_the_fingerprint_rule_is_pinned_by_a_known_vector() -> None:
    config = {"model_type": "qwen3", "name": "Größe", "_name_or_path": "x", "transformers_version": "5.1"}
    files = [("model-2.safetensors", "b" * 64, "2" * 64), ("model-1.safetensors", "a" * 64, "1" * 64)]
    assert fingerprint_of(config, files) == "sha256:5d9337e1b4ce592669f390a3304c72c73e7d8a47207a4a6e0c8f7eb9fdd8fe83"


def test_facts_come_from_config_and_headers(tmp_path: Path) -> None:
    base = read_base(make_base(tmp_path / "m"))
    count = 32 * 16 + 2 * (24 * 16 + 16 * 24 + 16)
    assert base.facts() == {
        "fingerprint": base.fingerprint,
        "architecture": "Qwen3ForCausalLM",
        "parameters": count,
        "weightsBytes": 2 * count,
        "maxModelLen": 2048,
    }
    assert base.tensors["model.layers.1.self_attn.q_proj.weight"].shape == (24, 16)


def test_other_weights_of_the_same_shape_have_another_fingerprint(tmp_path: Path) -> None:
    assert base_fingerprint(make_base(tmp_path / "a", seed=0)) != base_fingerprint(make_base(tmp_path / "b", seed=1))


def test_name_and_library_version_do_not_matter_and_everything_else_does(tmp_path: Path) -> None:
    first = base_fingerprint(make_base(tmp_path / "a", _name_or_path="here"))
    second = make_base(tmp_path / "b", _name_or_path="there")
    config = json.loads((second / "config.json").read_text())
    config["transformers_version"] = "6.0"
    (second / "config.json").write_text(json.dumps(config, indent=2))
    assert base_fingerprint(second) == first
    (second / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    assert base_fingerprint(second) != first


def test_files_other_than_config_and_top_level_weights_do_not_matter(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "a")
    before = base_fingerprint(folder)
    (folder / "README.md").write_text("edited")
    (folder / "original").mkdir()
    write_safetensors(folder / "original" / "more.safetensors", {"x": f32([1.0])})
    assert base_fingerprint(folder) == before


def test_the_length_of_a_nested_text_config_is_found(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps({"model_type": "vlm", "text_config": {"max_position_embeddings": 77}}))
    base = read_base(folder)
    assert (base.max_model_len, base.architecture) == (77, "vlm")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "a")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model.safetensors", "y": "model-2.safetensors"}}))
    with pytest.raises(ModelInvalid, match=r"1 of 2 shards are missing, the first is model-2\.safetensors"):
        read_base(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must be a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no \\*.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"abc"), "too few"),
    ],
)
def test_what_is_not_a_model_is_refused_with_the_cause(tmp_path: Path, spoil: object, message: str) -> None:
    folder = make_base(tmp_path / "a")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ModelInvalid, match=message):
        read_base(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"x":{"dtype":"F32","shape":[1]}}', "lacks dtype, shape or data_offsets"),
        (b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "whole numbers"),
        (b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,400]}}', "cut off"),
        (b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "needs 8 bytes, the header gives it 4"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(HeaderError, match=message):
        read_header(path)


def test_a_header_longer_than_its_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(HeaderError, match="cut off or not safetensors"):
        read_header(path)
