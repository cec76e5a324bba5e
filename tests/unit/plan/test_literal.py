"""What users write reaches a container as they wrote it, whatever Kubernetes expands, and names none of its variables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graftwork.api import FineTuneJob, LLMDeployment
from graftwork.plan import pods, serving, training
from graftwork.plan.sources import Source
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plan.expansion import expanded
from tests.unit.runtime.fakes import CONFIG

SECRET = {"KEY": "s3cr3t", "": "nothing"}
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(["$", "(", ")", "KEY", "é", "x"]), max_size=12).map("".join))
NASTY = ["$(KEY)", "$$(KEY)", "$$$(KEY)", "$", "$$", "$é", "$("]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(KEY)", "s3cr3t"),
        ("$$(KEY)", "$(KEY)"),
        ("$$$(KEY)", "$s3cr3t"),
        ("$$$$(KEY)", "$$(KEY)"),
        ("$(NONE)-$(KEY)", "$(NONE)-s3cr3t"),
        ("$(KEY$(KEY)", "$(KEY$(KEY)"),
        ("$(KEY", "$(KEY"),
        ("a$", "a$"),
        ("$a$$b", "$a$b"),
    ],
)
def test_the_expansion_is_as_kubernetes_documents_and_tests_it(text: str, wanted: str) -> None:
    assert expanded(text, SECRET) == wanted


@given(text=TEXTS)
def test_what_is_escaped_arrives_as_it_was_meant(text: str) -> None:
    assert expanded(pods.literal(text), SECRET) == text
    assert pods.meant(pods.literal(text)) == text


@pytest.mark.parametrize("text", NASTY)
def test_every_text_of_a_deployment_arrives(text: str) -> None:
    spec: dict[str, Any] = {
        "model": {"source": f"s3://models/{text}"},
        "accelerator": {"types": ["cpu"]},
        "engine": {"args": {"chat-template": text}, "env": [{"name": "MINE", "value": text}]},
    }
    deployment = LLMDeployment.from_object({"metadata": {"name": "support", "namespace": "ml", "uid": "u"}, "spec": spec})
    template = serving.pod_template(deployment, serving.Inputs(Source("s3", "models", text, f"s3://models/{text}")), CONFIG, "h")
    download = next(item for item in template["spec"]["initContainers"] if item["name"] == "download")
    assert f"s3://models/{text}" in [expanded(argument, SECRET) for argument in download["args"]]
    (engine,) = template["spec"]["containers"]
    assert f"--chat-template={text}" in [expanded(argument, SECRET) for argument in engine["args"]]
    assert {item["name"]: expanded(item.get("value", ""), SECRET) for item in engine["env"]}["MINE"] == text


@pytest.mark.parametrize("text", NASTY)
def test_every_text_of_a_run_arrives(text: str) -> None:
    base, data = Source("s3", "models", text, f"s3://models/{text}"), Source("s3", "data", text, f"s3://data/{text}")
    spec = {"baseModel": {"source": base.text}, "dataset": {"source": data.text}, "publish": {"alias": "medical"}}
    job = FineTuneJob.from_object({"metadata": {"name": "tickets", "namespace": "ml", "uid": "u"}, "spec": spec})
    made = training.run_job(job, training.Inputs(base, "", data), 1, CONFIG)["spec"]["template"]["spec"]
    downloads = [[expanded(argument, SECRET) for argument in item["args"]] for item in made["initContainers"]]
    assert [base.text in downloads[0], data.text in downloads[1]] == [True, True]
    (document,) = [item["value"] for item in made["containers"][0]["env"] if item["name"] == "GRAFTWORK_RUN"]
    assert json.loads(expanded(document, SECRET))["base"]["source"] == base.text
