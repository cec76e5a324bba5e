"""A run up to the point where torch would be needed: what is refused, how fast, and what the termination message says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from graftwork_trainer import base, publish
from graftwork_trainer.errors import RunError
from graftwork_trainer.evaluate import below_gate_message, judge
from graftwork_trainer.main import explain
from graftwork_trainer.process import usable_cpus

from tests.unit.trainer.samples import ROOT, RUN, schema

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"
PATHS = {"PYTHONPATH": os.pathsep.join((str(ROOT / "images/trainer"), str(ROOT / "images/common")))}


@dataclass(frozen=True)
class Ended:
    """How a trainer ended."""

    code: int
    result: dict[str, Any]
    log: str


def trainer(tmp_path: Path, lines: str, **changes: Any) -> Ended:
    """Run the trainer in a process in which torch cannot be imported: whatever it says, it says without it."""
    data, refuse = tmp_path / "data", tmp_path / "refuse" / "torch"
    data.mkdir()
    refuse.mkdir(parents=True)
    (data / "train.jsonl").write_text(lines)
    (refuse / "__init__.py").write_text("raise ImportError('torch was imported')")
    run = {
        **RUN,
        "base": {"path": str(tmp_path / "base"), "source": "s3://models/tiny"},
        "dataset": {**RUN["dataset"], "path": str(data)},
        "scratch": str(tmp_path / "scratch"),
        "progressPort": 0,
        **changes,
    }
    log = tmp_path / "termination-log"
    paths = f"{refuse.parent}{os.pathsep}{PATHS['PYTHONPATH']}"
    environment = {"PATH": os.environ["PATH"], "GRAFTWORK_RUN": json.dumps(run), "GRAFTWORK_TERMINATION_LOG": str(log), "PYTHONPATH": paths}
    done = subprocess.run((sys.executable, "-m", "graftwork_trainer"), env=environment, capture_output=True, text=True, timeout=60, check=False)
    raw = log.read_bytes()
    assert len(raw) <= 4096
    result = json.loads(raw)
    schema("result").validate(result)
    return Ended(done.returncode, result, done.stderr)


def test_a_wrong_line_ends_the_run_with_64_before_torch_is_imported(tmp_path: Path) -> None:
    ended = trainer(tmp_path, GOOD + '{"messages": [{"role": "user", "content": "no answer"}]}\n')
    assert ended.code == 64
    assert ended.result["reason"] == "DatasetInvalid"
    assert ended.result["message"].startswith("train.jsonl line 2: expected the last message to be the assistant's answer")
    assert "torch was imported" not in ended.log


def test_a_message_that_is_too_long_is_shortened_and_the_result_stays_whole(tmp_path: Path) -> None:
    ended = trainer(tmp_path, GOOD + "".join('{"messages": [{"role": "' + "\u00e9" * 39 + '", "content": "x"}]}\n' for _ in range(50)))
    assert ended.code == 64
    assert "line 2: expected" in ended.result["message"]


def test_a_wrong_setting_ends_the_run_with_65(tmp_path: Path) -> None:
    ended = trainer(tmp_path, GOOD, method="dora")
    assert (ended.code, ended.result["reason"]) == (65, "InvalidSpec")
    assert ended.result["message"] == "method is 'dora': is not one of the known values; use one of qlora, lora"


def test_a_folder_that_is_no_model_ends_the_run_with_65_and_keeps_what_was_known(tmp_path: Path) -> None:
    ended = trainer(tmp_path, GOOD)
    assert (ended.code, ended.result["reason"]) == (65, "ModelInvalid")
    assert "s3://models/tiny has no config.json" in ended.result["message"]
    assert ended.result["dataset"]["examples"] == 1
    assert ended.result["memory"]["measuredPeakBytes"] > 1_000_000


def test_an_unexpected_error_ends_the_run_with_70_and_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = trainer(tmp_path, GOOD, scratch=str(tmp_path / "file" / "below"))
    assert (ended.code, ended.result["reason"]) == (70, "TrainingFailed")
    assert "NotADirectoryError" in ended.result["message"]
    assert "Traceback" in ended.log


STUCK = """
import sys, hashlib
from graftwork_trainer.process import exit_promptly_on_sigterm
exit_promptly_on_sigterm()
print("stuck", flush=True)
hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)
"""


def test_sigterm_ends_a_run_that_is_deep_inside_a_library_call() -> None:
    with subprocess.Popen((sys.executable, "-c", STUCK), env={**os.environ, **PATHS}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stuck\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143


@pytest.mark.parametrize(
    ("base_loss", "adapter_loss", "gate", "verdict"),
    [
        (2.0, 1.0, 0.5, "Passed"),
        (2.0, 1.0, 0.51, "BelowGate"),
        (2.0, 2.0, 0.0, "BelowGate"),
        (2.0, 2.5, -1.0, "BelowGate"),
        (2.0, 1.999, 0.0, "Passed"),
        (0.0, 0.0, 0.0, "BelowGate"),
    ],
)
def test_an_adapter_passes_only_when_it_is_better_and_by_enough(base_loss: float, adapter_loss: float, gate: float, verdict: str) -> None:
    evaluation = judge(base_loss, adapter_loss, gate)
    assert evaluation.verdict == verdict
    assert f"{gate:g}" in below_gate_message(evaluation, gate)


def test_a_loss_that_is_not_a_number_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RunError, match=r"lower training\.learningRate"):
        judge(2.0, float("nan"), 0.0)


class OutOfMemoryError(RuntimeError):
    """Named like torch's own."""


