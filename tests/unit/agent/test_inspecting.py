"""What a model is, without downloading it: from the fake hub and from a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import obstore
import pytest
from graftwork_agent import inspecting, model_facts
from graftwork_agent.__main__ import main
from graftwork_agent.inspecting import open_model
from graftwork_agent.model_folder import FolderModel
from graftwork_store.clients import s3_client
from graftwork_store.errors import (
    ModelInvalid,
    RevisionNotFound,
    SourceDenied,
    SourceFileTooLarge,
    SourceGated,
    SourceInvalid,
    SourceNotFound,
    SourceUnreachable,
    StoreError,
    UnsupportedFormat,
)
from graftwork_store.fingerprint import read_base

from tests.hub.content import File
from tests.hub.server import Hub
from tests.unit.agent.pod import SCHEMAS
from tests.unit.store.gateway import BUCKET, running_gateway
from tests.unit.store.seeds import f32, make_base, write_safetensors

TOKEN = "hf_s3cr3t"
SCHEMA = json.loads((SCHEMAS / "inspect-result.schema.json").read_text())
SHAPE = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "torch_dtype": "bfloat16"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "m", **SHAPE)


@pytest.fixture
def hub(base: Path) -> Hub:
    hub = Hub(tokens={TOKEN: "ann", "hf_other": "bob"})
    more = {"README.md": b"read me", "pytorch_model.bin": b"\x80\x02", "original/weights.00.pth": b"x", "tokenizer.json": b"{}", "logo.png": b"x"}
    hub.add("acme/tiny", files_of(base) | more)
    return hub


@pytest.fixture
def inspect(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the command and returns exit code and result."""
    log = tmp_path / "log"
    monkeypatch.setenv("GRAFTWORK_TERMINATION_LOG", str(log))

    def run(source: str, **more: str) -> tuple[int, dict[str, Any]]:
        code = inspecting.run(source, {**env, **more})
        data = log.read_bytes()
        assert len(data) <= 4096
        assert b"s3cr3t" not in data
        result = json.loads(data)
        jsonschema.validate(result, SCHEMA)
        return code, result

    return run


def test_a_model_is_described_to_the_commit_as_its_files_would_be(hub: Hub, base: Path, inspect: Any) -> None:
    code, result = inspect("hf://acme/tiny")
    assert (code, result["outcome"], result["reason"]) == (0, "Succeeded", "ModelResolved")
    assert result["resolved"] == {"source": "hf://acme/tiny", "revision": hub.repositories["acme/tiny"].refs["main"]}
    known = read_base(base)
    assert {key: result["model"][key] for key in known.facts()} == known.facts()
    shape = {"layers": 2, "hiddenSize": 16, "heads": 4, "kvHeads": 2, "headDim": 4, "vocabSize": 32, "kvLoraRank": None, "dtype": "bfloat16"}
    assert {key: result["model"][key] for key in shape} == shape
    assert (result["model"]["quantization"], result["model"]["task"], result["model"]["remoteCode"]) == ("", "generate", False)
    sizes = [(base / "config.json").stat().st_size, (base / "model.safetensors").stat().st_size, len(b"{}")]
    assert {key: result["files"][key] for key in ("count", "bytes", "largestBytes")} == {"count": 3, "bytes": sum(sizes), "largestBytes": max(sizes)}


def test_only_small_parts_are_asked_for_and_the_token_goes_to_the_hub_only(hub: Hub, tmp_path: Path, inspect: Any) -> None:
    tensors = {f"layer.{number}": f32([float(number)] * 300_000) for number in range(4)}
    write_safetensors(tmp_path / "big.safetensors", tensors)
    large = (tmp_path / "big.safetensors").read_bytes()
    hub.add("acme/big", {"config.json": b'{"architectures": ["X"]}', "model.safetensors": large}, gated=True, readers=[TOKEN])
    code, _ = inspect("hf://acme/big", HF_TOKEN=TOKEN)
    assert code == 0
    asked = [seen.range for seen in hub.seen if "/resolve/" in seen.path or "/large/" in seen.path]
    assert asked
    assert all(range_ for range_ in asked), "every part of a file is asked for by a range"
    assert sum(int(text.rpartition("-")[2]) - int(text.removeprefix("bytes=").partition("-")[0]) for text in set(asked)) < len(large) // 4
    assert {(seen.host.partition(":")[0], seen.token) for seen in hub.seen} == {("127.0.0.1", TOKEN), ("localhost", "")}


