"""How long does a swarm take, and does that grow about linearly with its servers?
Run: python -m benchmarks.bench_swarm [--hours 0.5].

The servers of `petals_public`, 20 chats at once. Aim: 1,000 servers for 24 h under 60 s and 1 GB on one core.
On a shared machine of two cores: 24 h took 32 to 51 s of processor time and 95 MB (43 s with the costs of
2026-11-27); half an hour of 1,000, 3,000 and 10,000 servers took 1.0, 2.2 and 4.8 s, and 85, 97 and 133 MB.
"""

from __future__ import annotations

import argparse
import resource
import time

from simulator.library import load
from simulator.swarm.population import setting
from simulator.swarm.run import replicate


def main() -> None:
    """Print processor time and memory for 1,000, 3,000 and 10,000 servers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=0.5)
    asked, scenario = parser.parse_args(), load("petals_public")
    spec = scenario.swarm
    assert spec is not None
    for times in (1, 3, 10):
        population = {
            name: one.model_copy(update={"count": times * one.count}) for name, one in spec.population.items()
        }
        swarm = spec.model_copy(update={"population": population, "hours": asked.hours})
        given = setting(scenario.model_copy(update={"swarm": swarm}))
        begun_s = time.process_time()
        tale = replicate(given, 0)
        most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"{tale.servers:6,} servers: {time.process_time() - begun_s:6.1f} s, {most_mb:.0f} MB")


if __name__ == "__main__":
    main()
