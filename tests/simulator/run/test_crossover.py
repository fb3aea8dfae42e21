"""Where pipeline and tensor change places: against a closed form, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.run.compare import compare
from simulator.run.crossover import Crossover, crossovers, other_strategy
from simulator.scenario import Scenario

LAYERS, LAYER_S = 24, 0.002  # 20 MB at 10 GB/s


def pair(delay_s: float = 1e-5, **changes: Any) -> Scenario:
    """Two equal devices, nothing random, tensor over a ring, whose layers take `LAYER_S` each on one device."""
    speed = {
        "decode_bandwidth": "10 GB/s",
        "prefill_flops": "1000 TFLOPS",
        "decode_spread": 0,
        "prefill_spread": 0,
    }
    link = {
        "delay": {"law": "constant", "value": f"{delay_s / 2} s"},
        "rate": "1000 Gbit/s",
        "delay_spread": 0,
        "rate_spread": 0,
    }
    tree: dict[str, Any] = {
        "name": "pair",
        "model": {"name": "made", "layers": LAYERS, "hidden": 512, "layer_bytes": "20 MB", "kv_heads": 4},
        "engine": {
            "name": "exo",
            "sharding": "tensor",
            "step_overhead": "0 s",
            "hop_overhead": "0 s",
            "overhead_spread": 0,
        },
        "devices": {name: {"memory": "64 GB", "speed": speed, "link": link} for name in ("a", "b")},
        "workload": {"prompt_tokens": 16, "output_tokens": 16, "runs": 1},
        "replications": 1,
        "common_noise": {"sigma": 0},
    }
    return Scenario.model_validate(tree | changes)


def of(found: tuple[Crossover, ...], what: str, judged: str = "decode") -> Crossover:
    return next(one for one in found if (one.of, one.judged) == (what, judged))


def test_the_latency_at_which_it_turns_is_that_of_the_closed_form() -> None:
    """Reading saved by one rank, `(1 - 1/N) read`, against the rounds that tensor has beyond the pipeline:
    2 collectives a layer of 2 (N - 1) rounds, and a notice, where a pipeline waits for 2 (N - 1) delays.
    """
    tensor = pair()
    found = of(crossovers(tensor, other_strategy(tensor)), "latency")
    expected_s = LAYERS * LAYER_S / 2 / (2 * LAYERS * 2 + 1 - 2)
    assert (found.low, found.high) == ("pair", "pair_pipeline")
    assert found.turns_at == pytest.approx(expected_s, rel=0.03)
    assert "pair is faster below a one-way delay between ranks of" in found.sentence


def test_compare_says_where_the_answer_turns_for_two_strategies_alone() -> None:
    tensor = pair()
    answer = compare([tensor, other_strategy(tensor)])
    assert {(one.of, one.judged) for one in answer.crossovers} >= {("batch", "decode"), ("context", "decode")}
    assert of(answer.crossovers, "ranks").turns_at is None
    assert any("at every number of ranks looked at (2)" in sentence for sentence in answer.verdicts)
    near = tensor.model_copy(update={"name": "near"})
    assert compare([tensor, near]).crossovers == ()


def test_the_other_strategy_of_a_tensor_engine_alone_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no other strategy"):
        other_strategy(pair(engine={"name": "dllama"}))
