"""Every skip is listed at the end, and one that is not on the list fails the run; property tests see the same examples in every run.

With `GRAFTWORK_FUZZ=long` they look elsewhere each time: that is for finding faults, a run that decides about a change has to be repeatable.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
if os.environ.get("GRAFTWORK_FUZZ") != "long":
    settings.load_profile("repeatable")

ALLOWED = Path(__file__).with_name("skips.txt")


def allowed_reasons() -> list[str]:
    """Return the beginnings of the reasons that may be given for a skip."""
    return [line.strip() for line in ALLOWED.read_text().splitlines() if line.strip() and not line.startswith("#")]


def skip_reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run with an unlisted skip into a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    unlisted = [report for report in skipped if not any(skip_reason(report).startswith(reason) for reason in allowed_reasons())]
    if unlisted and exitstatus == pytest.ExitCode.OK:
        for report in unlisted:
            reporter.write_line(f"skip that tests/skips.txt does not list: {report.nodeid}: {skip_reason(report)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