def test_a_header_that_is_longer_than_the_first_part_is_read_whole(hub: Hub, base: Path, inspect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_facts, "_FIRST_BYTES", 100)
    assert inspect("hf://acme/tiny")[1]["model"]["fingerprint"] == read_base(base).fingerprint


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, tmp_path: Path, inspect: Any) -> None:
    other = make_base(tmp_path / "other", seed=5)
    sha = hub.add("acme/tiny", files_of(other), "v2")
    for revision in ("v2", sha):
        _, result = inspect(f"hf://acme/tiny@{revision}")
        assert (result["resolved"]["revision"], result["model"]["fingerprint"]) == (sha, read_base(other).fingerprint)


@pytest.mark.parametrize(
    ("access", "token", "kind", "words"),
    [
        ({"gated": True}, "", SourceGated, "gated (HTTP 401, no HF_TOKEN"),
        ({"gated": True}, "hf_other", SourceGated, "accept its terms"),
        ({"private": True}, "", SourceDenied, "does not exist, is private"),
        ({"private": True}, "hf_other", SourceNotFound, "no such repository"),
        ({}, "hf_forged_s3cr3t", SourceDenied, "HTTP 401"),
    ],
)
def test_what_may_not_be_read_is_told_apart_and_not_tried_again(
    hub: Hub, inspect: Any, access: dict[str, bool], token: str, kind: type[StoreError], words: str
) -> None:
    for name, value in access.items():
        setattr(hub.repositories["acme/tiny"], name, value)
    code, result = inspect("hf://acme/tiny", HF_TOKEN=token)
    assert (code, result["reason"]) == (65, kind.reason)
    assert words in result["message"]


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("hf://acme/tiny@nowhere", RevisionNotFound, "no such revision"),
        ("hf://acme/nothing", SourceDenied, "does not exist"),
        ("hf://acme/tiny/folder", SourceInvalid, "has no folder 'folder'"),
        ("hf://tiny", SourceInvalid, "hf://<owner>/<repository>"),
        ("ftp://acme/tiny", SourceInvalid, "s3://<bucket>/<prefix>"),
    ],
)
def test_what_is_not_there_is_named(inspect: Any, source: str, kind: type[StoreError], words: str) -> None:
    code, result = inspect(source)
    assert (code, result["reason"]) == (65, kind.reason)
    assert words in result["message"]


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"\x80"}, UnsupportedFormat, "it has pytorch_model.bin"),
        ({"model.gguf": b"GGUF"}, UnsupportedFormat, "model.gguf"),
        ({"README.md": b"soon"}, UnsupportedFormat, "1 files and no weights"),
        ({"model.safetensors": b"x" * 20}, ModelInvalid, "no config.json"),
        ({"config.json": b"[]", "model.safetensors": b"x" * 20}, ModelInvalid, "must be a JSON object"),
        ({"config.json": b"{}", "model.safetensors": b"abc"}, ModelInvalid, "too few"),
        ({"config.json": b"{}", "model.safetensors": b"\xff" * 20}, ModelInvalid, "not safetensors"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_downloaded(
    hub: Hub, inspect: Any, files: dict[str, bytes], kind: type[StoreError], words: str
) -> None:
    hub.add("acme/odd", files)
    code, result = inspect("hf://acme/odd")
    assert (code, result["reason"]) == (65, kind.reason)
    assert words in result["message"]


def test_missing_shards_are_named(hub: Hub, base: Path, inspect: Any) -> None:
    index = json.dumps({"weight_map": {"x": "model.safetensors", "y": "model-2.safetensors"}}).encode()
    hub.add("acme/torn", files_of(base) | {"model.safetensors.index.json": index})
    code, result = inspect("hf://acme/torn")
    assert (code, result["reason"]) == (65, "ModelInvalid")
    assert "the first is model-2.safetensors" in result["message"]


def test_a_file_that_the_hub_does_not_serve_over_http_is_refused_with_both_numbers(hub: Hub, inspect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = File.sibling

    def huge(self: File, *, blobs: bool) -> dict[str, object]:
        return real(self, blobs=blobs) | ({"size": 50_000_000_001} if self.path == "model.safetensors" else {})

    monkeypatch.setattr(File, "sibling", huge)
    code, result = inspect("hf://acme/tiny")
    assert (code, result["reason"]) == (65, SourceFileTooLarge.reason)
    for text in ("model.safetensors", "50000000001", "50000000000", "s3://"):
        assert text in result["message"]


def test_a_hub_that_does_not_answer_is_tried_again(inspect: Any) -> None:
    code, result = inspect("hf://acme/tiny", HF_ENDPOINT="http://127.0.0.1:1")
    assert (code, result["reason"]) == (70, SourceUnreachable.reason)


def test_a_hostile_configuration_makes_no_long_result(hub: Hub, base: Path, inspect: Any) -> None:
    config = {"architectures": ["A" * 5000], "torch_dtype": "d" * 5000, "quantization_config": {"quant_method": "q" * 5000}, "num_hidden_layers": -1}
    hub.add("acme/odd", files_of(base) | {"config.json": json.dumps(config | {"vocab_size": True, "head_dim": 10**40}).encode()})
    code, result = inspect("hf://acme/odd")
    assert code == 0
    assert (result["model"]["layers"], result["model"]["vocabSize"], result["model"]["headDim"]) == (None, None, None)


@pytest.mark.parametrize(
    ("config", "paths", "expected"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, set(), "generate"),
        ({"architectures": ["Qwen2VLForConditionalGeneration"]}, set(), "generate"),
        ({"architectures": ["Qwen3ForCausalLM"]}, {"modules.json"}, "embed"),
        ({"architectures": ["BertModel"]}, set(), "embed"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, set(), "classify"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, {"modules.json"}, "classify"),
        ({"architectures": ["InternVLChatModel"]}, set(), "generate"),
        ({"architectures": ["InternLM2ForRewardModel"]}, set(), "embed"),
        ({"architectures": ["WhisperForConditionalGeneration"]}, set(), "transcribe"),
        ({}, set(), "generate"),
    ],
)
def test_the_task_is_told_by_configuration_and_files(config: dict[str, Any], paths: set[str], expected: str) -> None:
    assert model_facts.task(config, paths) == expected


def test_a_nested_and_quantized_configuration_is_read(hub: Hub, base: Path, inspect: Any) -> None:
    text = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 8, "kv_lora_rank": 512}
    config = {"architectures": ["X"], "text_config": text, "quantization_config": {"quant_method": "awq"}, "auto_map": {"AutoModel": "x.Y"}}
    hub.add("acme/vlm", files_of(base) | {"config.json": json.dumps(config).encode()})
    model = inspect("hf://acme/vlm")[1]["model"]
    assert (model["layers"], model["kvHeads"], model["headDim"], model["kvLoraRank"]) == (3, 8, 8, 512)
    assert (model["quantization"], model["remoteCode"]) == ("awq", True)


