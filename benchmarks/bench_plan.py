"""What the planner must reach: 5,000 mixes in under 30 s, 1,000,000 tokens per CPU second on the fast path.

python benchmarks/bench_plan.py
"""

from __future__ import annotations

import time
from pathlib import Path

from simulator.files import load
from simulator.plan.buy.money import read_money
from simulator.plan.buy.options import shelf
from simulator.plan.buy.parts import Parts
from simulator.plan.buy.plan import plan
from simulator.plan.buy.prices import PriceBook
from simulator.plan.buy.search import search
from simulator.plan.sweep.sensitivity import sensitivity
from simulator.prepare import prepare
from simulator.run.evaluate import token_times_s
from simulator.scenario import Scenario

ROOT = Path(__file__).parents[1]
TOKENS, ROWS = 256, 1000


def scenario(name: str, engine: str | None = None) -> Scenario:
    found = load(ROOT / "scenarios" / f"{name}.yaml", Scenario)
    return (
        found
        if engine is None
        else found.model_copy(update={"engine": found.engine.model_copy(update={"name": engine})})
    )


def main() -> None:
    for name, engine, budget in (
        ("four_devices", "llama-rpc", 800.0),
        ("four_devices", "exo", 800.0),
        ("plan_70b_at_home", None, 2000.0),
    ):
        asked = scenario(name, engine)
        start, cpu = time.perf_counter(), time.process_time()
        found = search(shelf(asked, PriceBook("EUR"), budget), Parts(asked), budget)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(
            f"search {name} {asked.engine.name} {budget:.0f} EUR: {found.considered} mixes, {found.pruned} "
            "pruned, "
            f"{found.evaluated} evaluated: {wall:.1f} s wall, {cpu:.1f} s CPU; 5,000 mixes take "
            f"{5000 * cpu / found.considered:.1f} s CPU"
        )
    start, cpu = time.perf_counter(), time.process_time()
    plan(scenario("plan_70b_at_home"), read_money("800 EUR"), 8.0)
    print(
        f"whole plan plan_70b_at_home 800 EUR: {time.perf_counter() - start:.1f} s wall, "
        f"{time.process_time() - cpu:.1f} s CPU"
    )
    for name, engine in (("four_devices", "exo"), ("four_devices", "llama-rpc"), ("thunderbolt_macs", "exo")):
        job = prepare(scenario(name, engine)).job
        token_times_s(job, 50, "recursion")
        cpu = time.process_time()
        token_times_s(job, ROWS, "recursion")
        cpu = time.process_time() - cpu
        print(f"fast path {name} {engine}: {ROWS * TOKENS / cpu / 1e6:.2f} million tokens per CPU second")
    start = time.perf_counter()
    result = sensitivity(scenario("four_devices"))
    print(
        f"sensitivity four_devices: {len(result.influences)} inputs, {result.evaluations} evaluations, "
        f"{time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    main()
