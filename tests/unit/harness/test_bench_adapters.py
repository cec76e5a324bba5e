"""The parts of `make bench-adapters` that need no cluster."""

from __future__ import annotations

import json
import signal
from typing import Any

import jsonschema
import pytest

from tests.harness import bench_guard, bench_hot, bench_many, bench_stage, bench_usual, install, phases, records
from tests.harness.bench_adapters import arguments, command

SCHEMA = json.loads((records.ROOT / "docs/design/schemas/benchmark.schema.json").read_text())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "make bench-adapters"),
        (["--only", "guard"], "make bench-adapters ONLY=guard"),
        (["--only", "guard", "--pairs", "40", "--keep"], 'make bench-adapters ONLY=guard ARGS="--pairs 40"'),
        (["--adapters", "10", "--flips", "3"], 'make bench-adapters ARGS="--adapters 10 --flips 3"'),
    ],
)
def test_the_record_says_the_command_that_measures_the_same_again(argv: list[str], expected: str) -> None:
    assert command(arguments(argv)) == expected


def test_more_adapters_than_the_deployment_has_room_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["--adapters", "62"]).adapters == 62
    with pytest.raises(SystemExit):
        arguments(["--adapters", "63"])
    assert "--adapters is 63; the deployment has room for 62" in capsys.readouterr().err


def stage() -> bench_stage.Stage:
    recorder = records.Recorder("adapters", "make bench-adapters")
    return bench_stage.Stage(install.Environment(None, "", {}), recorder, bench_stage.Sizes())  # type: ignore[arg-type]  # never asked


def test_a_phase_that_fails_does_not_keep_the_next_from_its_figures() -> None:
    ran: list[str] = []

    def broken(_: bench_stage.Stage) -> None:
        raise AssertionError("no pod is ready")

    assert phases.run({"a": broken, "b": lambda _: ran.append("b")}, stage()) == ["a"]
    assert ran == ["b"]


def test_the_end_of_the_time_ends_the_run() -> None:
    def slow(_: bench_stage.Stage) -> None:
        raise phases.OutOfTimeError

    with pytest.raises(phases.OutOfTimeError):
        phases.run({"a": slow, "b": lambda _: pytest.fail("ran")}, stage())
    with pytest.raises(SystemExit, match="stopped after 5 minutes"), phases.within(5):
        raise phases.OutOfTimeError
    assert signal.alarm(0) == 0, "nothing rings later"


def test_a_run_fails_for_what_it_did_not_measure_and_for_what_misses_its_limit() -> None:
    assert phases.verdict([], []) == ""
    assert phases.verdict(["guard", "many"], []) == "not measured: guard, many"
    assert phases.verdict(["guard"], ["x: 2 s, the limit is 1 s"]).splitlines() == [
        "not measured: guard",
        "these figures miss their limits:",
        "x: 2 s, the limit is 1 s",
    ]


def test_a_plain_deployment_that_loses_nothing_voids_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_stage.Stage, "serving", lambda self: None)
    monkeypatch.setattr(bench_stage.Stage, "kube", None)
    monkeypatch.setattr(bench_stage.Stage, "save", lambda self, *figures: pytest.fail("recorded"))
    monkeypatch.setattr(bench_usual.plain, "remove", lambda kube: None)
    monkeypatch.setattr(bench_usual, "by_adapter", lambda stage, service: bench_usual.Change(0.5, 0, 40))
    monkeypatch.setattr(bench_usual, "by_restart", lambda stage, service: bench_usual.Change(40.0, 0, 60))
    with pytest.raises(AssertionError, match="lost none of 60 requests"):
        bench_usual.usual(stage())
    bench_usual.require_loss(bench_usual.Change(40.0, 1, 60))


def row(alias: str, sent: str, state: str = "Loaded") -> dict[str, Any]:
    return {"alias": alias, "state": state, "seenAt": "2026-11-21T13:00:00.000000Z", "loadSentAt": sent}


def test_the_time_from_seeing_to_loading_is_read_from_every_copy() -> None:
    rows = [row("bench-0", ""), row("hot-0", "2026-11-21T13:00:00.040000Z"), row("hot-1", "2026-11-21T13:00:01.500000Z")]
    assert bench_hot.seen_to_load({"pod": "tiny-a", "adapters": rows}, 2) == pytest.approx([0.04, 1.5])


@pytest.mark.parametrize("missing", [row("hot-1", ""), row("hot-1", "2026-11-21T13:00:01.500000Z", "Failed")])
def test_an_adapter_without_times_voids_the_measurement(missing: dict[str, Any]) -> None:
    rows = [row("hot-0", "2026-11-21T13:00:00.040000Z"), missing]
    with pytest.raises(AssertionError, match="tiny-a tells the times of 1 adapters and not of 2"):
        bench_hot.seen_to_load({"pod": "tiny-a", "adapters": rows}, 2)


