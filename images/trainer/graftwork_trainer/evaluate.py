"""Compares an adapter with its base on the same examples, and decides whether it may be published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from graftwork_trainer.errors import training_failed

PASSED, BELOW_GATE = "Passed", "BelowGate"


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per learned token of base and adapter; `improvement` is the share of the base's loss that is gone."""

    base_loss: float
    adapter_loss: float
    improvement: float
    verdict: str

    def facts(self) -> dict[str, Any]:
        """Return the `evaluation` object of the result."""
        return {
            "baseLoss": round(self.base_loss, 6),
            "adapterLoss": round(self.adapter_loss, 6),
            "improvement": round(self.improvement, 6),
            "verdict": self.verdict,
        }


def judge(base_loss: float, adapter_loss: float, min_improvement: float) -> Evaluation:
    """Return the verdict: Passed when the adapter is better than its base, and by at least `min_improvement` of the base's loss."""
    if not (math.isfinite(base_loss) and math.isfinite(adapter_loss)):
        remedy = "lower training.learningRate or raise training.warmupRatio"
        raise training_failed(f"evaluation gave no number (base loss {base_loss}, adapter loss {adapter_loss}); {remedy}")
    improvement = (base_loss - adapter_loss) / base_loss if base_loss > 0 else 0.0
    passed = adapter_loss < base_loss and improvement >= min_improvement
    return Evaluation(base_loss, adapter_loss, improvement, PASSED if passed else BELOW_GATE)


def below_gate_message(evaluation: Evaluation, min_improvement: float) -> str:
    """Return what a rejected run says: the figures, the rule and what can be done."""
    return (
        f"evaluation.gate.minImprovement is {min_improvement:g}: the adapter's loss {evaluation.adapter_loss:.4f} against the base's "
        f"{evaluation.base_loss:.4f} is an improvement of {evaluation.improvement:.4f}; train longer, add examples, or lower the gate"
    )


def mean_loss(model: Any, collate: Any, sequences: list[dict[str, list[int]]], batch_size: int) -> float:
    """Return the mean loss per learned token of `sequences`, each token counted once."""
    import torch

    model.eval()
    device = model.get_input_embeddings().weight.device
    total, count = 0.0, 0
    ordered = sorted(sequences, key=lambda sequence: len(sequence["input_ids"]))  # equal lengths together: little padding
    for start in range(0, len(ordered), batch_size):
        batch = {name: tensor.to(device) for name, tensor in collate(ordered[start : start + batch_size]).items()}
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
            # The trainer's own forward: log-probabilities of the labels only, never the logits of a whole batch.
            outputs = model(**batch, use_cache=False, fused_lm_head=True)
        total -= float(outputs.log_probs.float().sum())
        count += int(outputs.label_mask.sum())
    return total / count if count else math.nan


def compare(model: Any, collate: Any, sequences: list[dict[str, list[int]]], batch_size: int) -> tuple[float, float]:
    """Return (loss of the base, loss of the adapter on it)."""
    adapter = mean_loss(model, collate, sequences, batch_size)
    with model.disable_adapter():
        base = mean_loss(model, collate, sequences, batch_size)
    return base, adapter
