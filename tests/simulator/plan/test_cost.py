"""cost: the closed forms, and what the report says of real scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim import plan_cmd
from simulator.errors import CatalogError
from simulator.files import loads
from simulator.plan.buy.cost import Usage, break_even_per_day, cluster_cost, fixed_per_day, marginal_per_token
from simulator.plan.buy.cost_report import markdown, verdict
from simulator.plan.buy.power import device_power, power
from simulator.plan.buy.prices import PriceBook, PricesFile
from simulator.run.predict import predict
from simulator.scenario import Scenario

MACS = """
name: macs
model: {name: Llama-3.3-70B, quantisation: 4bit}
engine: exo
access_points: {home: {}}
devices:
  mini: {kind: Mac mini M4 Pro, memory: 64 GB, link: {kind: ethernet_1g}}
  small: {kind: Mac mini M4, memory: 16 GB, link: {kind: ethernet_1g}}
workload: {prompt_tokens: 64, output_tokens: 32, runs: 1}
replications: 40
"""
money = st.floats(1e-3, 1e4)


def macs() -> Scenario:
    return loads(MACS, Scenario)


def test_depreciation_and_idle_watts_by_hand() -> None:
    """1461 EUR over 4 years of 365.25 days is 1 EUR a day; 1000 W for 10 h at 0.30 EUR/kWh are 3 EUR."""
    usage = Usage(hours_per_day=10, years=4)
    assert fixed_per_day(1461, 0, 0.3 / 3.6e6, usage) == pytest.approx(1)
    assert fixed_per_day(0, 1000, 0.3 / 3.6e6, usage) == pytest.approx(3)


def test_a_token_costs_the_work_alone() -> None:
    """100 W above idle for 0.5 s at 0.36 EUR/kWh are 5e-6 EUR."""
    assert marginal_per_token(110, 10, 0.36 / 3.6e6, np.array([0.5]))[0] == pytest.approx(5e-6)


@given(money, money, money)
def test_at_the_break_even_both_cost_the_same(fixed: float, marginal: float, more: float) -> None:
    tokens = break_even_per_day(fixed, np.array([marginal]), marginal + more, np.array([1e30]))[0]
    assert fixed + marginal * tokens == pytest.approx((marginal + more) * tokens, rel=1e-6)


@given(money, money, st.floats(0, 1))
def test_there_is_none_where_electricity_alone_costs_more(fixed: float, marginal: float, part: float) -> None:
    assert np.isinf(break_even_per_day(fixed, np.array([marginal]), marginal * part, np.array([1e30]))[0])


def test_there_is_none_beyond_what_a_day_holds() -> None:
    assert break_even_per_day(1.0, np.array([0.0]), 1e-3, np.array([1001.0]))[0] == pytest.approx(1000)
    assert np.isinf(break_even_per_day(1.0, np.array([0.0]), 1e-3, np.array([999.0]))[0])


def test_only_the_busy_device_draws_its_load() -> None:
    found = power(predict(macs(), with_what_ifs=False))
    assert sum(device.busy_share for device in found.devices) <= 1.0 + 1e-6
    assert found.idle_w < found.busy_w < max(device.load_w for device in found.devices) + found.idle_w
    mini = next(device for device in found.devices if device.device == "small")
    assert (mini.idle_w, mini.load_w, mini.label) == (6, 30, "catalogue")  # the catalogue's Mac mini M4


def test_watts_of_unknown_machines_are_assumed_and_the_users_come_first() -> None:
    assert device_power("x", "unknown", None, 0.5).label == "assumed"
    own = loads("watts: {x: {idle: 1 W, load: 2 W}}", PricesFile)
    assert device_power("x", "unknown", None, 0.5, own).load_w == 2


def test_cost_per_million_is_the_sum_of_its_parts() -> None:
    """With certain figures (medians): fixed / tokens per day + electricity."""
    cost = cluster_cost(macs(), PriceBook("EUR"), Usage(hours_per_day=24, years=3))
    middle = cost.fixed_per_day / cost.most_per_day.median * 1e6 + cost.electricity_per_million.median
    assert cost.per_million.median == pytest.approx(middle, rel=0.01)
    assert cost.per_million.p05 < cost.per_million.median < cost.per_million.p95


def test_never_is_said_with_its_reason_and_owned_machines_are_cheaper() -> None:
    book = PriceBook("EUR")
    bought, owned = cluster_cost(macs(), book), cluster_cost(macs(), book, own=["mini", "small"])
    assert owned.price == 0 < bought.price
    assert owned.per_million.median < bought.per_million.median
    rows = {row.provider: row for row in bought.cloud}
    assert rows["Groq"].as_of == "2026-09"
    assert all(row.break_even_per_day is not None or row.why_never for row in bought.cloud)
    assert [row.per_million for row in bought.cloud] == sorted(row.per_million for row in bought.cloud)
    assert "never" in verdict(bought)


def test_a_dear_api_is_beaten_from_some_number_of_tokens_on() -> None:
    own = loads("cloud: {Dear: {input: 10 EUR, output: 100 EUR}}\nelectricity: 0.30 EUR/kWh", PricesFile)
    cost = cluster_cost(macs(), PriceBook("EUR", own), Usage(hours_per_day=24))
    row = next(row for row in cost.cloud if row.provider == "Dear")
    assert row.per_million == pytest.approx(100 + 10 * 64 / 32)
    assert row.break_even_per_day is not None
    saved = row.per_million / 1e6 - cost.electricity_per_million.median / 1e6
    assert row.break_even_per_day == pytest.approx(cost.fixed_per_day / saved, rel=0.02)
    assert "tokens a day against Dear" in verdict(cost)


def test_a_device_without_a_price_says_the_way_out() -> None:
    scenario = macs().replace(
        devices={"mini": {"kind": "Mac mini M4 Pro", "memory": "64 GB"}, "laptop": {"kind": "Linux laptop"}}
    )
    with pytest.raises(CatalogError, match="--own laptop"):
        cluster_cost(scenario, PriceBook("EUR"))


def test_unknown_regions_are_refused_with_all_that_are_known() -> None:
    with pytest.raises(CatalogError, match="Germany"):
        PriceBook("EUR").electricity("Germnay")
    assert PriceBook("EUR").electricity("0.36 EUR/kWh").amount == pytest.approx(1e-7)


def test_the_section_holds_every_api_and_every_doubt() -> None:
    cost = cluster_cost(macs(), PriceBook("EUR"))
    text = markdown([cost])
    assert text.startswith("## When this beats a cloud API\n")
    assert all(f"| {row.provider} |" in text for row in cost.cloud)
    assert all(doubt in text for doubt in cost.doubts)


@pytest.mark.parametrize("form", ["--json", "--markdown", None])
def test_the_command(form: str | None, tmp_path: Path) -> None:
    path = tmp_path / "macs.yaml"
    path.write_text(MACS, encoding="utf-8")
    app = typer.Typer()
    app.command("cost")(plan_cmd.cost)
    done = CliRunner().invoke(
        app, [str(path), "--hours-per-day", "24", "--electricity", "Germany", *([form] if form else [])]
    )
    assert done.exit_code == 0, done.output
    if form == "--json":
        assert json.loads(done.stdout)[0]["usage"]["hours_per_day"] == 24
    else:
        assert "never" in done.stdout
