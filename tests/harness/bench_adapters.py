"""`make bench-adapters`: how fast and how cheap hot-loaded adapters are -> docs/benchmarks/adapters.json.

Each phase makes what it needs, so one can be repeated: `make bench-adapters ONLY=guard`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tests.harness import install, records
from tests.harness.bench_balance import balance
from tests.harness.bench_guard import guard
from tests.harness.bench_hot import one_pod, rollback, three_pods, unloaded
from tests.harness.bench_many import many
from tests.harness.bench_stage import RECORD, ROOM, TAUGHT, Sizes, Stage
from tests.harness.bench_usual import usual
from tests.harness.guard_cpu import guard_cpu
from tests.harness.phases import conclude, run, within

LIMIT_MINUTES = 25
PHASES: dict[str, Callable[[Stage], None]] = {  # in an order with few changes of the deployment: each change starts engines
    "one-pod": one_pod,
    "rollback": rollback,
    "unloaded": unloaded,
    "guard": guard,
    "guard-cpu": guard_cpu,
    "usual": usual,
    "balance": balance,
    "three-pods": three_pods,
    "many": many,
}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    options = argparse.ArgumentParser(description=__doc__)
    default = Sizes()
    options.add_argument("--only", choices=list(PHASES), help="one phase; others' figures stay as they were measured")
    options.add_argument(
        "--adapters", type=int, default=default.adapters, help=f"adapters of the phases with 1 and 3 pods, at most {ROOM - len(TAUGHT)}"
    )
    options.add_argument("--many", type=int, default=default.many, help="adapters on one engine")
    options.add_argument("--pairs", type=int, default=default.pairs, help="pairs of each comparison of the guard")
    options.add_argument("--flips", type=int, default=default.flips, help="rollbacks, and unloads by hand")
    options.add_argument("--keep", action="store_true", help="leave deployment and adapters there for another phase")
    chosen = options.parse_args(argv)
    if chosen.adapters > ROOM - len(TAUGHT):
        options.error(f"--adapters is {chosen.adapters}; the deployment has room for {ROOM - len(TAUGHT)} beside the taught ones")
    return chosen


def command(chosen: argparse.Namespace) -> str:
    """Return the command by which the figures are measured, for the record."""
    default = arguments([])
    changed = [f"--{name} {value}" for name, value in vars(chosen).items() if name not in ("only", "keep") and value != getattr(default, name)]
    only = f" ONLY={chosen.only}" if chosen.only else ""
    return "make bench-adapters" + only + (f' ARGS="{" ".join(changed)}"' if changed else "")


def main() -> None:
    """Measure and write docs/benchmarks/adapters.json."""
    chosen = arguments()
    environment = install.prepare(resyncSeconds=60)
    recorder = records.Recorder(RECORD, command(chosen))
    stage = Stage(environment, recorder, Sizes(chosen.adapters, chosen.many, chosen.pairs, chosen.flips))
    phases = {chosen.only: PHASES[chosen.only]} if chosen.only else PHASES
    try:
        with within(LIMIT_MINUTES):
            if not chosen.only:
                stage.remove()
            failed = run(phases, stage)
    finally:
        if not chosen.keep:
            stage.remove()
    conclude(RECORD, failed, recorder.missed())


if __name__ == "__main__":
    main()
