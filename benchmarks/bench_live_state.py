"""What share of a core does `sim live run` take beside a cluster whose state has 64 nodes (2 MB)?
Run: python -m benchmarks.bench_live_state [--nodes 64] [--runs 6].

A fake cluster in a process of its own; six runs of 200 tokens, 50 ms apart. Aim: under 5 %. On a shared
machine of two cores: 3.4 % in all; 1.0 s of CPU until the first token, then 1.9 % (the same as with 3 nodes).
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from live.measure import MeasureOptions, measure_exo
from tests.live.exo.fake import FakeExo
from tests.live.exo.large import enlarged
from tests.live.test_measure import scenario

GAP_S, TOKENS = 0.05, 200


def main() -> None:
    """Print the CPU time of a measurement against its duration."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--runs", type=int, default=6)
    asked = parser.parse_args()
    wanted = scenario(workload={"prompt_tokens": 60, "output_tokens": TOKENS, "runs": asked.runs})
    marks: list[tuple[float, float]] = []

    def mark(*_: int) -> None:
        marks.append((time.process_time(), time.perf_counter()))

    with serving(asked.nodes) as url, tempfile.TemporaryDirectory() as folder:
        mark()
        measure_exo(wanted, [url], Path(folder) / "m.jsonl", MeasureOptions(on_token=mark))
    (cpu_s, at_s), (first_cpu_s, first_s), (last_cpu_s, last_s) = marks[0], marks[1], marks[-1]
    print(
        f"{asked.nodes} nodes: {first_cpu_s - cpu_s:.2f} s of CPU in {first_s - at_s:.1f} s before the first "
        f"token, then {(last_cpu_s - first_cpu_s) / (last_s - first_s):.1%} of a core for "
        f"{last_s - first_s:.0f} s; in all {(last_cpu_s - cpu_s) / (last_s - at_s):.1%}"
    )


@contextmanager
def serving(nodes: int) -> Iterator[str]:
    """The address of the fake cluster."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(nodes, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


def _serve(nodes: int, told: Connection) -> None:
    fake = FakeExo(gap_s=GAP_S, state=enlarged(nodes))
    with fake.serve() as server:
        told.send(server.url)
        told.recv()
    print(f"{fake.all_looks} looks at the state")


if __name__ == "__main__":
    main()
