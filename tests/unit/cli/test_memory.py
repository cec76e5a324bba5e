"""The memory terms of a plan, without a cluster: the text, and where the facts come from."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from graftwork.api import LLMDeployment
from graftwork.cli import models
from graftwork.cli.files import FileError
from graftwork.cli.main import main, quantity
from graftwork.cli.memory import UNKNOWN
from graftwork.cli.plan import plan

from tests.unit.sizing.models import DEEPSEEK_V3, FINGERPRINT, LLAMA_3_8B, QWEN3_06B, resolved

FACTS = Path(__file__).with_name("recorded") / "llama-3-8b.json"
SOURCE = "hf://acme/model"


def deployment(status: dict[str, Any] | None = None, **spec: Any) -> LLMDeployment:
    metadata = {"name": "support", "namespace": "ml"}
    return LLMDeployment.from_object({"metadata": metadata, "spec": {"model": {"source": SOURCE}, **spec}, "status": status or {}})


LLAMA_TEXT = """
Memory of each GPU:
  weights     14.96 GiB  8030261248 parameters x 2 bytes (bfloat16)
  KV cache     1.00 GiB  8192 tokens (one request) x 131072 bytes: 2 x 32 layers x 8 heads x 128 x 2 bytes (bfloat16), 32 heads share 8
  LoRA slots   0.72 GiB  8 slots x rank 16 x (32 layers x 85928 + 264704 of embedding and head) x 2 bytes
  engine       2.00 GiB  stated: CUDA context, activations, CUDA graphs; the engine measures them at its start
  needed      18.68 GiB  for one request of the longest context; more at once need more KV cache
  GPU         24.00 GiB  x gpuMemoryUtilization 0.9 = 21.60 GiB for the engine: 2.92 GiB are left, 32143 tokens of KV cache in all

Pod:
  requests            cpu 3, memory 6880Mi, ephemeral-storage 17114Mi, beside what spec.pod.resources says
  limits              memory 53203Mi, beside what spec.pod.resources says
  memory    6.72 GiB  is requested: 4 GiB + 1 GPU x (2 GiB + 8 adapters x 92 MiB)
  /dev/shm       2Gi  memory of the pod, counted against its limit
  model      17114Mi  room on the node for its files: their size x 1.1 + 256 MiB
  startup     1353 s  by the size of the weights, then a new revision is given up; the kubelet ends the engine after 3600 s

