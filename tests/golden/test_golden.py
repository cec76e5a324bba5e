"""The manifests of each case are what was reviewed."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.golden import render


class Plain(yaml.SafeDumper):
    """Without anchors: the same dict twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


SCHEMAS = Path(__file__).parents[2] / "docs" / "design" / "schemas"


@pytest.mark.parametrize("name", render.names())
def test_a_case_renders_the_manifests_that_were_reviewed(name: str, request: pytest.FixtureRequest) -> None:
    manifests = render.render(render.read(name))
    text = yaml.dump_all(manifests, Dumper=Plain, sort_keys=False, width=200)
    path = render.CASES / f"{name}.out.yaml"
    if request.config.getoption("--update-golden", default=False):
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text))


@pytest.mark.parametrize("name", render.names())
def test_what_other_programs_read_follows_its_contract(name: str) -> None:
    checked = []
    for manifest in render.render(render.read(name)):
        if manifest["kind"] == "ConfigMap":
            schema, document = "adapters", json.loads(manifest["data"]["adapters.json"])
        elif manifest["kind"] == "Job" and "graftwork.dev/inspects" not in manifest["metadata"]["labels"]:
            env = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
            variable = next(item for item in env if item["name"] in ("GRAFTWORK_RUN", "GRAFTWORK_IMPORT", "GRAFTWORK_FILL"))
            schema, document = variable["name"].removeprefix("GRAFTWORK_").lower(), json.loads(variable["value"])
        else:
            continue
        jsonschema.validate(document, json.loads((SCHEMAS / f"{schema}.schema.json").read_text()))
        checked.append(schema)
    assert checked, "a case has at least one document that another program reads"
