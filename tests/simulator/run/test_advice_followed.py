"""Ten faults as people write them: each message's advice, written as it says, is taken at once."""

from __future__ import annotations

import pytest

from simulator.errors import SimulatorError
from simulator.files import loads
from simulator.prepare import prepare
from simulator.scenario import Scenario

MAC = "a: {kind: MacBook Air M4, memory: 16 GB}"
TEXT = "name: t\nmodel: MODEL\nengine: ENGINE\ndevices:\n  DEVICE\n"


def written(model: str = "Llama-3.2-3B", engine: str = "exo", device: str = MAC, more: str = "") -> str:
    return TEXT.replace("MODEL", model).replace("ENGINE", engine).replace("DEVICE", device) + more


# the fault, what the message says to write, and the scenario with that written
FAULTS = [
    (
        written(device="a: {kind: MacBook Air M4, memory: 16}"),
        "for example '16 GB'",
        written(device="a: {kind: MacBook Air M4, memory: 16 GB}"),
    ),
    (
        written(device="a: {kind: MacBook Air M4, link: {kind: wifi6, rate: 500}}"),
        "'500 GB/s' or '500 Mbit/s'",
        written(device="a: {kind: MacBook Air M4, link: {kind: wifi6, rate: 500 Mbit/s}}"),
    ),
    (
        written(device="a: {kind: MacBook Air M4, link: {kind: wifi6, rtt: 5}}"),
        "for example '5 ms'",
        written(device="a: {kind: MacBook Air M4, link: {kind: wifi6, rtt: 5 ms}}"),
    ),
    (
        written(device="a: {memory: 16 GB}"),
        "give link: {kind} and speed: {decode_bandwidth, prefill_flops}",
        written(
            device="a: {memory: 16 GB, link: {kind: wifi6}, speed: {decode_bandwidth: 100 GB/s, "
            "prefill_flops: 5 TFLOPS}}"
        ),
    ),
    (
        written(device="a: {kind: MacBok Air M5, memory: 16 GB}"),
        "did you mean 'MacBook Air M5'",
        written(device="a: {kind: MacBook Air M5, memory: 16 GB}"),
    ),
    (
        written(model="{name: Llama-3.2-3B, quantization: 4bit}"),
        "did you mean 'quantisation'",
        written(model="{name: Llama-3.2-3B, quantisation: 4bit}"),
    ),
    (
        written(model="{name: mine, layers: 32, layer_bytes: 200 MB}"),
        "give hidden",
        written(model="{name: mine, layers: 32, hidden: 4096, layer_bytes: 200 MB}"),
    ),
    (
        written(model="{name: mine, layers: 32, layer_bytes: 200 MB}"),
        "or only the name of a catalogue model",
        written(),
    ),
    (
        written(more="placement: {layers: {a: 27, c: 1}}\n"),
        "devices are a",
        written(more="placement: {layers: {a: 28}}\n"),
    ),
    (written(engine="exo-legaci"), "did you mean 'exo-legacy'", written(engine="exo-legacy")),
]


@pytest.mark.parametrize(("fault", "advice", "followed"), FAULTS, ids=[advice for _, advice, _ in FAULTS])
def test_what_the_message_says_to_write_is_taken(fault: str, advice: str, followed: str) -> None:
    with pytest.raises(SimulatorError) as refused:
        prepare(loads(fault, Scenario))
    assert advice in str(refused.value)
    assert prepare(loads(followed, Scenario)).job.shards
