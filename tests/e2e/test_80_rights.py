"""The operator has exactly the rights that it uses: looked at when all other files have made it use them."""

from __future__ import annotations

from tests.e2e.service import Service
from tests.harness import audit, install, machine
from tests.harness.kube import Kube

ONCE = {("coordination.k8s.io", "leases", "create")}
"""What only the first installation on a cluster needs: the Lease outlives the operator."""


def test_the_operators_verbs_equal_its_rules_both_ways(taught: Service, environment: install.Environment) -> None:
    began = machine.run_began()
    calls = audit.calls(machine.audit_log(), audit.OPERATOR, began)
    used = {(call.group, call.resource, call.verb) for call in calls if call.code != 403}
    # A server-side apply that makes the object is logged as patch with 201, and needs the right to create.
    used |= {(call.group, call.resource, "create") for call in calls if call.code == 201}
    refused = [call for call in calls if call.code == 403]
    assert refused == [], "the operator asked for something that its rules do not allow"
    granted = rules(environment.kube)
    assert sorted(used - granted) == [], "used without a rule"
    assert sorted(granted - used - (ONCE if began else set())) == [], "rules that the whole run never needed"


def rules(kube: Kube) -> set[tuple[str, str, str]]:
    """Return (group, resource, verb) of every rule that is bound to the operator's account."""
    found = set()
    roles = [
        item for kind in ("clusterroles", "roles") for item in kube.within(install.SYSTEM_NAMESPACE).list(kind, "app.kubernetes.io/name=graftwork")
    ]
    for role in roles:
        for rule in role["rules"]:
            found |= {(group, resource, verb) for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
    return found
