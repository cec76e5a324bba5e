"""Every example with an LLMDeployment can be planned without a cluster, and the operator would serve it."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftwork.cli.main import main

EXAMPLES = sorted(path for path in (Path(__file__).parents[3] / "examples").glob("*.yaml") if "kind: LLMDeployment" in path.read_text())
FACTS = Path(__file__).with_name("recorded") / "llama-3-8b.json"


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_planned(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--offline", "-f", str(path)]) == 0
    out = capsys.readouterr().out
    assert ": new, " in out
    assert "+kind: Deployment\n" in out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_planned_with_the_facts_of_a_model(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--offline", "-f", str(path), "--facts", str(FACTS)]) == 0
    out = capsys.readouterr().out
    assert "\nMemory of " in out
    assert "not known" not in out.partition("\n--- ")[0]
    # weights, cache and adapters of a model that fits on no test machine, and what that means for the pod
    assert " parameters x " in out
    assert "\n  startup " in out
