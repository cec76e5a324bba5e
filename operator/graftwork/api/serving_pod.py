"""What a serving pod gets beside what Graftwork decides; who it runs as and what its engine may do are merged over Graftwork's own settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from graftwork.api.base import Model, field
from graftwork.api.cel import Rule
from graftwork.api.common import PodSettings

GroupId = Annotated[int, Field(ge=0, le=2_147_483_647)]
Capability = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Z0-9_]*$")]


class SeccompProfile(Model):
    """Which system calls the pod may make."""

    RULES = (
        Rule(
            "(self.type == 'Localhost') == (has(self.localhostProfile) && self.localhostProfile != '')",
            "seccompProfile.localhostProfile is the profile's file on the node, with type Localhost and only there",
        ),
    )

    type: Literal["RuntimeDefault", "Localhost", "Unconfined"] = field(
        doc="`RuntimeDefault`, `Localhost`, or `Unconfined` (weaker than restricted).", restarts=True
    )
    localhost_profile: str | None = field(None, doc="File of the profile on the node, for `Localhost`.", restarts=True, max_length=253)


class PodSecurityContext(Model):
    """Who the pod's processes run as; each field replaces Graftwork's."""

    run_as_user: int | None = field(
        None,
        doc="User of all processes. Left out: 10001. `vllm/vllm-openai` has a user of its own, 2000; any other works too, because HOME and the "
        "caches are volumes. 0 is root, and needs `runAsNonRoot: false`.",
        restarts=True,
        ge=0,
        le=2_147_483_647,
    )
    run_as_group: int | None = field(None, doc="Their group. Left out: 10001.", restarts=True, ge=0, le=2_147_483_647)
    fs_group: int | None = field(
        None,
        doc="Group that volumes belong to. Left out: 10001. The pod's containers share a key through a file that only this group may read.",
        restarts=True,
        ge=0,
        le=2_147_483_647,
    )
    supplemental_groups: tuple[GroupId, ...] = field((), doc="More groups, such as that of a file share.", restarts=True, max_length=16)
    run_as_non_root: bool | None = field(None, doc="Whether root is refused. Left out: yes.", restarts=True)
    seccomp_profile: SeccompProfile | None = field(None, doc="Which system calls are allowed. Left out: `RuntimeDefault`.", restarts=True)


class Capabilities(Model):
    """Rights of root, one by one."""

    add: tuple[Capability, ...] = field((), doc="Capabilities that the engine gets, such as IPC_LOCK for RDMA.", restarts=True, max_length=16)


class ContainerSecurityContext(Model):
    """What the engine's container may do; each field replaces Graftwork's."""

    privileged: bool | None = field(None, doc="All of the node's devices and rights. Left out: no.", restarts=True)
    allow_privilege_escalation: bool | None = field(None, doc="Whether a process may get more rights than its parent. Left out: no.", restarts=True)
    capabilities: Capabilities | None = field(None, doc="Rights of root, one by one. All are dropped first.", restarts=True)


class ServingPod(PodSettings):
    """What the pods get beside what Graftwork decides."""

    security_context: PodSecurityContext | None = field(
        None,
        doc="Who the pods run as, merged over Graftwork's settings. What is weaker than the restricted Pod Security Standard is told by the "
        "condition `PodSecurity`.",
        restarts=True,
    )
    container_security_context: ContainerSecurityContext | None = field(
        None, doc="What the container `vllm` may do, merged over Graftwork's settings.", restarts=True
    )
