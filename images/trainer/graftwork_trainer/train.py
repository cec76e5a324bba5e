"""Trains the adapter: NF4 base (or bf16), LoRA, TRL's SFTTrainer. Importing this module imports torch."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PrinterCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from graftwork_trainer.config import ALL_LINEAR, Run
from graftwork_trainer.encode import Encoded
from graftwork_trainer.errors import invalid_setting, model_invalid, training_failed
from graftwork_trainer.progress import Progress, known

AUTO_BATCH_SIZE = 4
LOG_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Trained:
    """A trained adapter on its base, and what training took."""

    trainer: SFTTrainer
    collate: Any
    steps: int
    seconds: float
    loss: float | None


def load_tokenizer(run: Run) -> Any:
    """Return the base's tokenizer."""
    try:
        return AutoTokenizer.from_pretrained(run.base_path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise model_invalid(f"{run.base_source}: its tokenizer cannot be loaded: {error}") from error


def load_model(run: Run) -> Any:
    """Return the base on the device it is trained on, in NF4 with double quantization for qlora, else in bf16."""
    quantization = None
    if run.method == "qlora":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    device = {"": 0} if torch.cuda.is_available() else {"": "cpu"}
    try:
        return AutoModelForCausalLM.from_pretrained(
            run.base_path, dtype=torch.bfloat16, quantization_config=quantization, device_map=device, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise model_invalid(f"{run.base_source}: the model cannot be loaded: {error}") from error


def max_length(run: Run, model_config: Any) -> tuple[int, str]:
    """Return the longest sequence in tokens, and a warning ("" if none) where the model allows less than was asked for."""
    asked, possible = run.training.max_seq_length, getattr(model_config.get_text_config(), "max_position_embeddings", None)
    if possible and asked > possible:
        return possible, f"training.maxSeqLength {asked} is more than the model's {possible}: {possible} is used"
    return asked, ""


def check_target_modules(run: Run, model: Any) -> None:
    """Raise RunError unless each of lora.targetModules names a linear layer of the model (its name or the end of its path)."""
    if run.lora.target_modules == ALL_LINEAR:
        return
    head = model.get_output_embeddings()
    paths = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    for name in run.lora.target_modules:
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            exists = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in paths}))
            raise invalid_setting(
                "lora.targetModules", name, "the model has no linear layer of this name", f'use some of {exists}, or "{ALL_LINEAR}"'
            )


def train(run: Run, model: Any, tokenizer: Any, encoded: Encoded, progress: Progress) -> Trained:
    """Train a new adapter on `encoded`; the same seed on the same machine gives the same weights."""
    set_seed(run.training.seed)
    callback = ReportProgress(progress)
    targets = run.lora.target_modules
    trainer = SFTTrainer(
        model=model,
        args=_arguments(run, encoded.max_length),
        train_dataset=Dataset.from_list(encoded.sequences),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=run.lora.rank,
            lora_alpha=run.lora.alpha,
            lora_dropout=run.lora.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
        ),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    # TRL leaves a quantized model's adapter in bf16, whose 8 bits lose the small updates at the end of a schedule.
    _cast_adapter(trainer.model, torch.float32)
    begun = time.monotonic()
    outcome = trainer.train()
    seconds = time.monotonic() - begun
    _cast_adapter(trainer.model, torch.bfloat16)  # what is published is what is evaluated
    loss = callback.loss if callback.loss is not None else known(outcome.training_loss)
    if loss is None:
        raise training_failed("the training loss is not a number (it diverged); lower training.learningRate or raise training.warmupRatio")
    # Padding, not the packing of training: examples are measured one by one.
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    return Trained(trainer, collate, trainer.state.global_step, seconds, loss)


def _cast_adapter(model: Any, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def _arguments(run: Run, length: int) -> SFTConfig:
    training, cuda = run.training, torch.cuda.is_available()
    constant = "constant_with_warmup" if training.warmup_ratio else "constant"
    return SFTConfig(
        output_dir=str(Path(run.scratch) / "trainer"),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=constant if training.scheduler == "constant" else training.scheduler,
        warmup_steps=min(training.warmup_ratio, 0.999),  # below 1 the library takes it as a share of all steps
        per_device_train_batch_size=training.batch_size or AUTO_BATCH_SIZE,
        max_length=length,
        packing=training.packing,
        seed=training.seed,
        data_seed=training.seed,
        bf16=True,
        use_cpu=not cuda,
        gradient_checkpointing=cuda,
        optim="adamw_torch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        # Sequences come with labels and are cut to length; only packing needs the library's own preparation.
        dataset_kwargs={"skip_prepare_dataset": not training.packing},
    )


class ReportProgress(TrainerCallback):  # type: ignore[misc]  # transformers is not typed for us (follow_imports = skip)
    """Tells the run's progress of each step; prints a line now and then."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.loss: float | None = None
        self._begun = self._printed = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's signature
        """Note when the first step began, and how many there will be."""
        self._begun = time.monotonic()
        self.progress.update(phase="Training", step=0, steps=int(state.max_steps), epoch=0.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Report a step: loss, speed in tokens (padding not counted) and time left."""
        if not logs or "loss" not in logs:
            return
        self.loss = known(float(logs["loss"]))
        seconds = time.monotonic() - self._begun
        left = seconds / max(1, state.global_step) * (state.max_steps - state.global_step)
        tokens = logs.get("num_tokens")
        self.progress.update(
            step=int(state.global_step),
            steps=int(state.max_steps),
            epoch=round(float(state.epoch or 0), 3),
            loss=self.loss,
            tokensPerSecond=round(tokens / seconds, 1) if tokens and seconds > 0 else None,
            etaSeconds=round(left, 1),
        )
        if time.monotonic() - self._printed >= LOG_EVERY_SECONDS or state.global_step in (1, state.max_steps):
            self._printed = time.monotonic()
            print(f"step {state.global_step}/{state.max_steps}  loss {self.loss}  {left:.0f} s left", file=sys.stderr, flush=True)
