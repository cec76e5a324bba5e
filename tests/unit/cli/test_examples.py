"""Every example with an LLMDeployment can be planned without a cluster, and the operator would serve it."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftwork.cli.main import main

EXAMPLES = sorted(path for path in (Path(__file__).parents[3] / "examples").glob("*.yaml") if "kind: LLMDeployment" in path.read_text())


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_planned(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--offline", "-f", str(path)]) == 0
    out = capsys.readouterr().out
    assert ": new, " in out
    assert "+kind: Deployment\n" in out
