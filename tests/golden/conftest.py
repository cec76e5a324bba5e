"""`python -m pytest tests/golden --update-golden` writes the files anew; the diff is reviewed like code."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes instead of comparing."""
    parser.addoption("--update-golden", action="store_true", default=False, help="write the golden files anew")
