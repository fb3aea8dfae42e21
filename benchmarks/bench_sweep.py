"""How long does a sweep take, and how much memory? Run: python -m benchmarks.bench_sweep [points] [workers].

The target: 1,000 points with 50 replications of 256 tokens in under 60 s and 1 GB, on two cores.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

from simulator.files import load
from simulator.plan.sweep.points import parse_axis
from simulator.plan.sweep.sweep import plan_sweep, run_sweep
from simulator.plan.sweep.workers import local_processes
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]


def proportional_bytes(pid: int) -> int:
    """Memory of a process and its children, what they share counted once (Linux only)."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if pid in (int(folder.name), parent):
                line = next(
                    row
                    for row in (folder / "smaps_rollup").read_text().splitlines()
                    if row.startswith("Pss:")
                )
                total += int(line.split()[1]) * 1024
        except (OSError, StopIteration, ValueError):
            continue  # it ended meanwhile
    return total


def main() -> None:
    """Print seconds, points per second and the peak of memory; then the same again, from the folder."""
    import os

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else None
    scenario = load(ROOT / "scenarios" / "four_devices.yaml", Scenario).model_copy(
        update={"replications": 50}
    )
    axes = [
        parse_axis("workload.runs=1"),
        parse_axis(f"devices.pixel.link.rtt=1ms..60ms:log:{count // 10}"),
        parse_axis("devices.laptop.speed.decode_bandwidth=20GB/s..80GB/s:10"),
    ]
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            peak[0] = max(peak[0], proportional_bytes(os.getpid()))

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        for word in ("computed", "found"):
            start_s = time.perf_counter()
            sweep = plan_sweep(scenario, axes)
            planned_s = time.perf_counter() - start_s
            data = run_sweep(sweep, Path(folder), local_processes(workers), workers=workers)
            took_s = time.perf_counter() - start_s
            print(
                f"{len(sweep.points)} points {word} in {took_s:.1f} s ({planned_s:.1f} s of planning), "
                f"peak {peak[0] / 1e6:.0f} MB, table {len(data) / 1e3:.0f} kB"
            )
    stop.set()


if __name__ == "__main__":
    main()
