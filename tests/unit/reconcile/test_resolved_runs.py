"""Training for a deployment whose model is of a hub."""

from __future__ import annotations

import json

from tests.unit.reconcile.test_finetunejob import job as fine_tune
from tests.unit.reconcile.test_resolving import COMMIT, FAILED, SOURCE, answered, asked, end, failure, inspect_pod
from tests.unit.reconcile.world import World
from tests.unit.status.seen import condition, message


async def test_a_run_trains_on_the_commit_that_is_served() -> None:
    world = World()
    await asked(world)
    fine_tune(world, deploymentRef="support")
    await world.run("FineTuneJob", "tickets")
    assert world.find("Job", "tickets-run-1") is None
    assert condition(world.status("FineTuneJob", "tickets"), "Ready") == ("False", "ModelResolving")
    await answered(world)
    await world.run("FineTuneJob", "tickets")
    spec = world.get("Job", "tickets-run-1")["spec"]["template"]["spec"]
    (base,) = [item for item in spec["initContainers"] if item["name"] == "download-base"]
    assert f"{SOURCE}@{COMMIT}" in base["args"]
    (document,) = [item["value"] for item in spec["containers"][0]["env"] if item["name"] == "GRAFTWORK_RUN"]
    assert json.loads(document)["base"]["source"] == f"{SOURCE}@{COMMIT}"


async def test_a_run_for_a_model_that_was_refused_waits_and_says_why() -> None:
    world = World()
    await asked(world)
    inspect_pod(world, (65, failure("SourceGated", "the repository is gated")))
    end(world, FAILED)
    await world.run("LLMDeployment", "support")
    fine_tune(world, deploymentRef="support")
    await world.run("FineTuneJob", "tickets")
    assert condition(world.status("FineTuneJob", "tickets"), "Ready") == ("False", "SourceGated")
    assert "LLMDeployment ml/support was refused" in message(world.status("FineTuneJob", "tickets"), "Ready")


async def test_a_run_for_a_model_of_a_bucket_waits_for_no_look_and_reads_the_bucket() -> None:
    world = World()
    world.deployment(model={"source": "s3://models/tiny", "credentialsSecret": "bucket"})
    await world.run("LLMDeployment", "support")
    assert condition(world.status("LLMDeployment", "support"), "ModelResolved") == ("False", "ModelResolving")
    fine_tune(world, deploymentRef="support")
    await world.run("FineTuneJob", "tickets")
    spec = world.get("Job", "tickets-run-1")["spec"]["template"]["spec"]
    (base,) = [item for item in spec["initContainers"] if item["name"] == "download-base"]
    assert "s3://models/tiny" in base["args"]
    assert "bucket" in {item["valueFrom"]["secretKeyRef"]["name"] for item in base["env"] if "valueFrom" in item}
