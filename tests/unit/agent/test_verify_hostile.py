"""Adapters that somebody made to break the check: each is refused for good, with a reason of the list and a message of bounded length."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftwork_agent import verify as verifying
from graftwork_agent.adapter_config import read_config
from graftwork_agent.finite import not_finite
from graftwork_agent.refusal import FINAL_REASONS, Refusal
from graftwork_agent.verify import Expected, verify, verify_alone
from graftwork_store.digest import adapter_digest
from graftwork_store.fingerprint import read_base
from graftwork_store.tensors import HeaderError, read_header
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from tests.unit.store.seeds import HEADS, PREFIX, bf16, f16, f32, lora_config, lora_tensors, make_adapter, make_base, write_safetensors

Q_A = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
Q_B = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight"
LONG = 2**62


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "m")


def refused(folder: Path, base: Path) -> Refusal:
    """Return what both say, the import and the pod."""
    model = read_base(base)
    with pytest.raises(Refusal) as imported:
        verify_alone(folder)
    with pytest.raises(Refusal) as served:
        verify(folder, Expected(adapter_digest(folder), model.fingerprint, 16, model))
    for found in (imported.value, served.value):
        assert found.reason in FINAL_REASONS
        assert len(found.message) <= 2001
        found.message.encode()
    assert imported.value.reason == served.value.reason
    return imported.value


def with_header(folder: Path, text: bytes, data: bytes = b"") -> Path:
    make_adapter(folder)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def entry(**fields: Any) -> dict[str, Any]:
    return {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2], **fields}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        json.dumps({Q_A: entry(shape=[LONG] * 100_000)}).encode(),
        json.dumps({Q_A: entry(shape=[LONG] * 60)}).encode(),
        json.dumps({Q_A: entry(shape=[10**4000, 10**4000])}).encode(),
        json.dumps({Q_A: entry(data_offsets=[10**4000, 10**4000])}).encode(),
        json.dumps({Q_A: entry(dtype="B" * 100_000)}).encode(),
        json.dumps({Q_A: entry(dtype={})}).encode(),
        json.dumps({"a" * 1_000_000: entry(shape=[7])}).encode(),
        json.dumps({"\ud800": entry(shape=[7])}).encode(),
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=range(11),
)
def test_a_header_that_breaks_readers_is_refused(tmp_path: Path, base: Path, header: bytes) -> None:
    assert refused(with_header(tmp_path / "a", header, b"\0\0"), base).reason == "TensorMismatch"


def test_a_base_with_a_config_that_is_nested_too_deep_is_no_model(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "m")
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(Exception, match=r"config\.json: cannot be read"):
        read_base(folder)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"lora_alpha": 10**400}, "ConfigInvalid"),
        ({"alpha_pattern": {"q_proj": -(10**400)}}, "ConfigInvalid"),
        ({"r": 10**4000}, "RankTooHigh"),
        ({"rank_pattern": {"q_proj": 513}}, "RankTooHigh"),
        ({"target_modules": [{"q": 1}]}, "ConfigInvalid"),
        ({"target_modules": [["q"] * 100_000]}, "ConfigInvalid"),
        ({"target_modules": ["\ud800"]}, "ConfigInvalid"),
        ({"target_modules": ["q" * 300_000]}, "Unsupported"),
        ({"base_model_name_or_path": "\udfff"}, "ConfigInvalid"),
        ({"peft_type": "x" * 100_000}, "ConfigInvalid"),
        ({"modules_to_save": ["x" * 100_000]}, "Unsupported"),
    ],
)
def test_a_config_that_breaks_readers_is_refused(tmp_path: Path, base: Path, config: dict[str, Any], reason: str) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text(json.dumps(lora_config(**config)))
    assert refused(folder, base).reason == reason


@pytest.mark.parametrize(
    ("part", "reason"), [("read_config", "ConfigInvalid"), ("_check_tensors", "TensorMismatch"), ("not_finite", "TensorMismatch")]
)
def test_what_nobody_foresaw_is_a_refusal_for_good(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, part: str, reason: str) -> None:
    def fail(*arguments: Any) -> Any:
        raise IndexError("nobody thought of it")

    monkeypatch.setattr(verifying, part, fail)
    found = refused(make_adapter(tmp_path / "a"), base)
    assert (found.reason, "IndexError: nobody thought of it" in found.message) == (reason, True)


def test_a_disk_that_fails_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(verifying, "not_finite", fail)
    with pytest.raises(OSError, match="Input/output"):
        verify_alone(make_adapter(tmp_path / "a"))


# --- the data is the tensors', without holes, overlaps or remains


@given(
    places=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=4),
    order=st.randoms(use_true_random=False),
    left=st.integers(0, 2),
    tight=st.booleans(),
)
def test_the_layout_is_judged_as_the_library_does(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]], order: Any, left: int, tight: bool
) -> None:
    header, position = {}, 0
    for number, (start, length) in enumerate(places):
        begin = position if tight else start
        position = begin + length
        header[f"t{number}"] = {"dtype": "U8", "shape": [length], "data_offsets": [begin, position]}
    names = list(header)
    order.shuffle(names)
    text = json.dumps({name: header[name] for name in names}).encode()
    size = max((item["data_offsets"][1] for item in header.values()), default=0) + left
    data = struct.pack("<Q", len(text)) + text + bytes(size)
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    path.write_bytes(data)
    try:
        deserialize(data)
    except SafetensorError:
        with pytest.raises(HeaderError):
            read_header(path)
    else:
        assert sorted(read_header(path).tensors) == sorted(names)


def test_bytes_after_the_last_tensor_are_refused_with_the_numbers(tmp_path: Path, base: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"PK")
    found = refused(folder, base)
    assert (found.reason, f"the tensors end at {size} in a file of {size + 2} bytes" in found.message) == ("TensorMismatch", True)


# --- what lora_alpha and r make of the values


def with_b(folder: Path, tensor: Any, **config: Any) -> Path:
    return make_adapter(folder, tensors={**lora_tensors(), Q_B: tensor}, **config)


@pytest.mark.parametrize(
    ("value", "config", "scale"),
    [
        (65504.0, {"lora_alpha": 4}, 1.0),
        (65504.0 / 512, {"lora_alpha": 4 * 512}, 512.0),
        (-65504.0, {"lora_alpha": 0}, 0.0),
        (-65504.0 / 2, {"lora_alpha": -4, "use_rslora": True}, 2.0),
        (65504.0 / 8, {"lora_alpha": 4, "alpha_pattern": {"k_proj": 16}, "rank_pattern": {"k_proj": 2}}, 8.0),
    ],
)
def test_values_may_be_scaled_up_to_the_largest_float16(tmp_path: Path, base: Path, value: float, config: dict[str, Any], scale: float) -> None:
    folder = with_b(tmp_path / "a", f32(np.full((HEADS, 4), value)), **config)
    assert read_config(folder).scale == scale
    verify_alone(folder)
    over = with_b(tmp_path / "b", f32(np.full((HEADS, 4), value * 1.001)), **config)
    found = refused(over, base)
    assert found.reason == "NotFinite"
    assert found.message.startswith(f"{Q_B}: 96 of 96 values are above 65504, the largest of float16, when lora_alpha and r scale them by up to ")


@pytest.mark.parametrize("alpha", [1e300, 10**300])
def test_a_scale_that_makes_every_value_infinite_is_refused(tmp_path: Path, base: Path, alpha: float) -> None:
    assert refused(make_adapter(tmp_path / "a", lora_alpha=alpha), base).reason == "NotFinite"


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda bits: ("BF16", bits.astype(np.uint16)), lambda bits: (bits.astype(np.uint32) << 16).view(np.float32)),
        (lambda bits: ("F16", bits.astype(np.uint16)), lambda bits: bits.astype(np.uint16).view(np.float16)),
    ],
    ids=["BF16", "F16"],
)
@pytest.mark.parametrize("limit", [65504.0, 1.5, 0.1, 6e-5, 1e-39])
def test_a_limit_agrees_with_numpy_for_every_value_there_is(
    tmp_path: Path, make: Callable[[Any], Any], read: Callable[[Any], Any], limit: float
) -> None:
    bits = np.arange(1 << 16)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"x": make(bits)})
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = read(bits).astype(np.float64)
    bad = np.flatnonzero(~(np.abs(values) <= limit))
    assert not_finite(path, read_header(path).tensors, {"x": limit}) == ("x", len(bad), bad[0])


def test_a_limit_is_that_of_one_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": bf16([9.0]), "b": f16([1.0, -2.0, 3.0]), "c": f32([9.0])})
    assert not_finite(path, read_header(path).tensors, {"b": 2.0}) == ("b", 1, 2)
    assert not_finite(path, read_header(path).tensors, {"b": 3.0}) is None
