"""What a person says of a machine or a link is not exact, and how that is written."""

from __future__ import annotations

from math import hypot, log
from typing import Any

import pytest

from simulator import catalog
from simulator.complete import complete
from simulator.errors import ScenarioError
from simulator.files import loads
from simulator.laws.law import median_s
from simulator.prepare import prepare
from simulator.run.predict import predict
from simulator.scenario import LinkSpec, Scenario, SpeedSpec

SPEED = "speed: {decode_bandwidth: 50 GB/s, prefill_flops: 1 TFLOPS}"


def scenario(link: str = "kind: wifi6", device: str = "kind: MacBook Air M4", **changes: Any) -> Scenario:
    """Two equal devices with an 8B model."""
    one = f"{{{device}, memory: 16 GB, link: {{{link}}}}}"
    text = f"""
name: told
model: {{name: Llama-3.1-8B, quantisation: 4bit}}
engine: exo
devices: {{a: {one}, b: {one}}}
workload: {{prompt_tokens: 16, output_tokens: 32, runs: 1}}
"""
    return loads(text, Scenario).replace(**changes)


def link(text: str) -> LinkSpec:
    return complete(scenario(link=text)).devices["a"].link


def speed(text: str, device: str = "kind: MacBook Air M4") -> SpeedSpec:
    found = complete(scenario(device=f"{device}, {text}")).devices["a"].speed
    assert found is not None
    return found


def test_to_repeat_the_catalogue_makes_nothing_surer():
    plain = complete(scenario())
    law, rate = plain.devices["a"].link.delay, plain.devices["a"].link.rate
    assert law is not None
    said = scenario(link=f"kind: wifi6, rtt: {2e3 * median_s(law)} ms, rate: {rate} B/s")
    # not only as wide: the same worlds
    assert predict(said).summary.tokens_per_s == predict(scenario()).summary.tokens_per_s
    known = plain.devices["a"].speed
    assert known is not None
    figures = f"decode_bandwidth: {known.decode_bandwidth} B/s, prefill_flops: {known.prefill_flops} FLOPS"
    told = speed(f"speed: {{{figures}, layer_overhead: {known.layer_overhead} s}}")
    assert (told.decode_spread, told.prefill_spread) == (known.decode_spread, known.prefill_spread)
    assert (told.decode_shared, told.prefill_shared) == (known.decode_shared, known.prefill_shared)
    assert speed(SPEED.replace("GB/s", "GB/s ± 10 %")).decode_shared == ()


def test_plus_minus_is_one_standard_deviation():
    assert link("kind: wifi6, rtt: 3 ms ± 0.5 ms").delay_spread == pytest.approx(log(3.5 / 3))
    assert link("kind: wifi6, rtt: 3 ms +- 20 %").delay_spread == pytest.approx(log(1.2))
    assert link("kind: wifi6, rate: 100 Mbit/s ± 5MB/s").rate_spread == pytest.approx(log(1.4))
    assert speed(SPEED.replace("GB/s", "GB/s ± 10%")).decode_spread == pytest.approx(log(1.1))
    engine = {"name": "exo", "step_overhead": "4 ms ± 1 ms"}
    assert complete(scenario(engine=engine)).engine.overhead_spread == pytest.approx(log(1.25))


def test_a_measured_figure_is_surer_than_a_told_one():
    wifi = catalog.network("wifi6")
    told, measured = link("kind: wifi6, rtt: 3 ms"), link("kind: wifi6, rtt: 3 ms, label: measured")
    assert told.delay_spread == wifi.scale_log_sd
    assert measured.delay_spread == catalog.said_log_sd("delay", measured=True) < wifi.scale_log_sd
    # the label says nothing of what was not said
    assert measured.rate_spread == wifi.rate_log_sd
    assert speed(SPEED.replace("}", ", label: measured}")).decode_spread == 0.1


def test_a_device_or_link_of_no_known_kind_is_as_unsure_as_any_that_is_told():
    by_hand = "link: {delay: {law: constant, value: 1 ms}, rate: 1 Gbit/s}"
    text = f"""
name: by_hand
model: {{name: small, layers: 4, hidden: 64, layer_bytes: 1 MB}}
devices: {{a: {{memory: 8 GB, {SPEED}, {by_hand}}}}}
"""
    unknown = complete(loads(text, Scenario)).devices["a"]
    assert unknown.speed is not None
    assert unknown.speed.decode_spread == catalog.said_log_sd("decode", measured=False)
    assert unknown.link.delay_spread == catalog.said_log_sd("delay", measured=False)


def test_a_complete_scenario_stays_as_it_is():
    full = complete(scenario(link="kind: wifi6, rtt: 3 ms ± 20 %", device=f"kind: MacBook Air M4, {SPEED}"))
    assert complete(Scenario.model_validate(full.model_dump(mode="json"))) == full


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("rtt: 3 ms ± 2 GB", "'2 GB' is not a quantity"),
        ("rtt: 3 ms ± 0 ms", "must be more than 0"),
        ("rtt: 3 ms ± -1 ms", "must be more than 0"),
        ("rtt: 3 ms ± 900 %", "less than 6.4 times"),
        ("rtt: 3 ms ±", "'' is not a quantity"),
        ("rtt: 3 ms ± 1 ms ± 1 ms", "± is not understood here"),
        ("rtt: 0 ms ± 1 ms", "must be more than 0"),
        ("rtt: 3 ms ± 20 %, delay_spread: 0.5", "rtt carries ±, and delay_spread is given beside it"),
        ("vpn_delay: 3 ms ± 1 ms", "± is not understood here"),
    ],
)
def test_faults_of_plus_minus_say_line_and_rule(written: str, reason: str):
    with pytest.raises(ScenarioError, match="devices.a.link") as caught:
        scenario(link=f"kind: wifi6, {written}")
    assert reason in str(caught.value)


def test_both_overheads_of_an_engine_have_one_spread():
    with pytest.raises(ScenarioError, match="hop_overhead carries ±"):
        scenario(engine={"name": "exo", "step_overhead": "4 ms ± 50 %", "hop_overhead": "1 ms ± 10 %"})


def test_an_engine_that_stands_for_another_is_less_sure_and_says_so() -> None:
    """Variances of logarithms add up; all devices share it, the median stays."""
    base = {"name": "one", "model": "Llama-3.1-8B", "devices": {"spark": {"kind": "NVIDIA DGX Spark"}}}
    own, meant = (
        prepare(Scenario.model_validate(base | {"engine": {"name": "vllm", **more}}))
        for more in ({}, {"stands_for": "SGLang"})
    )
    plain, wide = (one.job.ring[0].speed for one in (own, meant))
    for part in ("decode", "prefill"):
        before, after = (getattr(one, f"{part}_spread") for one in (plain, wide))
        assert after == pytest.approx(hypot(before, catalog.stand_in_log_sd()))
        assert "every device of SGLang" in {one.by for one in getattr(wide, f"{part}_shared")}
    assert wide.decode_bandwidth == plain.decode_bandwidth
    assert any("SGLang is meant, and vllm stands for it" in doubt for doubt in meant.warnings)
    assert not any("stands for" in doubt for doubt in own.warnings)
