"""The statuses of the three kinds: what was seen. `to_object` gives what is written: without what is not known, as the API server keeps it."""

from __future__ import annotations

from typing import Any, Literal

from graftwork.api.base import Model, field


class StatusModel(Model):
    """A part of a status; None is "not known" and is not written."""

    def to_object(self) -> dict[str, Any]:
        """Return the status as the API server would send it back: camelCase, without None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(StatusModel):
    """One condition (kstatus: Ready, Reconciling, Stalled)."""

    type: str = field(doc="Name of the condition.", max_length=316)
    status: Literal["True", "False", "Unknown"] = field(doc="`Unknown`: what it depends on could not be asked.")
    reason: str = field(doc="One word of the list in docs/reference/reasons.md.", max_length=1024)
    message: str = field("", doc="For people: field, value, rule and remedy.", max_length=32768)
    observed_generation: int | None = field(None, doc="Generation of the spec that this is about.")
    last_transition_time: str = field(doc="When the status last changed.")


class Status(StatusModel):
    """What every kind's status has."""

    observed_generation: int | None = field(None, doc="Generation of the spec that this status is about.")
    conditions: tuple[Condition, ...] = field(
        (),
        doc="Ready, Reconciling, Stalled; LLMDeployment also Placed, RolledBack, Serving and AdaptersLoaded, with an hf:// or s3:// source "
        "ModelResolved, with a shared cache ModelCached, with spec.access AccessReady, and PodSecurity while its pods are weaker than restricted.",
        key="type",
    )


class SourceFiles(StatusModel):
    """What a download of the model brings."""

    count: int | None = field(None, doc="Number of files.")
    bytes: int | None = field(None, doc="Their size in all.", unit="bytes")
    largest_bytes: int | None = field(None, doc="Size of the largest.", unit="bytes")
    digest: str | None = field(None, doc="Digest of the listing: names, sizes and hashes.")


class InspectedFacts(StatusModel):
    """What the configuration of the model and the headers of its weights say."""

    fingerprint: str | None = field(None, doc="Fingerprint of the weights.")
    architecture: str | None = field(None, doc="Class of the model.")
    parameters: int | None = field(None, doc="Number of parameters.")
    weights_bytes: int | None = field(None, doc="Size of the weights.", unit="bytes")
    max_model_len: int | None = field(None, doc="Longest context that the model's configuration allows.", unit="tokens")
    layers: int | None = field(None, doc="Number of layers.")
    hidden_size: int | None = field(None, doc="Width of a layer.")
    heads: int | None = field(None, doc="Attention heads.")
    kv_heads: int | None = field(None, doc="Attention heads that have keys and values of their own.")
    head_dim: int | None = field(None, doc="Width of a head.")
    kv_lora_rank: int | None = field(None, doc="Rank of compressed keys and values (multi-head latent attention).")
    vocab_size: int | None = field(None, doc="Number of tokens that the model knows.")
    dtype: str | None = field(None, doc="Type of the weights.")
    quantization: str | None = field(None, doc="How the weights are quantized, in the words of the model's configuration; empty: not at all.")
    quantization_file: bool | None = field(None, doc="Whether a file beside config.json says how the weights are quantized.")
    task: str | None = field(None, doc="What the model is for: generate, embed, classify or transcribe.")
    pooling_module: bool | None = field(
        None, doc="Whether modules.json of sentence-transformers has a pooling that vLLM reads; absent: no such file."
    )
    remote_code: bool | None = field(None, doc="Whether the repository brings Python code of its own.")


class ResolvedModel(StatusModel):
    """To what a source of a hub or a bucket is frozen."""

    key: str | None = field(None, doc="Hash of source, revision, credentialsSecret and graftwork.dev/refresh: another one is looked up anew.")
    source: str | None = field(None, doc="The repository, or the prefix of the bucket.")
    requested: str | None = field(None, doc="The revision as the spec names it.")
    refresh: str | None = field(None, doc="Text of graftwork.dev/refresh that was answered by it. An annotation that goes asks for nothing.")
    revision: str | None = field(None, doc="The commit; of a bucket the digest of the listing: names, sizes and etags.")
    resolved_at: str | None = field(None, doc="When it was looked up.")
    files: SourceFiles | None = field(None, doc="What a download brings.")
    facts: InspectedFacts | None = field(None, doc="What is known of the model without its weights.")


