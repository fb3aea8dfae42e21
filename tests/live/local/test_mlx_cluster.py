"""The local MLX cluster for real: ranks in MLX's own environment, behind the relay, small."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from calibrate.samples import sample
from live.local.cluster import Run
from live.local.conversation import Callbacks, LocalReply, PlainConversation
from live.local.mlx.cluster import MlxCluster
from live.local.mlx.environment import MLX
from live.local.mlx.plan import plan_mlx
from live.local.mlx.quick import Strategy, quick_scenario
from live.local.run import run_scenario
from simulator.errors import LiveError
from simulator.result.measurement import read_measurement
from simulator.scenario import Scenario
from tests.live.local.parts import is_running, until

pytestmark = [
    pytest.mark.local,
    pytest.mark.skipif(
        not MLX.is_installed(),
        reason="MLX is not installed for the local cluster: `sim live local install --engine mlx`",
    ),
]
TOKENS = 10  # a sample needs eight gaps


def asked(
    strategy: Strategy,
    ranks: int,
    *,
    layers: Sequence[int] = (),
    delay: str = "0 s",
    load: str | None = None,
    engine: str = "mlx",
) -> Scenario:
    made = quick_scenario(
        "mlx-40mb",
        strategy,
        ranks,
        layers=layers,
        delay=delay,
        background={"rank1": load} if load else {},
        engine=engine,
    )
    return made.replace(workload={"prompt_tokens": 5, "output_tokens": TOKENS, "runs": 1})


def reply(scenario: Scenario) -> tuple[list[int], Run]:
    """Greedy tokens of one chat, and what was seen of it."""
    made = plan_mlx(scenario)
    with MlxCluster(made) as cluster:
        before, heard = cluster.begin_watch(), LocalReply(TOKENS)
        calls = Callbacks(lambda reply: None, lambda reply, token: None)
        PlainConversation(made, cluster, calls).reply(heard, seed=1)
        return heard.tokens, cluster.end_watch(before, heard.sent_ns, tuple(heard.times_ns), heard.busy_ns)


@pytest.fixture(scope="module")
def alone() -> list[int]:
    tokens, _ = reply(asked("pipeline", 1))
    assert len(set(tokens)) > 3, "a reply that repeats one token compares nothing"
    return tokens


@pytest.mark.parametrize(
    ("engine", "strategy", "layers", "ranks"),
    [
        ("mlx", "pipeline", [6, 2], 2),
        ("mlx", "pipeline", [2, 3, 3], 3),
        ("mlx", "tensor", (), 2),
        ("mlx", "tensor", (), 4),
        ("exo", "pipeline", [2, 3, 3], 3),
        ("exo", "tensor", (), 2),
    ],
)
def test_the_tokens_are_those_of_a_single_process(
    alone: list[int], engine: str, strategy: Strategy, layers: Sequence[int], ranks: int
) -> None:
    """Whatever the strategy; and each message that was announced crossed the relay as one flight."""
    scenario = asked(strategy, ranks, layers=layers, delay="0.1 ms", engine=engine)
    tokens, run = reply(scenario)
    assert tokens == alone
    made = plan_mlx(scenario)
    for place, device in enumerate(made.devices):
        ways = made.to_left(place, 5, TOKENS), made.to_right(place, 5, TOKENS)
        announced = [size for way in ways for count, size in way for _ in range(count)]
        crossed = [one["size_bytes"] for one in run.flights if one["source"] == device.name]
        assert sorted(crossed) == sorted(announced)


@pytest.mark.timed
def test_delays_are_on_the_critical_path() -> None:
    """Tensor pays 2 rounds in each of 16 all-reduces, a pipeline of three one delay for each rank."""
    for strategy, ranks, delays in (("tensor", 2, 32), ("pipeline", 3, 3)):
        _, run = reply(asked(strategy, ranks, delay="3 ms"))  # type: ignore[arg-type]
        assert np.diff(run.token_ns).min() / 1e9 > delays * 0.003


@pytest.mark.timed
def test_a_throttled_rank_is_slower() -> None:
    """By quota or stops in a pipeline, by waits of its own with tensor."""
    _, run = reply(asked("pipeline", 2, load="75%"))
    assert run.service_s["rank1"] > 1.5 * run.service_s["rank0"]
    _, plain = reply(asked("tensor", 2))
    _, slow = reply(asked("tensor", 2, load="75%"))
    assert np.quantile(np.diff(slow.token_ns), 0.1) > 1.3 * np.quantile(np.diff(plain.token_ns), 0.1)


def test_a_measurement_is_one_that_calibrates(tmp_path: Path) -> None:
    found = read_measurement(run_scenario(asked("tensor", 2, delay="0.2 ms"), tmp_path))
    facts = found.provenance
    assert (facts.source, facts.engine, facts.software["mlx"]) == ("local", "mlx-tensor", "0.32.4")
    assert [(shard.start_layer, shard.end_layer) for shard in facts.placement] == [(0, 8), (0, 8)]
    hops = list(found.of("hop"))
    assert {(event["source"], event["sink"]) for event in hops} == {("rank0", "rank1"), ("rank1", "rank0")}
    # 32 messages of 1.5 kB a token, and those of the prompt
    assert all(event["messages"] == 32 * (TOKENS + 1) for event in hops)
    assert len(sample(found).gaps_s) == TOKENS - 1


def test_a_rank_that_dies_ends_the_run_in_words_and_leaves_nothing() -> None:
    made = plan_mlx(asked("tensor", 2))
    with MlxCluster(made) as cluster:
        pids = cluster.pids
        os.kill(cluster._others["rank1"].pid, signal.SIGKILL)
        with pytest.raises(LiveError, match=r"rank1.*was killed by SIGKILL"):
            cluster.generate(5, TOKENS, 1)
    assert until(lambda: not any(is_running(pid) for pid in pids), 5)
