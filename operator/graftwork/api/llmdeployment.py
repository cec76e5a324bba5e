"""LLMDeployment: a served base model with its adapters."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, WithJsonSchema

from graftwork.api import cel
from graftwork.api.access import Access
from graftwork.api.base import Model, Resource, field
from graftwork.api.cache import OF_THE_SOURCE, Cache
from graftwork.api.common import ALIAS_BOUNDS, DURATION_BOUNDS, INT_OR_STRING, NAME, Accelerator, Label, duration_seconds
from graftwork.api.engine import Engine
from graftwork.api.rollout import Rollout
from graftwork.api.serving_pod import ServingPod

Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]  # what vLLM's --max-lora-rank takes
RANKS: tuple[int, ...] = get_args(Rank)
MaxRank = Annotated[Rank | Literal["auto"], WithJsonSchema(INT_OR_STRING)]
Base = Annotated[str, Field(min_length=1, max_length=512)]


class ModelSource(Model):
    """The base model."""

    RULES = (
        cel.Rule(
            "!has(self.revision) || self.revision == '' || self.source.startsWith('hf://')",
            "model.revision has a meaning for hf:// sources only: buckets and claims have no revisions; remove it",
        ),
    )

    source: str = field(
        doc="Where the model lies in Hugging Face layout: `hf://<owner>/<repository>`, `s3://<bucket>/<prefix>` or `pvc://<claim>/<path>`. "
        "One of a hub is looked up once and frozen to the commit, one of a bucket to the listing of its files; annotation `graftwork.dev/refresh` "
        "with a new text looks it up again.",
        restarts=True,
        min_length=1,
        max_length=1024,
        rules=(cel.MODEL_SOURCE,),
    )
    revision: str = field(
        "",
        doc="Branch, tag or commit of an hf:// source. Empty: main. A branch that moves changes nothing that is served: see `source`.",
        restarts=True,
        max_length=256,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._/-]*)?$",
        rules=(cel.REVISION,),
    )
    credentials_secret: str = field(
        "",
        doc="Secret of the namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION for s3 (empty: the store's), or "
        "HF_TOKEN for hf, whose `ca.crt` is trusted beside the system's authorities (empty: none). Only what looks the model up and downloads "
        "it has it.",
        restarts=True,
        max_length=253,
        pattern=NAME,
    )
    compatible_bases: tuple[Base, ...] = field(
        (),
        doc="Sources of other models of the same shapes whose adapters are served as well, such as the unquantized original of a quantized one: "
        "`hf://Qwen/Qwen3-8B`, or any `baseModel.source` as a LoRAAdapter has it. Names and shapes of an adapter's tensors are checked all the same.",
        restarts=False,
        max_length=16,
    )
    served_name: str = field(
        "",
        doc="What clients send as `model` for the base. Empty: the resource's name.",
        restarts=True,
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._/-]*)?$",
    )


class AdapterSelector(Model):
    """Which LoRAAdapters of the namespace are served."""

    match_labels: dict[str, Label] = field(
        default_factory=dict, doc="Labels that a LoRAAdapter must have. Empty: every LoRAAdapter of the namespace.", restarts=False, max_length=16
    )


class CanaryAnalysis(Model):
    """What Prometheus must say of the candidate, counted since the step began; without enough data the step goes on."""

    max_error_rate: float = field(
        0.01,
        doc="Largest share of the candidate's requests that may fail: errors of the engine (5xx, or inside a stream), not of clients (4xx).",
        restarts=False,
        ge=0,
        le=1,
    )
    max_ttft_ratio: float = field(
        1.2,
        alias="maxTTFTRatio",
        doc="Largest mean time to first token of the candidate, divided by the stable version's. Only streams have one; 0: not compared.",
        restarts=False,
        ge=0,
        le=1000,
    )
    min_requests: int = field(50, doc="Requests to the candidate before a step is judged.", unit="requests", restarts=False, ge=1, le=1_000_000)


class CanarySettings(Model):
    """How a new version of the alias is tried on a share of its requests."""

    RULES = (
        cel.Rule(
            "!has(self.stepDuration) || duration(self.stepDuration) >= duration('10s')",
            "canary.stepDuration is a duration of at least 10s, such as 90s or 5m: Prometheus needs time to see a step",
        ),
    )

    steps: tuple[Annotated[int, Field(ge=1, le=99)], ...] = field(
        (10, 50),
        doc="Percent of the requests (or sessions) that go to the candidate, step by step; after the last one it becomes the stable version.",
        unit="percent",
        restarts=False,
        min_length=1,
        max_length=20,
        rules=(
            cel.Rule(
                "self.isSorted() && self.all(a, self.exists_one(b, a == b))",
                "canary.steps are percentages in strictly ascending order, such as [10, 50]",
            ),
        ),
    )
    step_duration: str = field(
        "5m", doc="Shortest time of a step, such as 90s, 5m or 1h30m; a step without enough data lasts longer.", restarts=False, **DURATION_BOUNDS
    )
    analysis: CanaryAnalysis = field(default_factory=CanaryAnalysis, doc="What Prometheus must say of the candidate.", restarts=False)

    @property
    def step_seconds(self) -> int:
        """The shortest time of a step in seconds."""
        return duration_seconds(self.step_duration)


class AliasSettings(Model):
    """How one alias is served."""

    RULES = (
        cel.Rule(
            "!has(self.canary) || (has(self.promotion) && self.promotion == 'Canary')",
            "adapters.aliases[].canary has a meaning with promotion Canary only: set promotion to Canary, or remove canary",
        ),
    )

    name: str = field(doc="The alias, what clients send as `model`.", restarts=False, **ALIAS_BOUNDS)
    promotion: Literal["Auto", "Manual", "Canary"] = field(
        "Auto",
        doc="How a newer version takes over. `Auto`: as soon as it is loaded. `Manual`: it is loaded and waits until `adapter` names it. "
        "`Canary`: it gets a growing share of the requests while Prometheus finds it as good as the stable version.",
        restarts=False,
    )
    adapter: str = field(
        "",
        doc="Name of the LoRAAdapter to pin the alias to (also the way back); it wins at once over `promotion`. Empty: as `promotion` says.",
        restarts=False,
        max_length=253,
        pattern=NAME,
    )
    canary: CanarySettings | None = field(None, doc="Steps and analysis; only with promotion Canary, where it may be left out.", restarts=False)
    keep: int = field(1, doc="Previous versions that stay loaded beside the served one.", unit="versions", restarts=False, ge=0, le=8)


class Adapters(Model):
    """Which adapters are served, and how many."""

    selector: AdapterSelector = field(default_factory=AdapterSelector, doc="Which LoRAAdapters of the namespace are served.", restarts=False)
    aliases: tuple[AliasSettings, ...] = field(
        (), doc="Settings of single aliases; an alias that is not listed has the defaults.", restarts=False, key="name", max_length=64
    )
    max_loaded: int = field(
        8,
        doc="Different adapters in one batch (vLLM's --max-loras); GPU memory is set aside for so many of `maxRank`. More may be "
        "served (128, or this number if it is higher): they are kept in host memory, and a request for one of them waits until it is in a slot.",
        unit="adapters",
        restarts=True,
        ge=1,
        le=256,
    )
    max_rank: MaxRank = field(
        "auto",
        doc=f"Largest rank that is served; GPU memory is set aside for it. One of {', '.join(map(str, RANKS))} (what vLLM's --max-lora-rank takes). "
        "`auto`: the highest rank among the adapters that are selected, at least 16; it grows by a rolling update that is announced as "
        "RestartRequired, and never shrinks by itself.",
        restarts=True,
        rules=(cel.one_of_or_auto("adapters.maxRank", RANKS),),
    )


class ServiceSettings(Model):
    """How the model is reached."""

    port: int = field(8000, doc="Port of the Service and of the engine.", restarts=True, ge=1024, le=65_535)
    api_keys_secret: str = field(
        "",
        doc="Secret of the namespace whose `keys.yaml` says which API keys are let in, for which models and how much. Its content is read again "
        "without a restart. Empty: everybody who reaches the Service.",
        restarts=True,
        max_length=253,
        pattern=NAME,
    )


class LLMDeploymentSpec(Model):
    """What is to be served."""

    RULES = (OF_THE_SOURCE,)

    model: ModelSource = field(doc="The base model.", restarts=True)
    cache: Cache = field(default_factory=Cache, doc="Where the weights lie before the engines read them.", restarts=True)
    engine: Engine = field(default_factory=Engine, doc="vLLM's settings.", restarts=True)
    accelerator: Accelerator = field(default_factory=Accelerator, doc="Where it runs.", restarts=True)
    replicas: int = field(1, doc="Number of pods; 0 stops the service.", unit="pods", restarts=False, ge=0, le=1000)
    adapters: Adapters = field(default_factory=Adapters, doc="Which LoRAAdapters are served, and how many.", restarts=False)
    service: ServiceSettings = field(default_factory=ServiceSettings, doc="How the model is reached.", restarts=True)
    access: Access = field(
        default_factory=Access,
        doc="How the model is reached from outside: Ingress, HTTPRoute, NetworkPolicy. Nothing of it by default.",
        restarts=False,
    )
    rollout: Rollout = field(default_factory=Rollout, doc="How pods are replaced without losing a request.", restarts=True)
    pod: ServingPod = field(default_factory=ServingPod, doc="What the pods get beside what Graftwork decides.", restarts=True)
    service_account_name: str = field(
        "",
        doc="ServiceAccount of the Jobs that look the model up and fill the shared cache, where a cloud gives accounts access to buckets (IRSA, "
        "Workload Identity); no pod that serves has it, and so it needs `cache.mode: Shared`. The operator's configuration lists which are allowed "
        "(`allowedServiceAccounts`). A FineTuneJob reads its base with Secrets only. Empty: the namespace's default.",
        restarts=False,
        max_length=253,
        pattern=NAME,
    )


class LLMDeployment(Resource):
    """A served base model with its adapters."""

    KIND: ClassVar[str] = "LLMDeployment"
    RULES = (
        cel.dns_label_name("an LLMDeployment", "its Service and pods are named after it"),
        cel.Rule(
            "!has(self.spec.adapters) || !has(self.spec.adapters.aliases) || self.spec.adapters.aliases.all(a, a.name != "
            "(has(self.spec.model.servedName) && self.spec.model.servedName != '' ? self.spec.model.servedName : self.metadata.name))",
            "adapters.aliases has an alias equal to the base's served name (model.servedName, or the resource's name), so clients "
            "could not tell them apart; rename one",
        ),
    )

    spec: LLMDeploymentSpec

    @property
    def served_name(self) -> str:
        """What clients send as `model` for the base."""
        return self.spec.model.served_name or self.metadata.name