--- Deployment/support (now)
"""


def test_plan_prints_every_term_with_its_arithmetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(f"apiVersion: graftwork.dev/v1alpha1\nkind: LLMDeployment\nmetadata: {{name: support}}\nspec: {{model: {{source: '{SOURCE}'}}}}\n")
    assert main(["plan", "--offline", "-f", str(new), "--facts", str(FACTS), "--gpu-memory", "24Gi"]) == 0
    out = capsys.readouterr().out
    assert LLAMA_TEXT in out
    assert "+            memory: 6880Mi\n" in out  # the diff has what the operator would make


GPU_16, GPU_17 = 16 * 2**30, 17 * 2**30
SAYS: list[tuple[str, dict[str, Any], Any, int | None, str]] = [
    ("no GPU's size", {}, LLAMA_3_8B, None, "GPU          not said  no field of the spec has the size of a GPU's memory"),
    # 20053434368 - 0.9 x 20 GiB = 726081536; (1 GiB - 726081536) / 131072 = 2652
    ("too little", {}, LLAMA_3_8B, 20 * 2**30, "0.68 GiB too little; with engine.maxModelLen 2652 it would fit"),
    ("far too little", {}, LLAMA_3_8B, GPU_16, "4.28 GiB too little; take a larger GPU, or more of them (accelerator.count)"),
    ("two GPUs", {"accelerator": {"count": 2}}, LLAMA_3_8B, GPU_16, "Memory of each GPU (tensor 2 x pipeline 1):"),
    ("two GPUs", {"accelerator": {"count": 2}}, LLAMA_3_8B, GPU_16, "weights      7.48 GiB  8030261248 parameters x 2 bytes (bfloat16) / 2 GPUs"),
    ("latent attention", {"accelerator": {"count": 8}}, DEEPSEEK_V3, None, "61 layers x (512 + 64) x 2 bytes (bfloat16), latent attention"),
    ("latent attention", {"accelerator": {"count": 8}}, DEEPSEEK_V3, None, "LoRA slots  not known  not computed for latent attention"),
    ("latent attention", {"accelerator": {"count": 8}}, DEEPSEEK_V3, None, "of the longest context, without what is not known; more"),
    ("fp8", {"engine": {"kvCacheDtype": "fp8"}}, LLAMA_3_8B, None, "8192 tokens (one request) x 65536 bytes"),
    ("a shorter context", {"engine": {"maxModelLen": 1024}}, LLAMA_3_8B, None, "1024 tokens (one request) x 131072 bytes"),
    ("CPUs", {"accelerator": {"types": ["cpu"]}}, QWEN3_06B, None, "VLLM_CPU_KVCACHE_SPACE: 9362 tokens of 114688 bytes"),
    (
        "CPUs",
        {"accelerator": {"types": ["cpu"]}},
        QWEN3_06B,
        None,
        "one request  4.38 GiB  too much: set engine.maxModelLen to 9362, or VLLM_CPU_KVCACHE_SPACE to 5",
    ),
    (
        "CPUs",
        {"accelerator": {"types": ["cpu"]}, "engine": {"args": {"kv-cache-memory-bytes": 1}}},
        QWEN3_06B,
        None,
        "VLLM_CPU_KVCACHE_SPACE of engine.env is no whole number of GiB, or a flag says it",
    ),
    (
        "a deadline",
        {"rollout": {"progressDeadline": "2h"}},
        LLAMA_3_8B,
        None,
        "7200 s  as spec.rollout.progressDeadline says, then a new revision is given up; the kubelet ends the engine after 7260 s",
    ),
    (
        "no facts for the operator",
        {"model": {"source": "pvc://models/m"}},
        LLAMA_3_8B,
        None,
        "only a model that the operator looks up (hf://, s3://)",
    ),
]


@pytest.mark.parametrize(("spec", "model", "gpu_bytes", "says"), [case[1:] for case in SAYS], ids=[case[0] for case in SAYS])
def test_what_is_said(spec: dict[str, Any], model: Any, gpu_bytes: int | None, says: str) -> None:
    assert says in plan(deployment(**spec), None, known=resolved(model), gpu_bytes=gpu_bytes).memory


def test_without_facts_it_is_said_where_they_come_from() -> None:
    assert plan(deployment(), None).memory == UNKNOWN


def status(source: str = SOURCE) -> dict[str, Any]:
    return {"model": {"resolved": {**resolved(LLAMA_3_8B).to_object(), "source": source}}}


def test_the_status_of_what_runs_has_the_facts() -> None:
    made = plan(deployment(engine={"maxModelLen": 1024}), deployment(status()))
    assert "1024 tokens (one request) x 131072 bytes" in made.memory
    assert "memory: 6880Mi" not in made.diff  # both sides have it


@pytest.mark.parametrize(
    "current", [deployment(status("hf://acme/other")), deployment(status("hf://acme/other"), model={"source": "hf://acme/other"}), deployment()]
)
def test_facts_of_another_model_are_not_taken(current: LLMDeployment) -> None:
    assert plan(deployment(), current).memory == UNKNOWN


def test_what_agents_have_read_of_a_claim_has_its_shapes_and_its_quantization() -> None:
    spec = {"model": {"source": "pvc://models/m"}}
    facts = {"fingerprint": "sha256:" + "1" * 64, "architecture": "Q", "parameters": 800, "weightsBytes": 9 * 2**30, "quantization": "fp8"}
    model = {
        "architecture": "Q",
        "parameters": 800,
        "weightsBytes": 9 * 2**30,
        "facts": {**facts, "layers": 2, "heads": 4, "kvHeads": 2, "headDim": 16},
    }
    made = plan(deployment(**spec), deployment({"model": model}, **spec))
    assert "weights      9.00 GiB  9663676416 bytes of files (fp8)" in made.memory
    assert "do not say how many layers" not in made.memory


def test_facts_that_are_given_make_no_difference_by_themselves() -> None:
    now = deployment({"model": {"resolved": resolved(QWEN3_06B).to_object()}})
    made = plan(deployment(), now, known=resolved(LLAMA_3_8B))
    assert made.diff == ""
    assert "8030261248 parameters" in made.memory


def test_what_agents_have_read_of_a_bucket_is_enough_for_the_weights() -> None:
    spec = {"model": {"source": "s3://models/m"}}
    running = deployment({"model": {"architecture": "Q", "parameters": 100 * 2**20, "weightsBytes": 200 * 2**20, "maxModelLen": 512}}, **spec)
    made = plan(deployment(**spec), running)
    assert "weights      0.20 GiB  104857600 parameters x 2 bytes (bfloat16)" in made.memory
    assert "the facts do not say how many layers the model has" in made.memory


def test_a_spec_that_is_refused_has_no_memory() -> None:
    assert plan(deployment(engine={"args": {"port": 1}}), None, known=resolved(LLAMA_3_8B)).memory == ""


@pytest.mark.parametrize(
    "shape",
    [
        lambda given: given,
        lambda given: given["facts"],
        lambda given: {"status": {"model": {"fingerprint": FINGERPRINT, "resolved": given}}},
        lambda given: {"model": given["facts"], "files": given["files"], "outcome": "Succeeded"},
    ],
    ids=["resolved", "facts", "LLMDeployment", "result of an inspection"],
)
def test_facts_files(tmp_path: Path, shape: Any) -> None:
    given = resolved(LLAMA_3_8B, 16_069_606_421).to_object()
    (tmp_path / "facts.json").write_text(json.dumps(shape(given)))
    found = models.from_file(str(tmp_path / "facts.json"), SOURCE)
    assert found.facts == LLAMA_3_8B
    assert found.files.bytes == (16_069_606_421 if "files" in json.dumps(shape(given)) else LLAMA_3_8B.weights_bytes)


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read"), ("[]", "has no facts"), ('{"model": {}}', "has no facts of a model")])
def test_a_file_without_facts(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(FileError, match=says):
        models.from_file(str(tmp_path / "facts.json"), SOURCE)


def shard(path: Path, **tensors: tuple[str, list[int], int]) -> None:
    header, end = {"__metadata__": {"format": "pt"}}, 0
    entries: dict[str, Any] = dict(header)
    for name, (dtype, shape, size) in tensors.items():
        entries[name], end = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}, end + size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def folder(tmp_path: Path, config: dict[str, Any]) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    shard(tmp_path / "model-1.safetensors", a=("BF16", [4, 8], 64), b=("BF16", [8], 16))
    shard(tmp_path / "model-2.safetensors", c=("F32", [2, 2], 16))
    shard(tmp_path / "consolidated.safetensors", again=("BF16", [100], 200))
    return str(tmp_path)


def test_a_model_in_a_folder(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "awq"},
        "text_config": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 512, "vocab_size": 100},
    }
    facts = models.from_folder(folder(tmp_path, config), SOURCE).facts
    assert (facts.parameters, facts.weights_bytes, facts.architecture, facts.quantization) == (44, 96, "LlamaForCausalLM", "awq")
    assert (facts.layers, facts.hidden_size, facts.heads, facts.kv_heads, facts.head_dim, facts.vocab_size) == (2, 64, 4, 4, 16, 100)
    assert (facts.max_model_len, facts.dtype, facts.kv_lora_rank) == (512, "bfloat16", None)


def test_head_dim_and_kv_heads_of_the_configuration_win(tmp_path: Path) -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    facts = models.from_folder(folder(tmp_path, config), SOURCE).facts
    assert (facts.kv_heads, facts.head_dim) == (2, 32)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "config.json cannot be read"),
        ({"config.json": b"[]"}, "is no JSON object"),
        ({"config.json": b"{}"}, "has no .*safetensors"),
        ({"config.json": b"{}", "model.safetensors": b"abc"}, "is no safetensors file"),
        ({"config.json": b"{}", "model.safetensors": struct.pack("<Q", 10**12)}, "its header would have"),
        ({"config.json": b"{}", "model.safetensors": struct.pack("<Q", 8) + b'{"a": 1}'}, "is no safetensors file"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=says):
        models.from_folder(str(tmp_path), SOURCE)


def test_plan_reads_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    where = folder(tmp_path / "model", {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "max_position_embeddings": 512})
    assert main(["plan", "--offline", "-f", "examples/06-serve-from-the-hub.yaml", "--model", where]) == 0
    # 512 tokens x 2 x 2 layers x 4 heads x 16 x 2 bytes
    assert "512 tokens (one request) x 512 bytes: 2 x 2 layers x 4 heads x 16 x 2 bytes (bfloat16)" in capsys.readouterr().out


def test_a_file_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--offline", "-f", "examples/06-serve-from-the-hub.yaml", "--facts", "/nowhere.json"]) == 1
    assert "/nowhere.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("80Gi", 80 * 2**30), ("1.5Gi", 3 * 2**29), ("80G", 80 * 10**9), ("512Mi", 2**29), ("7", 7)])
def test_sizes(text: str, size: int) -> None:
    assert quantity(text) == size


def test_no_size(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "-f", "x", "--gpu-memory", "much"])
    assert "'much' is no size; write one such as 80Gi" in capsys.readouterr().err
