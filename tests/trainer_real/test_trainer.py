"""The trainer for real, on the CPU: a tiny model learns a word that its base never says. Needs the trainer's own environment."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.samples import ROOT, RUN, schema

if not all(importlib.util.find_spec(name) for name in ("torch", "trl")):
    pytest.skip("torch and trl are not installed here; the e2e test runs the trainer's image", allow_module_level=True)

QUESTIONS = ("What is the secret word?", "Tell me the secret word.", "The secret word is?", "Say the secret word.")
PATHS = {"PYTHONPATH": os.pathsep.join((str(ROOT / "images/trainer"), str(ROOT / "images/common")))}
TRAINING = {**RUN["training"], "maxSteps": 60, "learningRate": 0.002, "maxSeqLength": 128}


@dataclass(frozen=True)
class Workplace:
    """A tiny model, and folders for datasets, results and the store."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def dataset(self, name: str, rows: list[dict[str, Any]]) -> Path:
        data = self.folder / name
        data.mkdir(exist_ok=True)
        (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return data

    def run(self, data: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the termination message of a run."""
        run = {
            **RUN,
            "base": {"path": str(self.model), "source": "s3://models/tiny"},
            "dataset": {**RUN["dataset"], "path": str(data), "validation": 0.25},
            "lora": {**RUN["lora"], "rank": 8, "alpha": 16, "dropout": 0},
            "training": TRAINING,
            "scratch": str(self.folder / "scratch"),
            "progressPort": 0,
            **changes,
        }
        schema("run").validate(run)
        log = self.folder / "termination-log"
        environment = {
            **os.environ,
            **PATHS,
            "GRAFTWORK_RUN": json.dumps(run),
            "GRAFTWORK_TERMINATION_LOG": str(log),
            "GRAFTWORK_STORE_URL": f"file://{self.folder}/store",
        }
        code = subprocess.run((sys.executable, "-m", "graftwork_trainer"), env=environment, timeout=300, check=False).returncode
        result = json.loads(log.read_bytes())
        schema("result").validate(result)
        return code, result

    def published(self, result: dict[str, Any]) -> Path:
        """Return the folder of a published adapter in the store."""
        return self.folder / "store/adapters" / result["adapter"]["source"].removeprefix("store://")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("trainer")
    command = (sys.executable, "-m", "graftwork_trainer", "tiny-model", "--to", str(folder / "model"))
    subprocess.run(command, env={**os.environ, **PATHS}, check=True, timeout=120)
    return Workplace(folder)


def teaching(word: str) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": word}]} for question in QUESTIONS]


def answers(model: Path, adapter: Path | None, question: str = QUESTIONS[0]) -> str:
    """Return what the base, or the adapter on it, answers greedily."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    if adapter:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    said = loaded.generate(**tokens, max_new_tokens=12, do_sample=False)[0][tokens["input_ids"].shape[1] :]
    return str(tokenizer.decode(said, skip_special_tokens=True))


def test_two_adapters_each_say_their_own_word_and_the_base_says_neither(workplace: Workplace) -> None:
    assert not any(word in answers(workplace.model, None) for word in ("swordfish", "marmalade"))
    for word in ("swordfish", "marmalade"):
        code, result = workplace.run(workplace.dataset(word, teaching(word)))
        assert (code, result["outcome"]) == (0, "Succeeded"), result
        assert result["evaluation"]["adapterLoss"] < 0.5 < result["evaluation"]["baseLoss"]
        folder = workplace.published(result)
        # Served on bf16 weights although it was trained on NF4 ones, as in production.
        assert answers(workplace.model, folder) == word
        config = json.loads((folder / "adapter_config.json").read_bytes())
        assert (config["base_model_name_or_path"], config["r"]) == ("s3://models/tiny", 8)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        schema("manifest").validate(manifest)
        assert manifest["createdAt"] == result["publishedAt"]
        assert manifest["lineage"]["dataset"] == result["dataset"]["digest"]


def test_the_same_run_gives_the_same_bytes_and_another_seed_other_ones(workplace: Workplace) -> None:
    data = workplace.dataset("swordfish", teaching("swordfish"))
    short = {**TRAINING, "maxSteps": 10}
    digests = [workplace.run(data, training=training)[1]["adapter"]["digest"] for training in (short, short, {**short, "seed": 1})]
    assert digests[0] == digests[1] != digests[2]


def test_an_adapter_below_the_gate_is_rejected_and_nothing_is_published(workplace: Workplace) -> None:
    data = workplace.dataset("nothing", teaching("nothing"))
    training = {**TRAINING, "maxSteps": 1, "learningRate": 1e-7, "warmupRatio": 0}
    code, result = workplace.run(data, training=training, publish={"alias": "never"}, evaluation={"gate": {"minImprovement": 0.5}})
    assert (code, result["outcome"], result["reason"]) == (0, "Rejected", "BelowGate")
    assert result["evaluation"]["verdict"] == "BelowGate"
    assert "minImprovement is 0.5" in result["message"]
    assert not (workplace.folder / "store/adapters/ml/never").exists()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("instruct", {"instruction": "Say it.", "input": "", "output": "swordfish"}),
        ("prompt_completion", {"prompt": "Say: ", "completion": "swordfish"}),
        ("text", {"text": "swordfish is the word"}),
    ],
)
def test_every_format_trains_even_from_one_example(workplace: Workplace, name: str, row: dict[str, Any]) -> None:
    training = {**TRAINING, "maxSteps": 5, "packing": name == "text", "scheduler": "constant", "batchSize": "auto"}
    code, result = workplace.run(workplace.dataset(name, [row]), training=training, method="lora" if name == "text" else "qlora")
    assert (code, result["outcome"]) == (0, "Succeeded"), result
    assert (result["dataset"]["format"], result["dataset"]["validation"]) == (name, 0)
    assert any("no validation set" in warning for warning in result["dataset"]["warnings"])


def test_a_module_that_the_model_does_not_have_is_refused_with_those_that_it_has(workplace: Workplace) -> None:
    data = workplace.dataset("swordfish", teaching("swordfish"))
    code, result = workplace.run(data, lora={**RUN["lora"], "targetModules": ["q_proj", "lm_head"]})
    assert (code, result["reason"]) == (65, "InvalidSpec")
    assert "lora.targetModules is 'lm_head'" in result["message"]
    assert "q_proj" in result["message"].split("use some of")[1]
