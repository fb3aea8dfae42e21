"""Sweeps: the same bytes whoever computes them, nothing computed twice, nothing lost when somebody dies."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import EngineUnavailable, ScenarioError, SimulatorError, Unreachable
from simulator.plan.sweep import sweep as sweep_module
from simulator.plan.sweep.charts import sweep_charts
from simulator.plan.sweep.points import parse_axis
from simulator.plan.sweep.sweep import (
    METRICS,
    Sweep,
    evaluate_point,
    parquet_bytes,
    plan_sweep,
    run_sweep,
    table_rows,
)
from simulator.plan.sweep.workers import dask_cluster, local_processes
from simulator.prepare import prepare
from simulator.result.summary import summarise
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario
from tests.simulator.plan.test_placement_search import random_scenario

ROOT = Path(__file__).parents[3]


def small(**changes: Any) -> Scenario:
    workload = {"prompt_tokens": 8, "output_tokens": 8, "runs": 1}
    return random_scenario(3, 3, workload=workload, replications=4).replace(**changes)


def small_sweep(count: int = 12, scenario: Scenario | None = None) -> Sweep:
    return plan_sweep(
        scenario or small(),
        [
            parse_axis(f"devices.d0.link.rate=1MB/s..90MB/s:{count // 2}"),
            parse_axis("workload.concurrency=1,2"),
        ],
    )


def in_threads() -> Executor:
    return ThreadPoolExecutor(2)


def read(data: bytes) -> dict[str, list[Any]]:
    from pyarrow import parquet

    columns: dict[str, list[Any]] = parquet.read_table(io.BytesIO(data)).to_pydict()
    return columns


def test_the_table_holds_what_single_runs_give(tmp_path: Path) -> None:
    sweep = small_sweep(4)
    columns = read(run_sweep(sweep, tmp_path, in_threads))
    assert list(columns)[:2] == ["devices.d0.link.rate", "workload.concurrency"]
    assert columns["devices.d0.link.rate"] == [1e6, 1e6, 9e7, 9e7]
    assert columns["workload.concurrency"] == [1, 2, 1, 2]
    assert {f"{metric}_{part}" for metric in METRICS for part in ("median", "p05", "p95")} < set(columns)
    scenario = small(workload={"prompt_tokens": 8, "output_tokens": 8, "runs": 1, "concurrency": 2})
    link = scenario.devices["d0"].link.model_copy(update={"rate": 9e7})
    device = scenario.devices["d0"].model_copy(update={"link": link})
    one = prepare(scenario.model_copy(update={"devices": {**scenario.devices, "d0": device}}))
    summary = summarise(token_times_s(one.job, 4), one.engine.chats(one.job))
    assert columns["tokens_per_s_median"][3] == summary.tokens_per_s.median
    assert columns["first_token_s_p95"][3] == summary.first_token_s.p95
    assert columns["placement"][3] == " ".join(f"{k}:{n}" for k, n in one.job.placement.layer_counts.items())


def test_processes_threads_and_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    sweep = small_sweep()
    by_threads = run_sweep(sweep, tmp_path / "threads", in_threads)
    by_processes = run_sweep(sweep, tmp_path / "processes", local_processes(2))
    rows = {key: json.loads(evaluate_point(key, payload))["row"] for key, payload in reversed(sweep.tasks)}
    assert by_threads == by_processes == parquet_bytes(sweep, rows)
    assert (tmp_path / "threads" / "sweep.parquet").read_bytes() == by_threads


def test_finished_points_are_never_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []

    def counted(key: str, payload: str) -> str:
        computed.append(key)
        return evaluate_point(key, payload)

    monkeypatch.setattr(sweep_module, "evaluate_point", counted)
    run_sweep(small_sweep(8), tmp_path, in_threads)
    assert len(computed) == 8
    first = run_sweep(small_sweep(8), tmp_path, in_threads)
    assert len(computed) == 8
    longer = plan_sweep(
        small(),
        [parse_axis("devices.d0.link.rate=1MB/s..90MB/s:4"), parse_axis("workload.concurrency=1,2,3")],
    )
    run_sweep(longer, tmp_path, in_threads)
    assert len(computed) == 12, "only the four new points"
    run_sweep(small_sweep(8, small(name="renamed")), tmp_path, in_threads)
    assert len(computed) == 12, "a name changes no number"
    run_sweep(small_sweep(8, small(seed=99)), tmp_path, in_threads)
    assert len(computed) == 20
    assert first == run_sweep(small_sweep(8), tmp_path, in_threads)


def test_a_line_that_was_cut_off_costs_one_point(tmp_path: Path) -> None:
    whole = run_sweep(small_sweep(), tmp_path, in_threads)
    path = tmp_path / "points.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    told: list[tuple[int, int]] = []
    assert run_sweep(small_sweep(), tmp_path, in_threads, progress=lambda *done: told.append(done)) == whole
    assert told == [(11, 12), (12, 12)]
    assert len(table_rows(small_sweep(), tmp_path)) == 12


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    sweep, killed = small_sweep(24), list[int]()
    pools: list[Any] = []

    def pool() -> Executor:
        pools.append(local_processes(2)())
        return pools[-1]

    def kill(done: int, total: int) -> None:
        if done == 3 and not killed:
            killed.append(next(iter(pools[-1]._processes)))
            os.kill(killed[0], signal.SIGKILL)

    data = run_sweep(sweep, tmp_path, pool, workers=2, progress=kill)
    assert len(killed) == 1
    assert len(pools) == 2
    assert data == run_sweep(sweep, tmp_path / "calm", in_threads)
    keys = [json.loads(line)["key"] for line in (tmp_path / "points.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted(key for key, _ in sweep.tasks), "each point once"


class Dying(Executor):
    """A pool whose workers die at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        from concurrent.futures import Future
        from concurrent.futures.process import BrokenProcessPool

        future: Future[str] = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future


