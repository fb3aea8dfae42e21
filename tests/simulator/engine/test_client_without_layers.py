"""A llama.cpp client stays in the path of each token, however many layers it has (ggml-org/llama.cpp issue 22850)."""

from __future__ import annotations

import pytest

from simulator.files import loads
from simulator.prepare import prepare
from simulator.run.evaluate import scenario_rates
from simulator.scenario import Scenario

TEXT = """
name: remote
model: {name: MODEL, quantisation: Q4_0}
engine: llama-rpc
placement: PLACEMENT
devices:
  client: {kind: Ryzen 9 9950X CPU desktop, link: {kind: ethernet_2_5g}}
  gpu: {kind: RTX 5070 Ti desktop, link: {kind: ethernet_2_5g}}
workload: {prompt_tokens: 64, output_tokens: 32, runs: 1}
replications: 20
"""


def remote(placement: str = "{}", model: str = "Llama-2-7B") -> Scenario:
    return loads(TEXT.replace("PLACEMENT", placement).replace("MODEL", model), Scenario)


@pytest.mark.parametrize(
    "placement", ["{}", "{layers: {client: 0, gpu: 32}}", "{roles: {client: embedding}}"]
)
def test_a_remote_card_is_never_as_fast_as_a_local_one(placement: str) -> None:
    job = prepare(remote(placement)).job
    assert job.placement.layer_counts == {"client": 0, "gpu": 32}
    text = TEXT.replace("PLACEMENT", "{}").replace("MODEL", "Llama-2-7B")
    local = loads("\n".join(line for line in text.splitlines() if "  client:" not in line), Scenario)
    assert (scenario_rates(remote(placement)) < 0.95 * scenario_rates(local)).all()


def test_who_asks_for_layers_on_the_processor_gets_them() -> None:
    assert prepare(remote("speed")).job.placement.layer_counts["client"] > 0


def test_the_client_helps_where_the_others_are_too_small() -> None:
    """26 GB of a 70B at 2 bits and more do not fit on a card of 16."""
    assert prepare(remote(model="Llama-3.3-70B")).job.placement.layer_counts["client"] > 0
