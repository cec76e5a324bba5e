"""Where the weights of an LLMDeployment lie before its engines read them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import WithJsonSchema

from graftwork.api.base import Model, field
from graftwork.api.cel import Rule, quoting
from graftwork.api.common import INT_OR_STRING, NAME

Mode = Literal["auto", "Shared", "PerPod", "None"]
_SIZE = r"^(auto|[0-9]+([.][0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?)$"
Size = Annotated[int | str, WithJsonSchema({**INT_OR_STRING, "pattern": _SIZE, "maxLength": 32})]

OF_THE_SOURCE = Rule(
    "!has(self.cache) || !has(self.cache.mode) || self.cache.mode == 'auto' || (self.cache.mode == 'None') == self.model.source.startsWith('pvc://')",
    "cache.mode None is for pvc:// sources, whose claim is mounted as it is, and these have no other mode: leave cache.mode out, or choose Shared or "
    "PerPod for a source that is downloaded",
)
"""A rule of the whole spec, since it is about the source too."""


class Cache(Model):
    """Where the weights lie before the engines read them."""

    NOT_IN_PODS: ClassVar[tuple[str, ...]] = ("size", "keep")
    """Fields that no pod is made from."""

    mode: Mode = field(
        "auto",
        doc="`Shared`: one claim (ReadWriteMany), filled once by a Job, which all pods mount read-only; only that Job has the source's credentials. "
        "`PerPod`: each pod downloads into a volume of its own. `None`: the claim of a pvc:// source is mounted. `auto`: `Shared` where the class is "
        "known to be mountable by several nodes, else `PerPod`; decided when a new pod template is made, and told with its reason in `status.cache`.",
        restarts=True,
    )
    storage_class: str = field(
        "",
        doc="StorageClass of the claim. Empty: the cluster's default. The class of a claim that exists never changes.",
        restarts=True,
        max_length=253,
        pattern=NAME,
    )
    size: Size = field(
        "auto",
        doc="Size of the claim, such as 100Gi. `auto`: room for `keep` revisions of the model, and a tenth more, in whole GiB; with GPUs also for "
        "what vLLM compiles. It grows where the class allows that, and never shrinks.",
        unit="bytes",
        restarts=False,
        rules=(
            quoting(
                "type(self) == string ? (self == 'auto' || isQuantity(self)) : int(self) > 0",
                "cache.size is a quantity such as 100Gi, or auto",
                "string(self)",
            ),
        ),
    )
    keep: int = field(
        2,
        doc="Revisions of the model that stay in the claim, the served one among them. One that a pod uses, or that may be rolled back to, always "
        "stays, so that with 1 a new revision still needs room beside the old one.",
        unit="revisions",
        restarts=False,
        ge=1,
        le=16,
    )