def test_workers_that_always_die_end_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="died 3 times without finishing a point"):
        run_sweep(small_sweep(4), tmp_path, Dying)
    assert not (tmp_path / "sweep.parquet").exists()


KILLED_RUN = """
import sys
from pathlib import Path
from tests.simulator.plan.test_sweep import small_sweep
from simulator.plan.sweep.sweep import run_sweep
from simulator.plan.sweep.workers import local_processes
if __name__ == "__main__":
    run_sweep(small_sweep(400), Path(sys.argv[1]), local_processes(2), progress=lambda done, _: print(done, flush=True))
"""


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED_RUN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "sweep")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if int(line) >= 20:
                os.killpg(run.pid, signal.SIGKILL)
                break
    before = (tmp_path / "sweep" / "points.jsonl").read_bytes()
    whole_lines = before.count(b"\n")
    assert 20 <= whole_lines < 400
    told: list[int] = []
    data = run_sweep(
        small_sweep(400), tmp_path / "sweep", in_threads, progress=lambda done, _: told.append(done)
    )
    assert told[0] == whole_lines
    after = (tmp_path / "sweep" / "points.jsonl").read_bytes()
    assert after.startswith(before)
    assert read(data)["error"] == [""] * 400


def test_points_that_do_not_fit_say_so_and_the_others_go_on(tmp_path: Path) -> None:
    sweep = plan_sweep(small(), [parse_axis("model.layer_bytes=100MB,90GB,300MB")])
    columns = read(run_sweep(sweep, tmp_path, in_threads))
    assert [bool(error) for error in columns["error"]] == [False, True, False]
    assert "TB are missing" in columns["error"][1]
    assert columns["tokens_per_s_median"][1] != columns["tokens_per_s_median"][1], "not a number"
    assert set(sweep_charts(sweep, table_rows(sweep, tmp_path))) >= {"tokens_per_s"}


def test_arrivals_can_be_swept(tmp_path: Path) -> None:
    workload = {
        "prompt_tokens": 8,
        "output_tokens": 4,
        "runs": 1,
        "concurrency": 4,
        "arrivals": {"rate": "1 /h", "chats": 6},
    }
    sweep = plan_sweep(
        random_scenario(3, 3, workload=workload, replications=3),
        [parse_axis("workload.arrivals.rate=10 /h,200 /h")],
    )
    columns = read(run_sweep(sweep, tmp_path, in_threads))
    assert columns["workload.arrivals.rate"] == [10, 200]
    assert columns["goodput_per_hour_median"][1] > columns["goodput_per_hour_median"][0]
    assert columns["first_token_s_median"][1] > columns["first_token_s_median"][0]


def test_faults_of_all_axes_come_at_once() -> None:
    with pytest.raises(ScenarioError) as caught:
        plan_sweep(small(), [parse_axis("devices.dd0.link.rtt=1ms,2ms"), parse_axis("worklod.runs=1,2")])
    assert len(caught.value.faults) == 2


