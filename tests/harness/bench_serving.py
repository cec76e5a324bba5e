"""`make bench-serving`: lost requests in each disruption, and what serving costs the API server and the operator -> docs/benchmarks/serving.json.

Each phase makes what it needs and removes it, so one can be repeated: `make bench-serving ONLY=many`. `ARGS="--where api-server"` measures the
operator against an API server without nodes and controllers, which needs no cluster; the phases with engines are left out there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from tests.harness import records
from tests.harness.bench_create import Bench, Sizes, create, edit, many
from tests.harness.bench_disrupt import disruptions, migrate
from tests.harness.bench_places import PLACES
from tests.harness.disrupt import DISRUPTIONS
from tests.harness.disrupt import chosen as chosen_disruptions
from tests.harness.phases import conclude, run, within

RECORD = "serving"
LIMIT_MINUTES = 60
WITHOUT_ENGINES: dict[str, Callable[[Bench], None]] = {"create": create, "edit": edit, "many": many}
PHASES: dict[str, Callable[[Bench], None]] = {**WITHOUT_ENGINES, "disruptions": disruptions, "migrate": migrate}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    options = argparse.ArgumentParser(description=__doc__)
    default = Sizes()
    options.add_argument("--only", choices=list(PHASES), help="one phase; others' figures stay as they were measured")
    options.add_argument("--where", choices=list(PLACES), default="cluster", help="the embedded cluster, or an API server alone")
    options.add_argument("--created", type=int, default=default.created, help="LLMDeployments created one after the other")
    options.add_argument("--edited", type=int, default=default.edited, help="LLMDeployments edited without effect")
    options.add_argument("--many", type=int, default=default.many, help="LLMDeployments created at once")
    options.add_argument("--requests", type=int, default=default.requests, help="requests in each disruption, of each side, at least")
    options.add_argument("--disruptions", default=default.disruptions, help=f"some of {','.join(DISRUPTIONS)}; all of them by default")
    found = options.parse_args(argv)
    try:
        chosen_disruptions(found.disruptions)
    except ValueError as error:
        options.error(str(error))
    if found.where != "cluster" and found.only in set(PHASES) - set(WITHOUT_ENGINES):
        options.error(f"--only {found.only} needs engines, and --where {found.where} has none: leave out --where")
    return found


def command(chosen: argparse.Namespace) -> str:
    """Return the command by which the figures are measured, for the record."""
    default = arguments([])
    changed = [f"--{name} {value}" for name, value in vars(chosen).items() if name != "only" and value != getattr(default, name)]
    return "make bench-serving" + (f" ONLY={chosen.only}" if chosen.only else "") + (f' ARGS="{" ".join(changed)}"' if changed else "")


def main() -> None:
    """Measure and write docs/benchmarks/serving.json."""
    chosen = arguments()
    recorder = records.Recorder(RECORD, command(chosen))
    possible = PHASES if chosen.where == "cluster" else WITHOUT_ENGINES
    phases = {chosen.only: possible[chosen.only]} if chosen.only else possible
    with PLACES[chosen.where]() as place, within(LIMIT_MINUTES):
        bench = Bench(place, recorder, Sizes(chosen.created, chosen.edited, chosen.many, chosen.requests, chosen.disruptions))
        failed = run(phases, bench)
    conclude(RECORD, failed, recorder.missed())


if __name__ == "__main__":
    main()