FP8, NVFP4 = ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": name}} for name in ("FP8", "NVFP4"))
QUANTIZED: list[tuple[dict[str, Any], dict[str, Any], str, bool]] = [
    ({}, {}, "", False),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {}, "gptq", False),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, {}, "compressed-tensors", False),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, {}, "compressed-tensors", False),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, {}, "bitsandbytes", False),
    ({"quantization_config": {"quant_method": "fp8"}}, {"hf_quant_config.json": NVFP4}, "fp8", False),
    ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}}, {}, "modelopt_mixed", False),
    ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "MXFP8"}}, {}, "modelopt_mxfp8", False),
    ({"quantization_config": FP8}, {}, "modelopt", False),
    ({}, {"hf_quant_config.json": NVFP4}, "modelopt_fp4", False),
    ({}, {"hf_quant_config.json": ["no", "object"]}, "", False),
    ({}, {"quantize_config.json": {"bits": 4}}, "", True),
]


@pytest.mark.parametrize(("config", "files", "method", "of_file"), QUANTIZED, ids=str)
def test_how_the_weights_are_quantized_is_told_in_the_words_of_vllm(
    hub: Hub, base: Path, inspect: Any, config: dict[str, Any], files: dict[str, Any], method: str, of_file: bool
) -> None:
    whole = json.loads((base / "config.json").read_text()) | config
    hub.add("acme/q", files_of(base) | {name: json.dumps(item).encode() for name, item in ({"config.json": whole} | files).items()})
    model = inspect("hf://acme/q")[1]["model"]
    assert (model["quantization"], model["quantizationFile"]) == (method, of_file)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}], True),
        ([{"type": "custom_st.Transformer"}, "x"], False),
        ({"not": "a list"}, None),
        (None, None),
    ],
)
def test_whether_vllm_reads_the_pooling_of_sentence_transformers_is_told(
    hub: Hub, base: Path, inspect: Any, modules: Any, expected: bool | None
) -> None:
    hub.add("acme/st", files_of(base) | ({"modules.json": json.dumps(modules).encode()} if modules else {}))
    assert inspect("hf://acme/st")[1]["model"].get("poolingModule") is expected


