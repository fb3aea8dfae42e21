"""Legacy EXO off Macs ran 16-bit models: what nobody asked for otherwise is predicted so, and said."""

from __future__ import annotations

import pytest

from simulator.files import loads
from simulator.prepare import prepare
from simulator.scenario import Scenario

TEXT = """
name: old
model: MODEL
engine: ENGINE
devices:
  one: {kind: KIND}
"""


def asked(kind: str, model: str = "Llama-3.2-1B", engine: str = "exo-legacy") -> Scenario:
    return loads(TEXT.replace("KIND", kind).replace("MODEL", model).replace("ENGINE", engine), Scenario)


@pytest.mark.parametrize(
    ("kind", "engine", "bits"),
    [
        ("MacBook Air M1", "exo-legacy", "4bit"),
        ("RTX 3060 12GB desktop", "exo-legacy", "bf16"),
        ("RTX 3060 12GB desktop", "exo", "4bit"),
        ("RTX 3060 12GB desktop", "llama-rpc", "Q4_K_M"),
    ],
)
def test_bits_are_those_that_the_engine_ran(kind: str, engine: str, bits: str) -> None:
    assert prepare(asked(kind, engine=engine)).scenario.model.quantisation == bits


def test_an_8b_does_not_fit_on_12_gb_of_legacy_exo() -> None:
    """As its users found (exo-explore/exo issue 658): 16 GB of weights."""
    from simulator.errors import PlacementError

    with pytest.raises(PlacementError, match="GB"):
        prepare(asked("RTX 3060 12GB desktop", "Llama-3.1-8B"))


def test_four_bits_off_macs_are_doubted() -> None:
    found = prepare(asked("RTX 3060 12GB desktop", "{name: Llama-3.2-1B, quantisation: 4bit}"))
    assert any("ran 4bit models on Macs alone and 16-bit ones elsewhere" in text for text in found.warnings)
    mac = prepare(asked("MacBook Air M1", "{name: Llama-3.2-1B, quantisation: 4bit}"))
    assert not any("16-bit" in text for text in mac.warnings)


@pytest.mark.parametrize(("platform", "bits"), [("", "bf16"), ("platform: apple-metal, ", "4bit")])
def test_a_machine_that_nobody_named_is_no_mac(platform: str, bits: str) -> None:
    """It ran four bits, as if no platform were one that has them."""
    speed = "speed: {decode_bandwidth: 100 GB/s, prefill_flops: 5 TFLOPS}"
    text = TEXT.replace("{kind: KIND}", f"{{{platform}memory: 16 GB, link: {{kind: ethernet_1g}}, {speed}}}")
    made = loads(text.replace("MODEL", "Llama-3.2-1B").replace("ENGINE", "exo-legacy"), Scenario)
    assert prepare(made).scenario.model.quantisation == bits
