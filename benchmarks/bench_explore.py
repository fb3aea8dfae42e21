"""How soon does `sim explore` answer, alone and with ten browsers that drag, and in how much memory?
Run: python -m benchmarks.bench_explore [--browsers 10] [--seconds 20].

Clients of HTTP against a server in processes of its own; each sends a change 60 ms after the last one,
whatever became of that, as a page does while somebody drags. Aims: a first answer for five devices
within 300 ms at the median; ten at once within 2 s at p95, under 500 MB. Two cores, of which another process
used one: 224 ms, a whole answer 2.9 s, ten at once 0.87 s at p95, 458 MB. With ten other processes: 500 ms,
4 s, 7.8 s, 430 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from simulator.library import find_scenario

TEXT = find_scenario("five_devices").read_text(encoding="utf-8")
EVERY_S = 0.06


def main() -> None:
    """Print the times of answers and the server's memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    with serving() as (address, process):
        asyncio.run(alone(address))
        told = asyncio.run(crowd(address, asked.browsers, asked.seconds))
        print(f"{told}; {memory_bytes(process) / 1e6:.0f} MB in all processes (shared pages once)")


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """A server of its own; its address and process."""
    command = [sys.executable, "-m", "sim.main", "explore", "five_devices", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+?/", process.stdout.readline())
        assert found is not None
        try:
            yield found[0], process.pid
        finally:
            process.terminate()


def body(rtt_ms: float, *, quick: bool) -> dict[str, object]:
    """A change of one link, held against the scenario as it was."""
    edit = {"path": ["devices", "pixel", "link", "rtt"], "value": f"{rtt_ms:.3g} ms"}
    return {"scenario": TEXT, "edits": [edit], "quick": quick, "against": TEXT}


async def alone(address: str) -> None:
    """One browser, one change after the other."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        for quick, count, word in ((True, 40, "first answer"), (False, 6, "whole answer")):
            took = [await timed(http, body(2 + at, quick=quick)) for at in range(count)]
            rest = sorted(took[2:])
            middle = statistics.median(rest)
            print(f"{word}: {1e3 * middle:.0f} ms at the median, {1e3 * rest[-1]:.0f} ms at most")


async def timed(http: httpx.AsyncClient, asked: dict[str, object]) -> float:
    """Seconds until the answer."""
    begun_s = time.perf_counter()
    (await http.post("/api/predict", json=asked)).raise_for_status()
    return time.perf_counter() - begun_s


async def crowd(address: str, browsers: int, seconds: float) -> str:
    """Many at once: how long those answers took that were given, and how many were dropped for newer ones."""
    took: list[float] = []
    dropped: list[int] = []
    ends_s = time.perf_counter() + seconds
    await asyncio.gather(*(drag(address, number, ends_s, took, dropped) for number in range(browsers)))
    took.sort()
    p95 = took[int(0.95 * (len(took) - 1))]
    return (
        f"{browsers} at once: {statistics.median(took):.2f} s at the median, {p95:.2f} s at p95, "
        f"{len(took)} answers, {len(dropped)} dropped"
    )


async def drag(address: str, number: int, ends_s: float, took: list[float], dropped: list[int]) -> None:
    """One browser: a step every EVERY_S, dozens to a drag, then a pause in which the newest is answered."""
    heads = {"x-sim-client": f"browser-{number}"}
    async with httpx.AsyncClient(base_url=address, timeout=60, headers=heads) as http:

        async def step(at: int) -> None:
            begun_s = time.perf_counter()
            status = (await http.post("/api/predict", json=body(2 + at % 50, quick=True))).status_code
            if status == 200:
                took.append(time.perf_counter() - begun_s)
            else:
                dropped.append(status)

        at = 0
        while time.perf_counter() < ends_s:
            steps = []
            for _ in range(20):
                steps.append(asyncio.create_task(step(at := at + 1)))
                await asyncio.sleep(EVERY_S)
            await asyncio.gather(*steps)


def memory_bytes(process: int) -> float:
    """Of a process and all that it has started: pages that several share count once."""
    family, found = {process}, 0.0
    stats = {
        int(path.parent.name): path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()
    }
    for _ in range(4):
        family |= {one for one, text in stats.items() if int(text.rpartition(")")[2].split()[1]) in family}
    for one in family:
        text = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii")
        found += 1024 * float(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return found


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
