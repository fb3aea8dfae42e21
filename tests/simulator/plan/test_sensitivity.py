"""sensitivity: bars against the closed form, Sobol indices against theory, and what is recommended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from sim import sensitivity_cmd
from simulator.errors import ScenarioError
from simulator.files import loads
from simulator.plan.sweep.sensitivity import Z90, Factor, factors, quiet, respond, sensitivity
from simulator.prepare import prepare
from simulator.scenario import PosteriorSpec, Scenario

PAIR = """
name: pair
model: {name: toy, layers: 40, layer_bytes: 100 MB, hidden: 1024}
engine: {name: exo, step_overhead: 0 s, hop_overhead: 0 s, overhead_spread: 0, memory_overhead: 0 GB}
placement: {layers: {a: 30, b: 10}}
access_points: {home: {}}
common_noise: {sigma: 0}
devices:
  a:
    memory: 8 GB
    speed: {decode_bandwidth: 100 GB/s, prefill_flops: 100 TFLOPS, prefill_spread: 0, decode_spread: SA}
    link: {delay: {law: constant, value: 1 us}, rate: 100 GB/s, delay_spread: 0, rate_spread: 0}
  b:
    memory: 8 GB
    speed: {decode_bandwidth: 100 GB/s, prefill_flops: 100 TFLOPS, prefill_spread: 0, decode_spread: SB}
    link: {delay: {law: constant, value: 1 us}, rate: 100 GB/s, delay_spread: 0, rate_spread: 0}
workload: {prompt_tokens: 8, output_tokens: 16, runs: 1}
"""
A_S, B_S, HOPS_S = 0.030, 0.010, 4e-6  # 30 and 10 layers of 1 ms; out and back, 1 us on each side


def pair(a: float = 0.05, b: float = 0.05) -> Scenario:
    return loads(PAIR.replace("SA", str(a)).replace("SB", str(b)), Scenario)


def test_a_factor_knows_its_interval() -> None:
    factor = Factor("x", 0.3)
    assert factor.interval == pytest.approx((np.exp(-0.3 * Z90), np.exp(0.3 * Z90)))
    assert factor.ppf(np.array([0.05, 0.5, 0.95])) == pytest.approx(
        [factor.interval[0], 1.0, factor.interval[1]]
    )
    drawn = Factor("x", 0.0, tuple(np.linspace(1, 2, 101)))
    assert drawn.interval == pytest.approx((1.05, 1.95))


def test_inputs_are_what_the_engine_draws_and_no_more() -> None:
    """Neither prompts nor links are uncertain in this scenario."""
    assert {factor.name for factor in factors(prepare(pair()).job)} == {"world/a/decode", "world/b/decode"}
    assert {factor.name for factor in factors(prepare(pair(b=0.0)).job)} == {"world/a/decode"}


def test_bars_are_the_closed_form() -> None:
    """tokens/s = 1 / (X_a 30 ms + X_b 10 ms + hops); each bar moves one X to its 5th and 95th percentile."""
    found = {row.input: row for row in sensitivity(pair(), points=64).influences}
    low, high = np.exp(-Z90 * 0.05), np.exp(Z90 * 0.05)
    row = found["world/a/decode"]
    assert row.at_p05 == pytest.approx(1 / (low * A_S + B_S + HOPS_S), rel=1e-4)
    assert row.at_p95 == pytest.approx(1 / (high * A_S + B_S + HOPS_S), rel=1e-4)
    assert found["world/b/decode"].if_twice_as_good == pytest.approx(
        (A_S + B_S) / (A_S + B_S / 2) - 1, rel=1e-3
    )


def test_sobol_indices_are_those_of_a_nearly_linear_sum() -> None:
    """With small spreads the variance splits as (30 s_a)^2 : (10 s_b)^2."""
    found = {row.input: row.total_order for row in sensitivity(pair(0.02, 0.04), points=1024).influences}
    parts = np.array([(30 * 0.02) ** 2, (10 * 0.04) ** 2])
    assert [found["world/a/decode"], found["world/b/decode"]] == pytest.approx(parts / parts.sum(), abs=0.03)


def test_what_to_measure_and_what_to_upgrade_may_differ() -> None:
    """b is the less sure, a the longer: measure b, upgrade a."""
    result = sensitivity(pair(0.01, 0.3), points=256)
    assert "decode time on b" in result.measure_next
    assert "decode time on a" in result.upgrade_next
    assert "+60%" in result.upgrade_next  # 40 ms become 25


def test_a_calibrations_draws_replace_the_spread() -> None:
    spec = PosteriorSpec(names=("world/a/decode",), draws=tuple((1 + i / 100,) for i in range(11)))
    job = replace(prepare(pair(b=0.0)).job, posterior=spec)
    (factor,) = factors(job)
    assert factor.interval == pytest.approx((1.005, 1.095))
    values = np.array([[1.0, 2.0]])
    rates = respond(job, ["world/a/decode"], values, "tokens_per_s")
    assert 1 / rates == pytest.approx([A_S + B_S + HOPS_S, 2 * A_S + B_S + HOPS_S], rel=1e-4)


def test_the_quiet_twin_gives_one_answer() -> None:
    scenario = loads((Path(__file__).parents[3] / "scenarios" / "four_devices.yaml").read_bytes(), Scenario)
    job = prepare(scenario).job
    rates = respond(job, ["world/engine/step"], np.ones((1, 5)), "tokens_per_s")
    names = [factor.name for factor in factors(job)]
    rates = respond(job, names, np.ones((len(names), 5)), "tokens_per_s")
    assert np.ptp(rates) == 0
    assert all(device.link.power_save is None for device in quiet(job).cluster.devices)


def test_the_first_token_depends_on_the_prompt() -> None:
    text = (
        PAIR.replace("prefill_spread: 0, decode_spread: SA", "prefill_spread: 0.3, decode_spread: 0")
        .replace("SB", "0")
        .replace("prompt_tokens: 8", "prompt_tokens: 4000")
    )
    result = sensitivity(loads(text, Scenario), "first_token_s", points=64)
    assert result.influences[0].input == "world/a/prefill"
    assert result.influences[0].at_p05 < result.base < result.influences[0].at_p95


def test_what_cannot_be_answered_is_said() -> None:
    with pytest.raises(ScenarioError, match="no input is uncertain"):
        sensitivity(pair(0.0, 0.0))
    with pytest.raises(ScenarioError, match="no power of 2"):
        sensitivity(pair(), points=100)


def test_the_same_scenario_gives_the_same_bytes() -> None:
    assert (
        sensitivity(pair(), points=64).model_dump_json() == sensitivity(pair(), points=64).model_dump_json()
    )


def test_the_command_draws_the_chart(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(PAIR.replace("SA", "0.1").replace("SB", "0.2"), encoding="utf-8")
    app = typer.Typer()
    app.command()(sensitivity_cmd.sensitivity)
    done = CliRunner().invoke(app, [str(path), "--points", "64", "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["influences"][0]["what"] == "decode time on a"
    svg = (tmp_path / "out" / "tornado.svg").read_text(encoding="utf-8")
    assert "decode time on a" in svg
    assert "measure next" in svg
    assert (tmp_path / "out" / "tornado.png").read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(
        app, [str(path), "--points", "64", "--no-charts", "--out", str(tmp_path / "bare")]
    )
    assert "upgrade next" in shown.stdout
    assert not (tmp_path / "bare" / "tornado.svg").exists()