@pytest.fixture(scope="module")
def s3_env(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[dict[str, str]]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as env:
        client = s3_client(BUCKET, "", env)
        for name, data in files_of(base).items():
            obstore.put(client, f"models/tiny/{name}", data)
        obstore.put(client, "models/pickled/config.json", b"{}")
        obstore.put(client, "models/pickled/pytorch_model.bin", b"\x80")
        yield env


def test_a_model_in_a_bucket_is_the_same_model_and_its_listing_is_its_revision(s3_env: dict[str, str], base: Path) -> None:
    first = open_model(f"s3://{BUCKET}/models/tiny", s3_env)
    in_a_folder = model_facts.facts(FolderModel(base))
    assert in_a_folder["fingerprint"] == read_base(base).fingerprint
    assert model_facts.facts(first) == in_a_folder, "by range requests as in a pod"
    assert open_model(f"s3://{BUCKET}/models/tiny", s3_env).revision == first.revision
    obstore.put(s3_client(BUCKET, "", s3_env), "models/tiny/extra.json", b"{}")
    assert open_model(f"s3://{BUCKET}/models/tiny", s3_env).revision != first.revision


@pytest.mark.parametrize(
    ("source", "change", "kind"),
    [
        ("s3://bucket/models/nothing", {}, SourceNotFound),
        ("s3://nowhere/models", {}, SourceNotFound),
        ("s3://bucket/models/pickled", {}, UnsupportedFormat),
        ("s3://bucket/models", {}, ModelInvalid),
        ("s3://bucket/models/tiny", {"AWS_SECRET_ACCESS_KEY": "wrong"}, SourceDenied),
        ("s3://bucket/models/tiny", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, SourceUnreachable),
    ],
)
def test_what_is_wrong_with_a_bucket_is_told_apart(s3_env: dict[str, str], source: str, change: dict[str, str], kind: type[StoreError]) -> None:
    with pytest.raises(kind) as caught:
        open_model(source, s3_env | change)
    assert type(caught.value) is kind


def test_the_command_ends_as_its_result_says(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**env, "GRAFTWORK_TERMINATION_LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)
    assert main(["inspect", "--source", "hf://acme/tiny"]) == 0
    assert main(["inspect", "--source", "hf://acme/tiny@gone"]) == 65
    assert json.loads((tmp_path / "log").read_text())["reason"] == "RevisionNotFound"