def test_a_hypercube_is_swept_as_well(tmp_path: Path) -> None:
    axes = [parse_axis("devices.d0.link.rate=1MB/s..90MB/s:log"), parse_axis("engine.step_overhead=1ms..9ms")]
    sweep = plan_sweep(small(), axes, lhs=5)
    assert len(sweep.points) == 5
    columns = read(run_sweep(sweep, tmp_path, in_threads))
    assert len(set(columns["tokens_per_s_median"])) == 5
    charts = sweep_charts(sweep, table_rows(sweep, tmp_path))
    assert charts["tokens_per_s"]["layer"][0]["mark"]["type"] == "point"


def test_dask_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineUnavailable, match=r"extra `dask`.*pip install"):
        dask_cluster("tcp://127.0.0.1:8786")


needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra `dask` is not installed"
)


class Cluster:
    """A scheduler and two workers on loopback, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{port}", folder
        self.processes = [
            self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        ]
        self.workers = [self.worker() for _ in range(2)]

    def worker(self) -> subprocess.Popen[bytes]:
        process = self._start(
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--no-nanny",
            "--local-directory",
            str(self.folder),
        )
        self.processes.append(process)
        return process

    def _start(self, what: str, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", what, *args],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    yield found
    found.close()


@needs_dask
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_gives_the_same_bytes_and_survives_a_dead_worker(
    cluster: Cluster, tmp_path: Path
) -> None:
    sweep, killed = small_sweep(60), []

    def kill(done: int, total: int) -> None:
        if done == 10 and not killed:
            killed.append(cluster.workers[0].pid)
            cluster.workers[0].kill()

    by_dask = run_sweep(
        sweep, tmp_path / "dask", _patiently(dask_cluster(cluster.address)), workers=2, progress=kill
    )
    assert killed
    assert by_dask == run_sweep(sweep, tmp_path / "threads", in_threads)
    assert len((tmp_path / "dask" / "points.jsonl").read_text().splitlines()) == 60


def _patiently(connect: Any) -> Any:
    """A scheduler process needs a moment until it listens."""

    def make() -> Executor:
        for _ in range(5):
            try:
                return connect()  # type: ignore[no-any-return]
            except Unreachable:
                time.sleep(1)
        return connect()  # type: ignore[no-any-return]

    return make


@needs_dask
@pytest.mark.filterwarnings("ignore")
def test_no_dask_scheduler_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from simulator.plan.sweep import workers as sweep_workers

    monkeypatch.setattr(sweep_workers, "CONNECT_S", 0.5)
    with pytest.raises(Unreachable, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        run_sweep(small_sweep(4), tmp_path, dask_cluster("tcp://127.0.0.1:9"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Any:
    import typer

    from sim import sweep_cmd

    app = typer.Typer()
    app.command("sweep")(sweep_cmd.sweep)
    app.command("load")(sweep_cmd.load)

    def run(*args: str) -> str:
        app(list(args), standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_commands_print_documents_and_leave_charts(command: Any, tmp_path: Path) -> None:
    path, out = str(ROOT / "scenarios" / "thunderbolt_macs.yaml"), tmp_path / "out"
    document = json.loads(
        command(
            "sweep",
            path,
            "--over",
            "workload.prompt_tokens=16,64",
            "--replications",
            "3",
            "--workers",
            "1",
            "--out",
            str(out),
            "--json",
        )
    )
    assert document["points"] == len(document["rows"]) == 2
    assert {"points.jsonl", "sweep.parquet", "charts.html"} <= {file.name for file in out.iterdir()}
    assert b"https://" not in (out / "charts" / "first_token_s.svg").read_bytes().replace(
        b"http://www.w3.org", b""
    )
    text = command(
        "sweep",
        path,
        "--over",
        "workload.prompt_tokens=16,64",
        "--replications",
        "3",
        "--workers",
        "1",
        "--out",
        str(out),
        "--no-charts",
    )
    assert "fastest:" in text
    assert "2 points" in text
    document = json.loads(
        command(
            "load",
            path,
            "--rates",
            "5,3000",
            "--chats",
            "4",
            "--replications",
            "2",
            "--most",
            "3",
            "--out",
            str(tmp_path / "load"),
            "--json",
        )
    )
    assert [point["arrivals_per_hour"] for point in document["load"]] == [5, 3000]
    assert [row["chats"] for row in document["crossover"]["rows"]] == [1, 2, 3]
    assert (tmp_path / "load" / "charts" / "crossover.svg").exists()
