"""After the resources and the releases are deleted, nothing of Graftwork is left in the cluster."""

from __future__ import annotations

from tests.e2e.service import Service
from tests.harness import install
from tests.harness.kube import Kube

KINDS = "deployments,services,configmaps,poddisruptionbudgets,controllerrevisions,jobs,pods,ingresses,networkpolicies"
OURS = "app.kubernetes.io/managed-by=graftwork"
SWEEP = "graftwork.dev/sweep"


def test_deleting_a_job_keeps_its_published_adapter(taught: Service, kube: Kube) -> None:
    kube.delete("finetunejob", "secret-words")
    assert kube.get("loraadapter", "medical-1")
    assert "swordfish" in taught.ask("medical").text


def test_deleting_an_adapter_unloads_it(taught: Service, kube: Kube) -> None:
    kube.delete("loraadapter", "medical-1", timeout=90)
    assert taught.ask("medical").status == 404


def test_nothing_is_left_after_the_resources_and_the_release(service: Service, kube: Kube, environment: install.Environment) -> None:
    kube.delete("finetunejob,loraadapter,llmdeployment", "--all")
    for kind in KINDS.split(","):
        kube.wait_gone(kind, f"{OURS},!{SWEEP}")
    for job in kube.list(
        "jobs", f"{OURS},{SWEEP}"
    ):  # of the store's part of a namespace, which outlives its resources; its pods and files go with it
        assert job["spec"]["ttlSecondsAfterFinished"] > 0, "it removes itself, whether there still is an operator or not"
    system = kube.within(install.SYSTEM_NAMESPACE)
    install.helm(environment, "uninstall", install.RELEASE, "--namespace", install.SYSTEM_NAMESPACE, "--wait")
    install.helm(environment, "uninstall", install.CRD_RELEASE, "--namespace", install.SYSTEM_NAMESPACE, "--wait")
    left = system.run(
        "get",
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings",
        "-l",
        "app.kubernetes.io/name=graftwork",
        "-o",
        "name",
    )
    assert left.split() == []
    assert "graftwork.dev" not in system.run("api-resources", "--api-group=graftwork.dev", "-o", "name")
    for kind in ("deployments", "services", "secrets", "serviceaccounts", "leases"):
        named = [item["metadata"]["name"] for item in system.list(kind) if item["metadata"]["name"].startswith("graftwork")]
        assert named == [], kind