class RefusedModel(StatusModel):
    """Why a source cannot be served; it is not looked up again before the key changes."""

    key: str | None = field(None, doc="As in `resolved`.")
    refresh: str | None = field(None, doc="As in `resolved`.")
    reason: str | None = field(None, doc="One word of the list in docs/reference/reasons.md.")
    message: str | None = field(None, doc="The same for people.")


class ModelFacts(StatusModel):
    """What the agents read in the model's files, and to what its source is frozen."""

    fingerprint: str | None = field(None, doc="Fingerprint of the weights.")
    architecture: str | None = field(None, doc="Class of the model.")
    parameters: int | None = field(None, doc="Number of parameters.")
    weights_bytes: int | None = field(None, doc="Size of the weights.", unit="bytes")
    max_model_len: int | None = field(None, doc="Longest context that the model's configuration allows.", unit="tokens")
    facts: InspectedFacts | None = field(
        None, doc="What the agents read of the model's configuration, where nobody looked the source up: a claim's, or a bucket's of before."
    )
    resolved: ResolvedModel | None = field(None, doc="To what an hf:// or s3:// source is frozen.")
    refused: RefusedModel | None = field(None, doc="Why an hf:// or s3:// source cannot be served.")


class CachedRevision(StatusModel):
    """One revision of the model in the shared cache."""

    key: str = field(doc="Its folder in the claim: `models/<key>`.")
    revision: str | None = field(None, doc="The revision.")
    bytes: int | None = field(None, doc="Its size.", unit="bytes")


class CacheStatus(StatusModel):
    """Where the weights lie before the engines read them."""

    mode: str | None = field(None, doc="`Shared`, `PerPod` or `None`: what the pods of the present revision have.")
    why: str | None = field(None, doc="Why that one.")
    claim: str | None = field(None, doc="The claim of a shared cache.")
    size_bytes: int | None = field(None, doc="Size that is asked for it.", unit="bytes")
    key: str | None = field(None, doc="Under which name the revision that the spec asks for lies in the claim.")
    phase: str | None = field(None, doc="`Filling`, `Listing`, `Downloading`, `Verifying` or `Pruning` while a Job is at it, `Cached`, or `Failed`.")
    bytes_done: int | None = field(None, doc="What is there of it.", unit="bytes")
    bytes_total: int | None = field(None, doc="Its size.", unit="bytes")
    bytes_per_second: int | None = field(None, doc="Speed of the last seconds.", unit="bytes per second")
    eta_seconds: int | None = field(None, doc="Time left.", unit="seconds")
    claim_uid: str | None = field(None, doc="The claim that `models` is of: another one of its name is empty.")
    models: tuple[CachedRevision, ...] | None = field(None, doc="The revisions that lie in the claim complete.", key="key")


class ServedAlias(StatusModel):
    """One alias and where it is loaded."""

    alias: str = field(doc="What clients send as `model`.")
    stable: str | None = field(None, doc="LoRAAdapter that is served under it.")
    candidate: str | None = field(None, doc="Newer LoRAAdapter that is loaded beside it and may follow it (promotion Manual or Canary).")
    candidate_weight: int | None = field(None, doc="Share of the requests that the candidate gets.", unit="percent")
    step: int | None = field(None, doc="Step of the canary, from 1; 0: not begun.")
    steps: int | None = field(None, doc="Steps of the canary in all.")
    step_started_at: str | None = field(None, doc="When the step began: when the ready pods had read of its share.")
    candidate_engine_name: str | None = field(None, doc="The candidate's name in the engine: the files that the step is about.")
    failed: str | None = field(None, doc="LoRAAdapter whose canary failed; it is not tried again.")
    failed_engine_name: str | None = field(None, doc="Its name in the engine: under other files the same LoRAAdapter is tried.")
    failure: str | None = field(None, doc="Why it failed, with the numbers.")
    engine_name: str | None = field(None, doc="Its name in the engine.")
    loaded: int = field(0, doc="Pods whose engine lists it now.", unit="pods")
    of: int = field(0, doc="Pods that should.", unit="pods")
    reason: str | None = field(None, doc="Why it is not loaded everywhere, or how the canary stands.")
    message: str | None = field(None, doc="The same for people.")


