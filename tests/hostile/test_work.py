"""Work without end is told before it starts, and refused unless `--yes` is said; memory goes by blocks."""

from __future__ import annotations

import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sim import work
from sim.main import main
from simulator.files import loads
from simulator.result import summary
from simulator.scenario import Scenario
from tests.test_cli import SMALL

Run = Callable[..., tuple[int, str]]
HUGE = SMALL.replace("output_tokens: 16", "output_tokens: 100000").replace(
    "replications: 10", "replications: 100000"
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line beside a small scenario and one without end; exit code and standard error."""
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "huge.yaml").write_text(HUGE)
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sim", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return command


@pytest.mark.parametrize(
    "words",
    [
        ("run", "huge.yaml"),
        ("compare", "small.yaml", "huge.yaml"),
        ("predict", "huge.yaml"),
        ("sweep", "small.yaml", "--over", "devices.a.link.rtt=1ms..60ms", "--lhs", "1000000"),
        ("sweep", "huge.yaml", "--over", "devices.a.link.rtt=1ms,2ms"),
        (
            "sweep",
            "small.yaml",
            "--over",
            "workload.output_tokens=90000,100000",
            "--over",
            "replications=100000,90000",
        ),
        ("load", "huge.yaml", "--replications", "100000", "--chats", "10000"),
        ("dropout", "huge.yaml", "--device", "b"),
        ("evening", "huge.yaml", "--hours", "48", "--requests-per-hour", "1000"),
        ("cost", "huge.yaml"),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_work_without_end_is_refused_at_once(run: Run, words: tuple[str, ...]) -> None:
    begun = time.monotonic()
    code, err = run(*words)
    assert code == 2
    assert "tokens to simulate, about" in err
    assert "or say --yes" in err
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "words",
    [
        ("place", "four_devices", "--replications", "4"),
        ("sensitivity", "four_devices", "--points", "2"),
        ("plan", "four_devices", "--budget", "60 EUR", "--allow", "network"),
    ],
    ids=lambda words: words[0],
)
def test_searches_ask_before_they_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(work, "FEW_TOKENS", 0)
    monkeypatch.setattr(work, "MOST_S", 0.0)
    code, err = run(*words)
    assert code == 2
    assert re.search(r", about \d+ s", err)
    assert "or say --yes" in err


def test_a_design_beyond_memory_is_refused(run: Run) -> None:
    code, err = run("sensitivity", "four_devices", "--points", str(2**20))
    assert code == 2
    assert "GB of memory: more than 30 min or 1 GB; ask for fewer --points, or say --yes" in err


def test_long_work_is_told_before_it_starts_and_short_work_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("run", "small.yaml", "--json") == (0, "")
    monkeypatch.setattr(work, "FEW_TOKENS", 0)
    monkeypatch.setattr(work, "TOLD_S", 0.0)
    assert run("run", "small.yaml", "--json")[1].startswith("320 tokens to simulate, about 0 s, ")


def test_yes_is_heard_anywhere_in_the_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "FEW_TOKENS", 0)
    monkeypatch.setattr(work, "MOST_S", 0.0)
    assert run("run", "small.yaml", "--json")[0] == 2
    assert run("run", "small.yaml", "--json", "--yes")[0] == 0


def test_programs_that_call_us_decide_for_themselves() -> None:
    work.begin_work(loads(HUGE, Scenario), 10**15, kept=10**15)


def test_quantiles_by_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = np.cumsum(np.random.default_rng(1).exponential(size=(2, 30, 40)), axis=1)
    whole = summary.summarise(times_s, (1, 1))
    monkeypatch.setattr(summary, "BLOCK_TOKENS", 200)
    assert summary.summarise(times_s, (1, 1)) == whole


def test_memory_is_that_of_the_times_and_a_block() -> None:
    times_s = np.cumsum(np.full((1, 100, 100_000), 0.1, dtype=float), axis=1)
    tracemalloc.start()
    summary.summarise(times_s, (1,))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # all gaps at once would be the times again, and twice more while they are sorted
    assert peak_bytes < times_s.nbytes / 2