def test_of_several_pods_the_slowest_counts() -> None:
    figure = bench_hot.slowest("load", [[0.01] * 50, [0.01] * 49 + [0.2], [0.02] * 50], 0.15)
    assert (figure.value, len(figure.samples), figure.as_record()["holds"]) == (0.2, 150, False)


def test_the_limit_of_the_guard_is_for_the_far_end_of_the_interval() -> None:
    seconds = [(0.0104, 0.0100)] * 6 + [(0.0120, 0.0100)] * 6
    median, far = bench_guard.latency_figures(seconds)
    assert (median.limit, median.value) == (None, pytest.approx(1.2))
    assert (far.value, far.unit, far.as_record()["holds"]) == (pytest.approx(2.0), "ms", False)


def test_throughput_is_recorded_as_the_share_that_is_lost() -> None:
    median, far = bench_guard.throughput_figures("answers", [(99.0, 100.0)] * 12)
    assert (median.value, far.value, far.as_record()["holds"]) == (pytest.approx(0.01), pytest.approx(0.01), True)
    assert bench_guard.throughput_figures("answers", [(97.0, 100.0)] * 12)[1].as_record()["holds"] is False


def test_a_guarded_engine_that_is_faster_holds_the_limit() -> None:
    assert bench_guard.latency_figures([(0.009, 0.010)] * 12)[1].as_record()["holds"] is True


def test_resident_memory_is_in_millions_of_bytes() -> None:
    assert bench_many.resident("Name:\tpython3\nVmHWM:\t   50000 kB\nVmRSS:\t   40000 kB\nThreads:\t3\n") == (40.96, 51.2)
    with pytest.raises(ValueError, match="not in kB"):
        bench_many.resident("VmHWM:\t 1 MB\nVmRSS:\t 1 MB\n")


def test_the_sum_of_all_processes_is_what_the_limit_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_many.processes, "of_pod", lambda uid, needle: [1, 1] if (uid, needle) == ("u-1", "graftwork_agent") else [])
    one, _ = bench_many.resident((bench_many.Path("/proc/1/status")).read_text())
    assert bench_many.agent_memory("u-1")[0] == pytest.approx(2 * one, rel=0.2)
    with pytest.raises(AssertionError, match="no agent"):
        bench_many.agent_memory("u-2")


def test_flags_are_read_from_the_engines_command_line() -> None:
    args = ["vllm", "serve", "/models/base", "--max-loras=16", "--max-cpu-loras=128"]
    pod = {"spec": {"containers": [{"name": "vllm", "args": args}]}}
    assert (bench_many.flag(pod, "--max-loras"), bench_many.flag(pod, "--max-cpu-loras")) == (16, 128)


def test_a_copy_has_the_files_and_nothing_else_of_its_origin() -> None:
    origin = {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": "bench-0-1", "namespace": "e2e", "uid": "u", "labels": {"graftwork.dev/published-by": "j"}, "finalizers": ["f"]},
        "spec": {"alias": "bench-0", "owner": "bench-0", "version": 1, "source": "store://e2e/bench-0/3f2a9c41d0e7", "rank": 8},
        "status": {"loadedText": "1/1"},
    }
    assert bench_stage.copy_of(origin, "flip", 2) == {
        "apiVersion": "graftwork.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": "flip-2", "namespace": "e2e", "labels": bench_stage.LABELS},
        "spec": {"alias": "flip", "owner": "flip", "version": 2, "source": "store://e2e/bench-0/3f2a9c41d0e7", "rank": 8},
    }


def test_a_failure_tells_how_many_adapters_have_which_reason() -> None:
    adapters = [{"status": {"conditions": [{"type": "Ready", "reason": "CapacityExceeded"}]}}] * 2 + [{"status": {}}]
    assert bench_stage.reasons(adapters) == "2 CapacityExceeded, 1 no condition"


def test_every_figure_fits_the_schema() -> None:
    found = [
        *bench_usual.figures("LoRAAdapter", bench_usual.Change(0.5, 0, 40), 0),
        *bench_guard.latency_figures([(0.011, 0.010)] * 12),
        bench_hot.slowest("load", [[0.1]], 0.15),
    ]
    stamp = {"command": "make bench-adapters", "commit": "aaaaaaa", "date": "2026-11-21", "machine": "2 cores"}
    record = records.merged("adapters", None, [{**figure.as_record(), **stamp} for figure in found])
    jsonschema.validate(record, SCHEMA)
    assert "| one more adapter under load, LoRAAdapter: lost requests | 0 requests | 0 requests | yes | 1 |" in records.table(record)
