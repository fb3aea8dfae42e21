"""How long does a placement search take, and is anything
better? Run: python -m benchmarks.bench_place [--clusters 200].

Eight devices and 80 layers, all objectives; then random clusters: EXO's rule, the speed rule and 10,000
random placements each against the search, the best three of them and the rules under simulation.
"""

from __future__ import annotations

import argparse
import time

from simulator.plan.place.costs import decode_costs
from simulator.plan.place.search import OBJECTIVES, search
from simulator.plan.place.solve import solve
from simulator.prepare import ground
from tests.simulator.plan.test_placement_search import ENGINES, check_never_worse, random_scenario


def main() -> None:
    """Print seconds per search, and what was compared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--placements", type=int, default=10_000)
    asked = parser.parse_args()
    for engine in ENGINES:
        scenario = random_scenario(7, 8, engine)
        start_s = time.perf_counter()
        best = solve(decode_costs(ground(scenario)))[0]
        exact_s = time.perf_counter() - start_s
        print(
            f"{engine}: 8 devices, 80 layers: exact search {exact_s:.3f} s, gap "
            f"{best.value_s / best.lower_s - 1:.1e}"
        )
        for objective in OBJECTIVES:
            start_s = time.perf_counter()
            answer = search(scenario, objective)  # type: ignore[arg-type]
            print(
                f"  {objective}: {time.perf_counter() - start_s:.2f} s with {answer.proof.simulated} "
                "simulated"
            )
    start_s, compared = time.perf_counter(), 0
    for seed in range(asked.clusters):
        compared += check_never_worse(random_scenario(seed), asked.placements)
    print(
        f"{asked.clusters} random clusters: nothing better among {compared:,} placements "
        f"({time.perf_counter() - start_s:.0f} s)"
    )


if __name__ == "__main__":
    main()