@pytest.mark.parametrize(
    ("error", "reason", "part"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "OutOfMemory", "lower training.batchSize"),
        (MemoryError(), "OutOfMemory", "MemoryError"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "OutOfMemory", "9 bytes"),
        (ValueError("first line\nlast line\n"), "TrainingFailed", "ValueError: last line"),
        (KeyboardInterrupt(), "TrainingFailed", "KeyboardInterrupt"),
    ],
)
def test_what_went_wrong_is_told_in_one_line(error: BaseException, reason: str, part: str) -> None:
    found = explain(error)
    assert found[0] == reason
    assert part in found[1]
    assert "\n" not in found[1]


def model(folder: Path, *, template: bool = True, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen3ForCausalLM"], **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"} if template else {}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_model_with_all_its_parts_is_accepted(tmp_path: Path) -> None:
    base.check_base(model(tmp_path / "m"), "s3://m", conversation=True)


@pytest.mark.parametrize(
    ("missing", "config", "expected"),
    [
        ("config.json", {}, "has no config.json"),
        ("model.safetensors", {}, "has no *.safetensors file"),
        ("tokenizer.json", {}, "has no tokenizer.json"),
        ("", {"architectures": []}, 'has no "architectures"'),
        ("", {"quantization_config": {}}, "is quantized already; train on the original"),
    ],
)
def test_a_model_that_lacks_something_is_refused_by_its_source(tmp_path: Path, missing: str, config: dict[str, Any], expected: str) -> None:
    folder = model(tmp_path / "m", **config)
    if missing:
        (folder / missing).unlink()
    with pytest.raises(RunError) as caught:
        base.check_base(folder, "s3://m", conversation=True)
    assert caught.value.reason == "ModelInvalid"
    assert caught.value.message.startswith("s3://m")
    assert expected in caught.value.message


def test_only_conversations_need_a_chat_template(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", template=False)
    base.check_base(folder, "s3://m", conversation=False)
    with pytest.raises(RunError, match=r"no chat template.*prompt_completion or text"):
        base.check_base(folder, "s3://m", conversation=True)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    base.check_base(folder, "s3://m", conversation=True)


def test_an_adapters_config_names_its_source_and_is_the_same_in_every_process(tmp_path: Path) -> None:
    texts = []
    for modules in (["v_proj", "q_proj"], ["q_proj", "v_proj"]):
        path = tmp_path / "adapter_config.json"
        path.write_text(json.dumps({"target_modules": modules, "r": 8, "base_model_name_or_path": "/models/base"}))
        publish.tidy_config(path, "s3://models/tiny")
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["base_model_name_or_path"] == "s3://models/tiny"


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", None), ("100000 100000", 1), ("50000 100000", 1), ("junk", None)])
def test_threads_follow_the_pods_cpu_limit(tmp_path: Path, quota: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_threads_follow_the_limit_of_cgroup_version_1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path) == 1
