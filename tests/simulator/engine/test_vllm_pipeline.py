"""vLLM's pipeline against its closed form, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import predict
from simulator.engine.vllm.pipeline import TENSORS, TOKEN_BYTES
from simulator.files import loads
from simulator.runtime.cost import decode_s, head_s
from simulator.scenario import Scenario
from tests.helpers import SMALL, by_recursion, device, job, link

DELAY_S, BYTES_PER_S = 0.001, 1e8
SPARKS = """
name: sparks
model: {name: Llama-3.3-70B, quantisation: fp8}
devices:
  one: {kind: NVIDIA DGX Spark, link: {kind: roce_200g}}
  two: {kind: NVIDIA DGX Spark, link: {kind: roce_200g}}
engine: {name: vllm, sharding: pipeline}
workload: {prompt_tokens: 100, output_tokens: 16, runs: 1}
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_token_goes_once_round(ranks: int) -> None:
    """All layers, one head, N - 1 states of two tensors each, one token back: N D and the bytes of each."""
    side = link(DELAY_S / 2, rate=BYTES_PER_S)
    a_job = job([device(f"d{i}", link=side) for i in range(ranks)], "vllm")
    gaps_s = np.diff(by_recursion(a_job, 1)[0, :, 0])[1:]
    one = device("d0")
    compute_s = float(decode_s(one, SMALL.stretch(0, SMALL.layers), 0.0)) + head_s(one, SMALL)
    sent = (ranks - 1) * TENSORS * SMALL.activation_bytes + TOKEN_BYTES if ranks > 1 else 0.0
    delays_s = ranks * DELAY_S if ranks > 1 else 0.0
    assert gaps_s == pytest.approx(compute_s + delays_s + sent / BYTES_PER_S, rel=1e-9)


def test_the_head_is_on_the_last_rank_alone() -> None:
    """A host that is slow on another rank costs nothing: sampling is where the head is."""
    devices = [device(f"d{i}") for i in range(3)]
    slow = devices[0].speed.model_copy(update={"stage_overhead": 0.001})

    def gap_s(at: int | None) -> float:
        chosen = [device(f"d{i}", speed=slow) if i == at else one for i, one in enumerate(devices)]
        return float(np.diff(by_recursion(job(chosen, "vllm"), 1)[0, :, 0])[1:].mean())

    assert gap_s(2) == pytest.approx(gap_s(None) + 0.001)
    assert gap_s(0) == pytest.approx(gap_s(None))


def test_several_chats_are_doubted_and_one_is_not() -> None:
    one = loads(SPARKS, Scenario)
    two = one.model_copy(update={"workload": one.workload.model_copy(update={"concurrency": 2})})
    assert not any("one batch for each stage" in doubt for doubt in predict(one).warnings)
    assert any("one batch for each stage" in doubt for doubt in predict(two).warnings)
