"""What each `make bench-…` with phases does around them: one failing keeps no other from its figures, all end in time, and the verdict comes last."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from tests.harness import records

LOG = logging.getLogger("phases")
S = TypeVar("S")


class OutOfTimeError(BaseException):
    """The whole run took longer than it may; not an Exception, so that no phase takes it for its own."""


def run(phases: dict[str, Callable[[S], None]], stage: S) -> list[str]:
    """Run each phase and return the names of those that failed: what one cannot measure does not keep the others from theirs."""
    failed = []
    for name, phase in phases.items():
        began = time.monotonic()
        print(f"--- {name}", flush=True)
        try:
            phase(stage)
        except Exception:
            LOG.exception("%s failed", name)
            failed.append(name)
        print(f"--- {name}: {time.monotonic() - began:.0f} s", flush=True)
    return failed


def verdict(failed: Sequence[str], missed: Sequence[str]) -> str:
    """Return why the run counts as failed: phases without figures, and figures beyond their limits; nothing when it does not."""
    lines = [f"not measured: {', '.join(failed)}"] if failed else []
    return "\n".join([*lines, *(["these figures miss their limits:", *missed] if missed else [])])


@contextmanager
def within(minutes: int) -> Iterator[None]:
    """Let what is inside take so long at most, and end the program with what is known by then."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(minutes * 60)
    try:
        yield
    except OutOfTimeError:
        sys.exit(f"stopped after {minutes} minutes; the figures that are known are written, the phase that began last is not complete")
    finally:
        signal.alarm(0)


def conclude(record: str, failed: Sequence[str], missed: Sequence[str]) -> None:
    """Show a record, and end the program with an error if a phase failed or a figure misses its limit."""
    path = records.FOLDER / f"{record}.md"
    if path.exists():
        print(path.read_text())
    if faults := verdict(failed, missed):
        sys.exit(faults)