class FailedRevision(StatusModel):
    """A revision that was rolled back."""

    revision: int | None = field(None, doc="Its number.")
    template_hash: str | None = field(None, doc="What its template was rendered from; it is not tried again while the spec asks for the same.")
    reason: str | None = field(None, doc="Why it failed: `EngineCrashed`, `OutOfMemory` or `StartTooSlow`.")
    message: str | None = field(None, doc="The same for people, with the line of the engine's log that was the cause.")
    at: str | None = field(None, doc="When it was found to have failed.")


class RolloutOutcome(StatusModel):
    """How the rollout of one revision ended."""

    revision: int | None = field(None, doc="Its number.")
    template_hash: str | None = field(None, doc="What its template was rendered from.")
    result: str | None = field(None, doc="`Completed` or `RolledBack`.")
    reason: str | None = field(None, doc="Why it was rolled back.")
    at: str | None = field(None, doc="When.")


class RolloutStatus(StatusModel):
    """Which pod template is served."""

    revision: int | None = field(None, doc="Number of the revision that the pods are made from, from 1.")
    template_hash: str | None = field(None, doc="What the template was rendered from.")
    max_rank: int | None = field(None, doc="Rank that the engines of ready pods take, or took last; `adapters.maxRank: auto` never goes below it.")
    last_good: int | None = field(None, doc="Number of the newest revision of which every pod was ready: what a failed one is rolled back to.")
    last_good_hash: str | None = field(None, doc="What its template was rendered from.")
    failed: FailedRevision | None = field(None, doc="The revision that the spec asks for, when it was rolled back.")
    history: tuple[RolloutOutcome, ...] | None = field(None, doc="How the last ten rollouts ended, the newest first.")


class ColdStart(StatusModel):
    """How long the newest pod took, by phases. The kubelet's times have whole seconds."""

    pod: str | None = field(None, doc="The pod that was measured: the newest of the present revision whose engine never restarted.")
    created_at: str | None = field(None, doc="When that pod was made. One that was made earlier never takes its place here.")
    scheduled_seconds: float | None = field(None, doc="From the pod's creation to its node.", unit="seconds")
    pulled_seconds: float | None = field(None, doc="Getting volumes and images, before its first container and before its engine.", unit="seconds")
    cached_seconds: float | None = field(None, doc="Bringing the weights; 0 where they are mounted.", unit="seconds")
    loaded_seconds: float | None = field(None, doc="From the engine's start until it listens.", unit="seconds")
    ready_seconds: float | None = field(None, doc="From the pod's creation to Ready.", unit="seconds")


class LLMDeploymentStatus(Status):
    """What is served."""

    summary: str | None = field(None, doc="One line for people.")
    replicas: int | None = field(None, doc="Pods that exist.", unit="pods")
    ready_replicas: int | None = field(None, doc="Pods that answer.", unit="pods")
    replicas_text: str | None = field(None, doc="Ready and wanted pods for the column Replicas, such as `1/2`.")
    adapters_text: str | None = field(None, doc="Aliases that are loaded everywhere and all aliases for the column Adapters, such as `2/2`.")
    selector: str | None = field(None, doc="Label selector of the pods, for /scale.")
    endpoint: str | None = field(None, doc="Base URL for clients.")
    model: ModelFacts | None = field(None, doc="What the agents read in the model's files.")
    cache: CacheStatus | None = field(None, doc="Where the weights lie before the engines read them.")
    adapters: tuple[ServedAlias, ...] | None = field(None, doc="Each alias and where it is loaded.", key="alias")
    rollout: RolloutStatus | None = field(None, doc="Which pod template is served.")
    cold_start: ColdStart | None = field(None, doc="How long the newest pod took.")


Phase = Literal["Pending", "Preparing", "Training", "Evaluating", "Publishing", "Succeeded", "Rejected", "Failed", "Suspended"]


