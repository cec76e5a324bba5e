"""One run from beginning to end: check, train, evaluate, publish, and say in the end what came of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftwork_store import progress_server, results
from graftwork_store.errors import StoreError
from graftwork_store.store import Store

from graftwork_trainer import base, data, process, publish
from graftwork_trainer.config import Run, parse_run
from graftwork_trainer.encode import Encoded, encode
from graftwork_trainer.errors import RunError, dataset_invalid
from graftwork_trainer.evaluate import PASSED, Evaluation, below_gate_message, compare, judge
from graftwork_trainer.progress import Progress

if TYPE_CHECKING:
    from graftwork_trainer.train import Trained

MESSAGE_LIMIT = 3000  # characters; the whole result has 4,096 bytes


@dataclass
class Known:
    """What is known of the run so far: a result says all of it, also that of a run that failed."""

    fields: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        """Print one line with the time since the start."""
        print(f"[{time.monotonic() - self.begun:6.1f} s] {what}", file=sys.stderr, flush=True)


def run_once(environment: Mapping[str, str]) -> int:
    """Do the run that GRAFTWORK_RUN describes, write the termination message, and return the exit code."""
    process.exit_promptly_on_sigterm()
    known = Known()
    try:
        outcome, reason, message = _run(parse_run(environment.get("GRAFTWORK_RUN", "")), environment, known)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user reads it in the job's status
        if not isinstance(error, RunError | StoreError):
            traceback.print_exc()
        outcome, (reason, message) = "Failed", explain(error)
    known.fields["memory"] = {"measuredPeakBytes": process.peak_memory_bytes()}
    result = results.build(outcome, reason, message[:MESSAGE_LIMIT], **known.fields)
    results.write(result)
    known.note(f"{outcome} ({reason}) {message}".strip())
    return results.exit_code(result)


def explain(error: BaseException) -> tuple[str, str]:
    """Return (reason, message) of whatever ended the run."""
    if isinstance(error, RunError | StoreError):
        return error.reason, error.message
    text = str(error).strip()
    last = text.splitlines()[-1].strip() if text else ""
    message = f"{type(error).__name__}: {last}" if last else type(error).__name__
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
    if memory:
        remedy = "lower training.batchSize or training.maxSeqLength, or raise pod.resources"
        return "OutOfMemory", f"the memory is too small for this run ({message}); {remedy}"
    return "TrainingFailed", message


def _run(run: Run, environment: Mapping[str, str], known: Known) -> tuple[str, str, str]:
    """Return (outcome, reason, message); everything that can be refused is checked before torch is imported, which takes seconds."""
    progress = Progress()
    progress_server.serve(progress, run.progress_port)
    process.prepare_environment(run.scratch)
    checked = data.load(run.dataset.path, run.dataset.format, run.dataset.validation, run.training.seed)
    known.fields["dataset"] = checked.facts(None)
    progress.update(dataset=checked.facts(None))
    known.note(f"dataset: {checked.examples} examples ({checked.form.name}), {len(checked.validation)} of them held out")
    base.check_base(run.base_path, run.base_source, conversation=checked.form.conversation)
    fingerprint = base.fingerprint(run.base_path, run.base_source)
    known.fields["base"] = {"fingerprint": fingerprint}
    store = Store.from_env(environment)
    publish.check_store(store)

    trained, held_out = _train(run, checked, known, progress)
    evaluation = _evaluate(run, trained, held_out, known, progress)
    if evaluation.verdict != PASSED:
        return "Rejected", "BelowGate", below_gate_message(evaluation, run.min_improvement)
    progress.update(phase="Publishing")
    folder = run.scratch / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    publish.save_adapter(trained.trainer.model, folder, run.base_source)
    metrics = {"baseLoss": evaluation.base_loss, "adapterLoss": evaluation.adapter_loss, "improvement": evaluation.improvement}
    published = publish.publish(store, run, folder, publish.manifest_fields(run, folder, fingerprint, checked.digest, metrics))
    known.fields["adapter"] = {
        "source": published.source,
        "digest": published.digest,
        "rank": run.lora.rank,
        "sizeBytes": published.size_bytes,
    }
    known.fields["publishedAt"] = published.published_at
    return "Succeeded", "Published", ""


def _train(run: Run, checked: data.Data, known: Known, progress: Progress) -> tuple[Trained, Encoded]:
    """Return the trained adapter and the encoded examples to measure it on."""
    from graftwork_trainer import train

    known.note("libraries loaded")
    tokenizer = train.load_tokenizer(run)
    model = train.load_model(run)
    train.check_target_modules(run, model)
    length, warning = train.max_length(run, model.config)
    learned, held_out = encode_all(tokenizer, checked, length, warning)
    facts = checked.facts(learned.tokens + (held_out.tokens if checked.validation else 0))
    known.fields["dataset"] = facts
    progress.update(dataset=facts)
    known.note(f"base loaded; {facts['tokens']} tokens")
    trained = train.train(run, model, tokenizer, learned, progress)
    known.fields["training"] = {"steps": trained.steps, "seconds": round(trained.seconds, 1), "loss": trained.loss}
    known.note(f"trained: {trained.steps} steps in {trained.seconds:.1f} s")
    return trained, held_out


def encode_all(tokenizer: Any, checked: data.Data, length: int, warning: str) -> tuple[Encoded, Encoded]:
    """Return the encoded examples to learn and to measure on; adds what was cut to the dataset's warnings."""
    learned, held_out = encode(tokenizer, checked.train, length), encode(tokenizer, checked.evaluation, length)
    cut = learned.cut + (held_out.cut if checked.validation else 0)
    dropped = learned.dropped + (held_out.dropped if checked.validation else 0)
    remedy = "raise training.maxSeqLength or shorten the examples"
    for found, what in ((learned, "training"), (held_out, "validation")):
        if not found.sequences:
            raise dataset_invalid(f"no {what} example has an answer within training.maxSeqLength {length} tokens; {remedy}")
    if warning:
        checked.warnings.append(warning)
    if cut:
        left_out = f", and {dropped} left out because nothing of their answer remained" if dropped else ""
        checked.warnings.append(f"{cut} examples were cut after training.maxSeqLength {length} tokens{left_out}; {remedy}")
    return learned, held_out


def _evaluate(run: Run, trained: Trained, held_out: Encoded, known: Known, progress: Progress) -> Evaluation:
    """Return how the adapter compares with its base on `held_out`."""
    progress.update(phase="Evaluating", etaSeconds=None)
    batch_size = trained.trainer.args.per_device_train_batch_size
    losses = compare(trained.trainer.model, trained.collate, held_out.sequences, batch_size)
    evaluation = judge(*losses, run.min_improvement)
    known.fields["evaluation"] = evaluation.facts()
    progress.update(evalLoss=round(evaluation.adapter_loss, 6))
    known.note(f"loss of the base {evaluation.base_loss:.4f}, with the adapter {evaluation.adapter_loss:.4f}")
    return evaluation


def main() -> None:
    """Run, and leave at once: tearing torch down would take half a second during which nobody can use the adapter yet."""
    code = run_once(os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
