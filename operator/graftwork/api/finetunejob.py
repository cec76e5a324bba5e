"""FineTuneJob: one training run, immutable but for suspend, retry and timeLimit."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from graftwork.api import cel
from graftwork.api.base import Model, Resource, field
from graftwork.api.common import ALIAS_BOUNDS, DURATION_BOUNDS, INT_OR_STRING, NAME, Accelerator, Label, PodSettings, duration_seconds

BatchSize = Annotated[Annotated[int, Field(ge=1, le=4096)] | Literal["auto"], WithJsonSchema(INT_OR_STRING)]
ModuleName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")]

MUTABLE = ("suspend", "retry", "timeLimit")


class BaseModelSource(Model):
    """A base model that no LLMDeployment serves."""

    source: str = field(
        doc="Where the base model lies in Hugging Face layout: `s3://<bucket>/<prefix>` or `pvc://<claim>/<path>`.",
        min_length=1,
        max_length=1024,
        rules=(cel.source(("s3", "pvc"), "copy a model from elsewhere into a bucket or a claim first"),),
    )
    credentials_secret: str = field(
        "", doc="Secret of the namespace with the keys for an s3 source. Empty: the store's.", max_length=253, pattern=NAME
    )


class Dataset(Model):
    """The training data."""

    source: str = field(
        doc="One JSON Lines file: `s3://<bucket>/<key>`, `configMap://<name>/<key>` or `pvc://<claim>/<path>`.",
        min_length=1,
        max_length=1024,
        rules=(cel.source(("s3", "configMap", "pvc"), "copy data from elsewhere into one of these first"),),
    )
    format: Literal["auto", "messages", "instruct", "prompt_completion", "text"] = field(
        "auto",
        doc="Shape of a line: `messages`; `instruct` (instruction, input, output); `prompt_completion`; `text`. `auto`: by the first line's keys.",
    )
    validation: float = field(0.1, doc="Share of the examples that is held back for evaluation.", ge=0, le=0.5)
    credentials_secret: str = field(
        "", doc="Secret of the namespace with the keys for an s3 source. Empty: the store's.", max_length=253, pattern=NAME
    )


class Lora(Model):
    """Shape of the adapter."""

    rank: int = field(16, doc="Rank of the adapter; an LLMDeployment serves it up to its `adapters.maxRank`.", ge=1, le=512)
    alpha: int = field(32, doc="Scale of the adapter: it is applied times alpha / rank.", ge=1, le=4096)
    dropout: float = field(0.05, doc="Share of the adapter's inputs that is dropped while training.", ge=0, le=0.9)
    target_modules: tuple[ModuleName, ...] = field(
        ("all-linear",),
        doc="Names of the modules that get an adapter, or `[all-linear]` for every linear layer but the output head.",
        min_length=1,
        max_length=64,
        rules=(
            cel.Rule("size(self) == 1 || !('all-linear' in self)", "lora.targetModules: all-linear stands alone; list module names or [all-linear]"),
        ),
    )

    @property
    def target(self) -> str | list[str]:
        """The modules as the trainer's contract has them: the word `all-linear`, or a list."""
        return "all-linear" if self.target_modules == ("all-linear",) else list(self.target_modules)


class Training(Model):
    """How it is trained."""

    epochs: float = field(3, doc="Passes over the data.", unit="epochs", gt=0, le=1000)
    learning_rate: float = field(2e-4, doc="Highest learning rate.", gt=0, le=1)
    batch_size: BatchSize = field(
        "auto", doc="Examples per optimizer step. `auto`: 4.", unit="examples", rules=(cel.int_or_auto("training.batchSize", 1, 4096),)
    )
    max_seq_length: int = field(2048, doc="Longest example; what is longer is cut.", unit="tokens", ge=8, le=1_048_576)
    packing: bool = field(False, doc="Put several short examples into one sequence.")
    warmup_ratio: float = field(0.03, doc="Share of the steps in which the learning rate rises from 0.", ge=0, le=1)
    scheduler: Literal["cosine", "linear", "constant"] = field("cosine", doc="How the learning rate falls after the warm-up.")
    seed: int = field(42, doc="Seed of everything random.", ge=0, le=4_294_967_295)
    max_steps: int | None = field(
        None, doc="Optimizer steps of the run, whatever `epochs` says. Left out: `epochs` decides.", unit="steps", ge=1, le=10_000_000
    )


