"""`maxRank: auto`: an adapter that the running engines cannot take is announced, and then served after an ordinary rolling update.

It never shrinks by itself, and a smaller number would replace the engines once more. So this file comes after those that know the maximum.
"""

from __future__ import annotations

import json

from tests.e2e import spoiled
from tests.e2e.adapters import Bucket, Published, reasons
from tests.e2e.service import DEPLOYMENT_READY_SECONDS, MAX_RANK, Service
from tests.e2e.unreferenced import Unreferenced
from tests.harness.kube import Kube, Object, condition
from tests.harness.load import Load

HIGH_RANK = 32
FLAG = "--max-lora-rank"


def flags(pod: Object) -> list[str]:
    """Return the command line of the engine in a pod, or in a template of one."""
    (engine,) = [each for each in pod["spec"]["containers"] if each["name"] == "vllm"]
    return list(engine["args"])


def widened(adapter: Published, rank: int) -> dict[str, bytes]:
    """Return an adapter's files with a higher rank and the same effect: its sum is multiplied by alpha / rank."""
    before = json.loads(adapter.files[spoiled.CONFIG])
    return spoiled.configured(spoiled.wider(adapter.files, rank), lora_alpha=before["lora_alpha"] * rank // before["r"])


def test_a_higher_rank_is_announced_and_served_after_a_rolling_update_that_loses_no_request(
    taught: Service,
    kube: Kube,
    swordfish: Published,
    bucket: Bucket,
    unreferenced: Unreferenced,  # swept beside this rolling update, for test_68
) -> None:
    pods = taught.identities()
    assert f"{FLAG}={MAX_RANK}" in flags(taught.pod())
    kube.patch("llmdeployment", "tiny", {"spec": {"adapters": {"maxRank": "auto"}}})
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)
    assert taught.identities() == pods, "auto is what the engines run with, as long as nothing needs more"
    fields = {**swordfish.manifest_fields, "rank": HIGH_RANK}
    source, its_digest = bucket.publish("wide", widened(swordfish, HIGH_RANK), fields, namespace=kube.namespace)
    with Load(taught.host, taught.port, ["tiny", "medical"], clients=2, tokens=8, seconds=600) as load:
        load.wait_for(4)
        kube.apply(swordfish.under("wide", source=source, digest=its_digest, rank=HIGH_RANK))
        announced = kube.wait("loraadapter", "wide-1", lambda item: "RestartRequired" in reasons(item), 30, "RestartRequired")
        assert condition(announced, "Stalled").get("status") != "True", "nobody has to do anything"
        told = kube.wait("llmdeployment", "tiny", lambda item: condition(item, "AdaptersLoaded").get("reason") == "RestartRequired", 30, "told")
        for text in ("wide-1", str(HIGH_RANK), f"{FLAG} {MAX_RANK}"):
            assert text in condition(told, "AdaptersLoaded")["message"]
        assert taught.ask("wide").status in (404, 503)
        kube.wait("deployment", "tiny", lambda item: f"{FLAG}={HIGH_RANK}" in flags(item["spec"]["template"]), 30, "with the new flag")
        kube.run("rollout", "status", "deploy/tiny", f"--timeout={DEPLOYMENT_READY_SECONDS}s", timeout=DEPLOYMENT_READY_SECONDS + 10)
        taught.until_answer("wide", "swordfish", timeout=60)
        load.wait_for(8)
    assert load.tally.failures == []
    assert f"{FLAG}={HIGH_RANK}" in flags(taught.pod())
    assert not set(taught.identities()) & set(pods)
    kube.wait_condition("loraadapter", "wide-1", "Ready", timeout=60)
    kube.wait_condition("llmdeployment", "tiny", "Ready", timeout=60)
    kube.delete("loraadapter", "wide-1")