class Progress(StatusModel):
    """Where the training is."""

    step: int | None = field(None, doc="Optimizer steps made.")
    steps: int | None = field(None, doc="Optimizer steps in all.")
    epoch: float | None = field(None, doc="Passes over the data made.")
    tokens_per_second: float | None = field(None, doc="Speed.", unit="tokens per second")
    eta_seconds: float | None = field(None, doc="Time left.", unit="seconds")
    loss: float | None = field(None, doc="Loss of the last logged step.")
    eval_loss: float | None = field(None, doc="Loss on the held-back examples.")


class DatasetFacts(StatusModel):
    """What the trainer read in the data."""

    examples: int | None = field(None, doc="Examples, both those that are trained on and those that are held back.")
    validation: int | None = field(None, doc="Examples that are held back.")
    tokens: int | None = field(None, doc="Tokens of all examples.")
    digest: str | None = field(None, doc="Digest of the file.")
    format: str | None = field(None, doc="Shape of a line.")
    warnings: tuple[str, ...] | None = field(None, doc="What is odd about the data.")


class EvaluationResult(StatusModel):
    """The adapter compared with the base."""

    base_loss: float | None = field(None, doc="Loss of the base on the held-back examples.")
    adapter_loss: float | None = field(None, doc="Loss with the adapter.")
    improvement: float | None = field(None, doc="(base loss - adapter loss) / base loss.")
    verdict: str | None = field(None, doc="`Passed` or `BelowGate`.")


class MemoryFacts(StatusModel):
    """Memory of the training."""

    measured_peak_bytes: int | None = field(None, doc="Highest use that was seen.", unit="bytes")


class FineTuneJobStatus(Status):
    """How the run goes."""

    phase: Phase | None = field(None, doc="Where the run is.")
    progress: Progress | None = field(None, doc="Where the training is.")
    progress_text: str | None = field(None, doc="Steps made and in all for the column Progress, such as `48/120`.")
    dataset: DatasetFacts | None = field(None, doc="What the trainer read in the data.")
    evaluation: EvaluationResult | None = field(None, doc="The adapter compared with the base.")
    adapter: str | None = field(None, doc="LoRAAdapter that was published.")
    run: int | None = field(None, doc="Number of the newest run, from 1.")
    attempts: int | None = field(None, doc="Pods that were started for it.")
    started_at: str | None = field(None, doc="When the first pod started.")
    finished_at: str | None = field(None, doc="When the run ended.")
    published_at: str | None = field(None, doc="When manifest.json appeared in the store.")
    memory: MemoryFacts | None = field(None, doc="Memory of the training.")


class AdapterDeployment(StatusModel):
    """One LLMDeployment that serves the adapter."""

    name: str = field(doc="Name of the LLMDeployment.")
    loaded: int = field(0, doc="Pods whose engine lists the adapter now.", unit="pods")
    of: int = field(0, doc="Pods that should.", unit="pods")


class AdapterBaseFacts(StatusModel):
    """What an adapter was trained on, as its LoRAAdapter or its files say."""

    source: str | None = field(None, doc="Where the base model came from.")
    fingerprint: str | None = field(None, doc="Fingerprint of its weights; absent: not known, so that only names and shapes of tensors are checked.")


class ResolvedSource(StatusModel):
    """What an import read."""

    source: str | None = field(None, doc="Where the files were read.")
    revision: str | None = field(None, doc="Commit of a hub, or etag of an object or archive.")


class LoRAAdapterStatus(Status):
    """Where the adapter is loaded."""

    digest: str | None = field(None, doc="Digest that is served. Once written for an import it is pinned: nothing else is ever loaded for it.")
    source: str | None = field(None, doc="Where the files lie in the store.")
    rank: int | None = field(None, doc="Rank of the adapter.")
    base_model: AdapterBaseFacts | None = field(None, doc="What it was trained on.")
    resolved: ResolvedSource | None = field(None, doc="What the import read.")
    size_bytes: int | None = field(None, doc="Size of the files that were imported.", unit="bytes")
    imported_at: str | None = field(None, doc="When they were in the store.")
    deployments: tuple[AdapterDeployment, ...] | None = field(None, doc="LLMDeployments that select it.", key="name")
    loaded_text: str | None = field(None, doc="Pods that have it and pods that should, for the column Loaded, such as `2/2`.")