class Gate(Model):
    """What an adapter must reach to be published."""

    min_improvement: float = field(
        0.0,
        doc="Least improvement over the base on the held-back examples: (base loss - adapter loss) / base loss. "
        "An adapter that is no better than its base is never published.",
        ge=0,
        le=1,
    )


class Evaluation(Model):
    """How the result is judged."""

    gate: Gate = field(default_factory=Gate, doc="What an adapter must reach to be published.")


class Publish(Model):
    """Under which name the adapter is published."""

    alias: str = field(doc="What clients send as `model`; the LoRAAdapter is called `<alias>-<version>`.", **ALIAS_BOUNDS)
    owner: str = field(
        "",
        doc="Lineage that the alias belongs to: name an earlier one to publish its next version. Empty: this FineTuneJob's name.",
        max_length=253,
        pattern=NAME,
    )
    labels: dict[str, Label] = field(
        default_factory=dict, doc="Labels of the LoRAAdapter, for an LLMDeployment's `adapters.selector`.", max_length=16, rules=(cel.OWN_KEYS,)
    )


class Retry(Model):
    """What happens after a failure that another attempt can mend."""

    limit: int = field(3, doc="Attempts after the first. Wrong data and wrong configuration are never tried again.", unit="attempts", ge=0, le=20)


class FineTuneJobSpec(Model):
    """One training run."""

    RULES = (
        cel.Rule(
            "has(self.deploymentRef) != has(self.baseModel)",
            "exactly one of deploymentRef (train for that LLMDeployment's model) and baseModel (train for a model of its own source) must be set",
        ),
        cel.Rule("!has(self.timeLimit) || duration(self.timeLimit) >= duration('1m')", "timeLimit is a duration of at least 1m, such as 90m or 24h"),
        *cel.immutable(
            ("deploymentRef", "baseModel", "dataset", "method", "lora", "training", "accelerator", "evaluation", "publish", "pod"),
            "a FineTuneJob is one run. Create another FineTuneJob under another name, or delete this one and apply it again "
            "(what it published stays); only suspend, retry and timeLimit can be changed",
        ),
    )

    deployment_ref: str | None = field(
        None,
        doc="LLMDeployment of the namespace whose base model is trained for. Exactly one of this and baseModel.",
        min_length=1,
        max_length=253,
        pattern=NAME,
    )
    base_model: BaseModelSource | None = field(None, doc="Base model by its source. Exactly one of this and deploymentRef.")
    dataset: Dataset = field(doc="The training data.")
    method: Literal["qlora", "lora"] = field("qlora", doc="`qlora`: the base in 4 bit (NF4, double quantization) while training; `lora`: as it is.")
    lora: Lora = field(default_factory=Lora, doc="Shape of the adapter.")
    training: Training = field(default_factory=Training, doc="How it is trained.")
    accelerator: Accelerator = field(default_factory=Accelerator, doc="Where it runs.")
    evaluation: Evaluation = field(default_factory=Evaluation, doc="How the result is judged.")
    publish: Publish = field(doc="Under which name the adapter is published.")
    suspend: bool = field(False, doc="Stop the run; false again starts it anew.")
    retry: Retry = field(default_factory=Retry, doc="What happens after a failure that another attempt can mend.")
    time_limit: str = field(
        "24h",
        doc="Longest time of the run, all attempts together, since it was started or resumed, such as 90m or 1h30m; after it: Failed with TimeLimit.",
        **DURATION_BOUNDS,
    )
    pod: PodSettings = field(default_factory=PodSettings, doc="What the training pod gets beside what Graftwork decides.")

    @property
    def time_limit_seconds(self) -> int:
        """The time limit in seconds."""
        return duration_seconds(self.time_limit)


class FineTuneJob(Resource):
    """One training run; what it publishes outlives it."""

    KIND: ClassVar[str] = "FineTuneJob"
    RULES = (cel.dns_label_name("a FineTuneJob", "its Jobs and pods are named after it", "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),)

    spec: FineTuneJobSpec
