"""Every refusal of contracts section 9, each found in an adapter that is wrong in exactly one way."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftwork_agent.finite import not_finite
from graftwork_agent.refusal import FINAL_REASONS, Refusal
from graftwork_agent.verify import Expected, verify
from graftwork_store.digest import adapter_digest
from graftwork_store.errors import StoreError
from graftwork_store.fingerprint import read_base
from graftwork_store.tensors import read_header
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from tests.unit.store.seeds import HEADS, HIDDEN, PREFIX, VOCAB, bf16, f16, f32, lora_config, lora_tensors, make_adapter, make_base, write_safetensors

Q_A = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
Q_B = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight"


def check(folder: Path, base: Path, *, digest: str = "", trained_on: str = "", max_rank: int = 16) -> None:
    model = read_base(base)
    try:
        digest = digest or adapter_digest(folder)
    except StoreError:
        digest = "sha256:" + "0" * 64
    verify(folder, Expected(digest, trained_on or model.fingerprint, max_rank, model))


def refusal(folder: Path, base: Path, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(folder, base, **options)
    assert caught.value.reason in FINAL_REASONS
    return caught.value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "m")


def with_config(folder: Path, **changes: Any) -> Path:
    make_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps(lora_config(**changes)))
    return folder


def with_tensors(folder: Path, change: Callable[[dict[str, Any]], Any], **config: Any) -> Path:
    tensors = lora_tensors()
    change(tensors)
    return make_adapter(folder, tensors=tensors, **config)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"modules_to_save": None},
        {"modules_to_save": []},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "Eva"},
        {"alpha_pattern": {r"model\.layers\.[0-9]+\.(self_attn|mlp)\.(?:q|k)_proj": 2.5}},
        {"alpha_pattern": {"q_proj": 2.5}},
    ],
)
def test_a_good_adapter_passes(tmp_path: Path, base: Path, config: dict[str, Any]) -> None:
    check(make_adapter(tmp_path / "a", **config), base)


def f64(values: Any) -> tuple[str, Any]:
    return "F64", np.asarray(values, dtype=np.float64)


def fp8(dtype: str, fill: int, bad: int) -> Callable[[Any], Any]:
    """Return a maker of a type that numpy does not have: bytes of `fill`, and of `bad` where the value is not finite."""
    return lambda values: (dtype, np.where(np.isfinite(values), fill, bad).astype(np.uint8))


# The largest finite value of each, and what comes next: 448 and NaN, 57344 and infinity, 240 and the one NaN, 57344 and the one NaN.
FP8 = [fp8("F8_E4M3", 0x7E, 0x7F), fp8("F8_E4M3", 0xFE, 0xFF), fp8("F8_E5M2", 0x7B, 0x7C), fp8("F8_E5M2", 0xFB, 0xFD)]
FNUZ = [fp8("F8_E4M3FNUZ", 0xFF, 0x80), fp8("F8_E5M2FNUZ", 0x7F, 0x80)]
KINDS = [bf16, f16, f32, f64, *FP8, *FNUZ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_float_type_passes(tmp_path: Path, base: Path, kind: Callable[[Any], Any]) -> None:
    tensors = {name: kind(np.full(array.shape, 0.5)) for name, (_, array) in lora_tensors().items()}  # of eight bits: the largest of their type
    check(make_adapter(tmp_path / "a", tensors=tensors, lora_alpha=4), base)


def test_a_double_that_no_engine_can_hold_is_infinite_there(tmp_path: Path, base: Path) -> None:
    largest = float(np.finfo(np.float32).max)
    check(with_tensors(tmp_path / "a", replaced(Q_A, f64(np.full((4, HIDDEN), largest)))), base)
    found = refusal(with_tensors(tmp_path / "b", replaced(Q_A, f64(np.full((4, HIDDEN), -2.0 * largest)))), base)
    assert (found.reason, found.message) == ("NotFinite", f"{Q_A}: 64 of 64 values are NaN or infinite, the first at index 0")


@pytest.mark.parametrize("dtype", ["F8_E8M0", "BOOL", "U8"])
def test_a_type_that_holds_no_weights_is_refused(tmp_path: Path, base: Path, dtype: str) -> None:
    found = refusal(with_tensors(tmp_path / "a", replaced(Q_A, (dtype, np.ones((4, HIDDEN), np.uint8)))), base)
    assert (found.reason, f"dtype {dtype}" in found.message) == ("Unsupported", True)


@pytest.mark.parametrize("data", [b"PK\x03\x04" + b"x" * 100, b"\x80\x02}q\x00."])
def test_a_pickle_under_the_name_of_safetensors_is_named_one(tmp_path: Path, base: Path, data: bytes) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(data)
    found = refusal(folder, base)
    assert found.reason == "FileNotAllowed"
    assert "is a pickle" in found.message


def test_files_of_the_safetensors_library_pass(tmp_path: Path, base: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    save_file({name: np.full(array.shape, 0.5, np.float32) for name, (_, array) in lora_tensors().items()}, folder / "adapter_model.safetensors")
    check(folder, base)


def test_a_rank_pattern_is_honoured(tmp_path: Path, base: Path) -> None:
    def widen(tensors: dict[str, Any]) -> None:
        tensors[Q_A] = bf16(np.ones((9, HIDDEN)))
        tensors[Q_B] = bf16(np.ones((HEADS, 9)))

    check(with_tensors(tmp_path / "a", widen, rank_pattern={r"layers\.0\..*q_proj": 9}), base)
    assert refusal(with_tensors(tmp_path / "b", widen), base).message == f"{Q_A}: shape [9, 16], the base and the rank need [4, 16]"
    assert refusal(with_tensors(tmp_path / "c", widen, rank_pattern={"q_proj": 99}), base).reason == "RankTooHigh"


def test_embeddings_and_a_tied_head_are_served(tmp_path: Path, base: Path) -> None:
    tensors = {
        f"{PREFIX}model.embed_tokens.lora_embedding_A": bf16(np.ones((4, VOCAB))),
        f"{PREFIX}model.embed_tokens.lora_embedding_B": bf16(np.ones((HIDDEN, 4))),
        f"{PREFIX}lm_head.lora_A.weight": bf16(np.ones((4, HIDDEN))),
        f"{PREFIX}lm_head.lora_B.weight": bf16(np.ones((VOCAB, 4))),
    }
    check(make_adapter(tmp_path / "a", tensors=tensors), base)
    untied = make_base(tmp_path / "untied", tie=False)
    assert "no tensor lm_head.weight" in refusal(tmp_path / "a", untied).message


def test_a_transposed_base_is_served(tmp_path: Path) -> None:
    base = make_base(tmp_path / "m")
    write_safetensors(base / "model.safetensors", {"h.0.c_attn.weight": bf16(np.ones((HIDDEN, HEADS)))})
    tensors = {f"{PREFIX}h.0.c_attn.lora_A.weight": f32(np.ones((4, HIDDEN))), f"{PREFIX}h.0.c_attn.lora_B.weight": f32(np.ones((HEADS, 4)))}
    check(make_adapter(tmp_path / "a", tensors=tensors, fan_in_fan_out=True), base)
    assert refusal(make_adapter(tmp_path / "b", tensors=tensors), base).reason == "TensorMismatch"


def test_a_packed_base_cannot_tell_shapes_and_still_tells_modules(tmp_path: Path) -> None:
    base = make_base(tmp_path / "m")
    write_safetensors(base / "model.safetensors", {"model.layers.0.self_attn.q_proj.qweight": ("I32", np.ones((2, HEADS), np.int32))})
    tensors = {Q_A: f32(np.ones((4, HIDDEN))), Q_B: f32(np.ones((HEADS, 4)))}
    check(make_adapter(tmp_path / "a", tensors=tensors), base)
    assert refusal(make_adapter(tmp_path / "b"), base).reason == "TensorMismatch"


@pytest.mark.parametrize(
    ("config", "reason", "message"),
    [
        ({"peft_type": "IA3"}, "ConfigInvalid", "peft_type 'IA3', must be 'LORA'"),
        ({"r": 0}, "ConfigInvalid", "r is 0"),
        ({"r": "8"}, "ConfigInvalid", "r is '8'"),
        ({"r": True}, "ConfigInvalid", "r is True"),
        ({"lora_alpha": None}, "ConfigInvalid", "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "ConfigInvalid", "NaN is not a JSON number"),
        ({"lora_alpha": float("inf")}, "ConfigInvalid", "Infinity is not a JSON number"),
        ({"alpha_pattern": {"q_proj": "x"}}, "ConfigInvalid", "alpha_pattern"),
        ({"alpha_pattern": [1]}, "ConfigInvalid", "must be an object"),
        ({"target_modules": []}, "ConfigInvalid", "target_modules"),
        ({"rank_pattern": {"(": 4}}, "ConfigInvalid", "not a regular expression"),
        ({"use_dora": True}, "Unsupported", "DoRA"),
        ({"bias": "all"}, "Unsupported", "bias is 'all'"),
        ({"bias": "lora_only"}, "Unsupported", "bias is 'lora_only'"),
        ({"lora_bias": True}, "Unsupported", "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "Unsupported", "modules_to_save is \\['lm_head'\\]"),
        ({"layer_replication": [[0, 2]]}, "Unsupported", "layer_replication"),
        ({"init_lora_weights": "pissa_niter_16"}, "Unsupported", "pissa_niter_16"),
        ({"init_lora_weights": "olora"}, "Unsupported", "olora"),
        ({"init_lora_weights": "something_new"}, "Unsupported", "something_new"),
        ({"target_modules": {"q_proj": 1}}, "ConfigInvalid", "target_modules"),
        ({"alpha_pattern": {"(": 4}}, "ConfigInvalid", "not a regular expression"),
        ({"rank_pattern": {"(a+)+": 4}}, "Unsupported", "could take for ever"),
        ({"rank_pattern": {"(a|a){9}": 4}}, "Unsupported", "could take for ever"),
        ({"rank_pattern": {".*a.*a.*": 4}}, "Unsupported", "could take for ever"),
        ({"rank_pattern": {r"(a)\1": 4}}, "Unsupported", "could take for ever"),
        ({"rank_pattern": {"(?=a)b": 4}}, "Unsupported", "could take for ever"),
        ({"alpha_pattern": {"(a*)*": 4}}, "Unsupported", "could take for ever"),
        ({"rank_pattern": {"x" * 301: 4}}, "Unsupported", "longer than 300"),
        ({"alpha_pattern": {f"layers.{number}": 4 for number in range(1025)}}, "Unsupported", "has 1025 entries, the limit is 1024"),
        ({"alora_invocation_tokens": [1]}, "Unsupported", "activated LoRA"),
        ({"use_qalora": True}, "Unsupported", "QALoRA"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "Unsupported", "token"),
        ({"rank": 32}, "RankTooHigh", "rank 32 is above adapters.maxRank 16"),
        ({"rank_pattern": {"q_proj": 64}}, "RankTooHigh", "rank 64 is above adapters.maxRank 16"),
    ],
)
def test_a_config_that_vllm_cannot_serve_is_refused(tmp_path: Path, base: Path, config: dict[str, Any], reason: str, message: str) -> None:
    found = refusal(with_config(tmp_path / "a", **config), base)
    assert found.reason == reason
    with pytest.raises(Refusal, match=message):
        raise found


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"LORA"', "null", "\xff", "[" * 100_000, '{"peft_type":"LORA","r":4,"lora_alpha":1e999,"target_modules":["q"]}']
)
def test_a_config_that_is_not_one_is_refused(tmp_path: Path, base: Path, text: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert refusal(folder, base).reason == "ConfigInvalid"


def replaced(name: str, tensor: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors.__setitem__(name, tensor)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (replaced(Q_A, bf16(np.ones((4, HIDDEN // 2)))), "TensorMismatch", r"shape \[4, 8\], the base and the rank need \[4, 16\]"),
        (replaced(Q_A, bf16(np.ones((4, HIDDEN * 2)))), "TensorMismatch", r"shape \[4, 32\]"),
        (replaced(Q_B, bf16(np.ones((HIDDEN, 4)))), "TensorMismatch", r"shape \[16, 4\], the base and the rank need \[24, 4\]"),
        (replaced(Q_A, bf16(np.ones((2, HIDDEN)))), "TensorMismatch", r"shape \[2, 16\]"),
        (replaced(Q_A, bf16(np.ones((4, HIDDEN, 1)))), "TensorMismatch", r"shape \[4, 16, 1\]"),
        (
            replaced(f"{PREFIX}model.layers.36.self_attn.q_proj.lora_A.weight", bf16(np.ones((4, HIDDEN)))),
            "TensorMismatch",
            "no tensor model.layers.36",
        ),
        (replaced(f"{PREFIX}model.layers.0.input_layernorm.lora_A.weight", bf16(np.ones((4, HIDDEN)))), "TensorMismatch", "only matrices"),
        (lambda tensors: tensors.pop(Q_B), "TensorMismatch", "has lora_A only"),
        (lambda tensors: tensors.clear(), "TensorMismatch", "has no tensors"),
        (replaced(f"{PREFIX}lm_head.weight", bf16(np.ones((VOCAB, HIDDEN)))), "Unsupported", "not a LoRA weight"),
        (replaced(f"{PREFIX}model.layers.0.self_attn.q_proj.lora_magnitude_vector", bf16(np.ones(HEADS))), "Unsupported", "not a LoRA weight"),
        (replaced(f"{PREFIX}{'a' * 600}.lora_A.weight", bf16(np.ones((4, HIDDEN)))), "TensorMismatch", "a name of 631 characters, the limit is 512"),
        (replaced("transformer.q.lora_A.weight", bf16(np.ones((4, HIDDEN)))), "Unsupported", "expected base_model.model."),
        (replaced(Q_A, ("I8", np.ones((4, HIDDEN), np.int8))), "Unsupported", "dtype I8"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    tmp_path: Path, base: Path, change: Callable[[dict[str, Any]], Any], reason: str, message: str
) -> None:
    found = refusal(with_tensors(tmp_path / "a", change), base)
    assert found.reason == reason
    with pytest.raises(Refusal, match=message):
        raise found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, base: Path, kind: Callable[[Any], Any], value: float) -> None:
    values = np.full((HEADS, 4), 0.25, np.float32)
    values[3, 1] = value
    found = refusal(with_tensors(tmp_path / "a", replaced(Q_B, kind(values))), base)
    assert (found.reason, found.message) == ("NotFinite", f"{Q_B}: 1 of 96 values are NaN or infinite, the first at index 13")


@given(values=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32)), kind=st.sampled_from(["BF16", "F16", "F32", "F64"]))
def test_the_bit_test_agrees_with_numpy(tmp_path_factory: pytest.TempPathFactory, values: Any, kind: str) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    with np.errstate(over="ignore"):
        tensor = {"BF16": bf16, "F16": f16, "F32": f32, "F64": f64}[kind](values)
    write_safetensors(path, {"first": f32([1.0]), "x": tensor})
    real = tensor[1].astype(np.uint32) << 16 if kind == "BF16" else tensor[1]
    bad = np.flatnonzero(~np.isfinite(real.view(np.float32) if kind == "BF16" else real))
    assert not_finite(path, read_header(path).tensors) == (("x", len(bad), bad[0]) if len(bad) else None)


def test_values_beyond_the_first_block_are_looked_at(tmp_path: Path) -> None:
    values = np.zeros(3_000_001, np.float32)
    values[2_999_999] = np.nan
    write_safetensors(tmp_path / "x.safetensors", {"odd": ("BF16", np.zeros(3, np.uint16)), "x": f32(values)})
    assert not_finite(tmp_path / "x.safetensors", read_header(tmp_path / "x.safetensors").tensors) == ("x", 1, 2_999_999)


def test_another_base_is_refused_with_both_fingerprints(tmp_path: Path, base: Path) -> None:
    other = make_base(tmp_path / "other", seed=5)
    trained_on = read_base(other).fingerprint
    found = refusal(make_adapter(tmp_path / "a"), base, trained_on=trained_on)
    assert found.reason == "BaseMismatch"
    assert trained_on in found.message
    assert read_base(base).fingerprint in found.message


def test_where_the_base_is_not_compared_tensors_still_are(tmp_path: Path, base: Path) -> None:
    model = read_base(base)
    good, wide = make_adapter(tmp_path / "a"), with_tensors(tmp_path / "b", lambda tensors: tensors.update({Q_A: bf16(np.ones((4, HIDDEN * 2)))}))
    verify(good, Expected(adapter_digest(good), "", 16, model))
    with pytest.raises(Refusal, match="shape"):
        verify(wide, Expected(adapter_digest(wide), "", 16, model))


def test_files_that_are_not_the_published_ones_are_refused(tmp_path: Path, base: Path) -> None:
    found = refusal(make_adapter(tmp_path / "a"), base, digest="sha256:" + "1" * 64)
    assert found.reason == "DigestMismatch"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "adapter_model.bin").write_bytes(b"pickle"),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: (folder / "tokenizer.json").symlink_to("/etc/passwd"),
        lambda folder: (folder / "merges.txt").mkdir(),
        lambda folder: ((folder / "adapter_model.safetensors").unlink(), (folder / "adapter_model.safetensors").symlink_to("/etc/passwd")),
    ],
)
def test_anything_but_regular_files_of_the_allow_list_is_refused(tmp_path: Path, base: Path, spoil: Callable[[Path], Any]) -> None:
    folder = make_adapter(tmp_path / "a")
    spoil(folder)
    assert refusal(folder, base).reason == "FileNotAllowed"


def test_a_header_that_would_fill_the_agents_memory_is_not_read(tmp_path: Path, base: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", (16 << 20) + 1))
        file.truncate(20 << 20)
    assert "header of 16777217 bytes, the limit is 16777216" in refusal(folder, base).message


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_weights_that_are_cut_off_are_refused(tmp_path: Path, base: Path, cut: int) -> None:
    folder = make_adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    assert refusal(folder, base).reason == "TensorMismatch"
