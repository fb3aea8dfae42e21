"""Kills and full disks: `python -m tests.fuzz.kills --kills 500 --full 30`.

A child writes and says what it has promised, on a pipe; it is killed at a random moment, or at a rename of choice, or
its disk is full. What was promised must be there, and the next run must work as if nothing had happened.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from calibrate.ledger import append, read_ledger
from calibrate.validation import Validation
from simulator.errors import SimulatorError
from simulator.files import Appender, json_lines
from simulator.files.swap import clean, replace_in
from simulator.result.measurement import MeasurementWriter, Provenance, read_measurement

__all__ = ["FULL", "KILLED", "killed", "outcome"]

Say = Callable[[int], None]
OURS = ("scenario.yaml", "summary.json", "trace.parquet", "charts.html", "charts/a.svg")
HEADER = Provenance(
    name="m",
    created="2026-01-01T00:00:00+00:00",
    source="local",
    engine="exo",
    engine_version="1",
    model="m",
    model_layers=1,
    devices=(),
    placement=(),
    prompt_tokens=1,
    output_tokens=1,
    runs=1,
    warm_up_requests=0,
    clock="monotonic",
)


def outcome(number: int) -> Validation:
    """An outcome that its number tells from others."""
    return Validation(
        name=f"p{number}",
        kind="unknown",
        engine="exo",
        created="2026-01-01",
        prediction_created="2026-01-01",
        scenario_sha256="s",
        calibration_sha256="c",
        measurement=f"m{number}",
        measurement_sha256=f"h{number}",
        held_out=True,
        median_gap_s=0.1,
        predicted_median_gap_s=0.1,
        median_error=0.0,
        tokens_per_s_error=0.0,
        p90_error=0.0,
        p99_error=0.0,
        first_token_error=0.0,
        ks_distance=0.0,
        wasserstein_s=0.0,
        in_50=True,
        in_80=True,
        in_90=True,
        repeatability=0.0,
    )


# what is written, and how it is checked: (write all from a number on, what is there)


def _ledger(folder: Path, first: int, say: Say) -> None:
    for number in count(first):
        append(folder / "ledger.jsonl", outcome(number))
        say(number)


def _ledger_holds(folder: Path) -> set[int]:
    path = folder / "ledger.jsonl"
    return {int(one.name[1:]) for one in read_ledger(path).validations} if path.exists() else set()


def _measurement(folder: Path, first: int, say: Say) -> None:
    with MeasurementWriter(folder / f"m{first}.jsonl", HEADER) as out:
        for number in count(first):
            out.write("token", run=first, token=number - first, t_ns=number + 1)
            say(number)


def _measurement_holds(folder: Path) -> set[int]:
    found = set[int]()
    for path in folder.glob("m*.jsonl"):
        if path.stat().st_size:  # a header that was cut off promised nothing
            try:
                found |= {event["run"] + event["token"] for event in read_measurement(path).of("token")}
            except SimulatorError:
                continue
    return found


def _points(folder: Path, first: int, say: Say) -> None:
    with Appender(folder / "points.jsonl") as points:
        for number in count(first):
            points.append({"key": number, "row": {"x" * 50: "y" * (number % 5000)}})
            say(number)


def _points_hold(folder: Path) -> set[int]:
    path = folder / "points.jsonl"
    return {line["key"] for _, line in json_lines(path) if isinstance(line, dict)} if path.exists() else set()


def _results(folder: Path, first: int, say: Say) -> None:
    for number in count(first):
        clean(folder / "run", OURS)
        names = OURS if number % 2 else OURS[:4]
        replace_in(folder / "run", OURS, dict.fromkeys(names, b"%d" % number))
        say(number)


def _results_hold(folder: Path) -> set[int]:
    """All numbers up to the one that stands in every file: each run replaces the one before."""
    run = folder / "run"
    there = {name: int((run / name).read_text()) for name in OURS if (run / name).exists()}
    if not there:
        return set()
    (number,) = set(there.values())
    assert len(there) == (5 if number % 2 else 4), f"run {number} has {sorted(there)}"
    assert (run / "notes.md").read_text() == "mine" or number == 0
    return set(range(number + 1))


KILLED: dict[str, tuple[Callable[[Path, int, Say], None], Callable[[Path], set[int]]]] = {
    "ledger": (_ledger, _ledger_holds),
    "measurement": (_measurement, _measurement_holds),
    "sweep points": (_points, _points_hold),
    "results folder": (_results, _results_hold),
}


def _child(work: Callable[[Say], None]) -> tuple[int, int]:
    """Start `work` in a child of its own: its process, and the pipe on which it promises."""
    told, tell = os.pipe()
    if process := os.fork():
        os.close(tell)
        return process, told
    try:
        work(lambda number: os.write(tell, b"%d\n" % number) and None)
    finally:
        os._exit(0)


def _promised(pipe: int) -> set[int]:
    with os.fdopen(pipe, "rb") as file:
        return {int(line) for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")}


def killed(name: str, folder: Path, rng: random.Random, rounds: int) -> Iterator[str]:
    """Kill a writer again and again in one folder; yields what was lost."""
    write, holds = KILLED[name]
    promised, following = set[int](), 0
    if name == "results folder":
        replace_in(folder / "run", OURS, dict.fromkeys(OURS[:4], b"0"))
        (folder / "run" / "notes.md").write_text("mine")
        following = 1
    for _ in range(rounds):
        start = following
        process, pipe = _child(lambda say, start=start: write(folder, start, say))  # type: ignore[misc]
        time.sleep(rng.random() * rng.choice((0.002, 0.02)))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        promised |= _promised(pipe)
        there = holds(folder)
        if lost := promised - there:
            yield f"{name}: {len(lost)} of {len(promised)} lost, {sorted(lost)[:5]}"
        following = max(there | promised, default=0) + 1
    if name == "results folder":
        clean(folder / "run", OURS)
        if left := [path.name for path in folder.iterdir() if path.name != "run"]:
            yield f"{name}: {left} left behind"


def killed_at(folder: Path, step: int, *, before: bool, exchanging: bool) -> str:
    """Kill a run at a rename of choice, the `step`-th; what is wrong afterwards, empty where nothing is."""
    import simulator.files.swap as swap

    replace_in(folder / "run", OURS, dict.fromkeys(OURS, b"1"))
    (folder / "run" / "notes.md").write_text("mine")
    steps = count()

    def at(move: Callable[..., object]) -> Callable[..., object]:
        def moved(*paths: Path) -> object:
            is_now = next(steps) == step
            if is_now and before:
                os.kill(os.getpid(), signal.SIGKILL)
            done = move(*paths)
            if is_now:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return moved

    def work(say: Say) -> None:
        Path.rename = at(Path.rename)  # type: ignore[method-assign, assignment]
        swap.exchanged = at(swap.exchanged) if exchanging else lambda *_: False  # type: ignore[assignment]
        replace_in(folder / "run", OURS, dict.fromkeys(OURS[:4], b"2"))
        say(2)

    process, pipe = _child(work)
    os.waitpid(process, 0)
    promised = _promised(pipe)
    if not exchanging:  # where the system cannot exchange, the next run undoes what was begun
        clean(folder / "run", OURS)
    files = {name: (folder / "run" / name).read_bytes() for name in OURS if (folder / "run" / name).exists()}
    old, new = dict.fromkeys(OURS, b"1"), dict.fromkeys(OURS[:4], b"2")
    if files not in ([new] if promised else [old, new]):
        return f"step {step}: {files}"
    replace_in(folder / "run", OURS, old)
    clean(folder / "run", OURS)
    left = [path.name for path in folder.iterdir() if path.name != "run"]
    mine = (folder / "run" / "notes.md").read_text()
    return f"step {step}: left {left}, notes {mine!r}" if left or mine != "mine" else ""


def full_disk(name: str, folder: Path, rng: random.Random) -> str:
    """A disk with room for some bytes more: what was promised is there, and with room all goes on."""
    write, holds = KILLED[name]
    room = rng.randrange(1, 30_000)

    def limited(say: Say) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            write(folder, 1, say)
        except SimulatorError:
            say(0)
        except OSError:  # of a results folder, which `replace_files` puts into words
            say(0)

    if name == "results folder":
        replace_in(folder / "run", OURS, dict.fromkeys(OURS[:4], b"0"))
        (folder / "run" / "notes.md").write_text("mine")
        room = rng.randrange(1, 3)
    process, pipe = _child(limited)
    if name == "results folder":
        time.sleep(0.1)
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    promised = _promised(pipe)
    if 0 not in promised and name != "results folder":
        return f"{name}, room for {room}: no message"
    lost = promised - {0} - holds(folder)
    if lost:
        return f"{name}, room for {room}: lost {sorted(lost)[:5]}"
    if name in ("ledger", "sweep points"):
        path = folder / ("ledger.jsonl" if name == "ledger" else "points.jsonl")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            return f"{name}, room for {room}: half a line stayed"
    following = max(promised | holds(folder)) + 1
    process, pipe = _child(lambda say: write(folder, following, say))
    begun = os.read(pipe, 1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    after = {int(begun + line) for line in [os.read(pipe, 100).partition(b"\n")[0]]}
    os.close(pipe)
    return "" if after <= holds(folder) else f"{name}, room for {room}: the next run's {after} are lost"


FULL = full_disk


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--full", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng, wrong, done = random.Random(asked.seed), list[str](), Counter[str]()
    for name in KILLED:
        with tempfile.TemporaryDirectory() as folder:
            wrong += killed(name, Path(folder), rng, asked.kills // len(KILLED))
            done[f"kills of a {name} writer"] += asked.kills // len(KILLED)
    for exchanging in (True, False):
        for step in range(12):
            for before in (True, False):
                with tempfile.TemporaryDirectory() as folder:
                    if found := killed_at(Path(folder), step, before=before, exchanging=exchanging):
                        wrong.append(found)
                done["kills at a rename"] += 1
    for _ in range(asked.full):
        for name in KILLED:
            with tempfile.TemporaryDirectory() as folder:
                if found := full_disk(name, Path(folder), rng):
                    wrong.append(found)
            done[f"full disks of a {name} writer"] += 1
    print(*wrong, sep="\n")
    print(*(f"{times} {what}" for what, times in done.items()), f"{len(wrong)} wrong", sep="\n")


if __name__ == "__main__":
    main()
