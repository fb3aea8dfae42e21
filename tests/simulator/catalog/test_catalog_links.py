"""Networks: the laws give back the percentiles that they were made from; engines and prices read whole."""

import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.catalog import (
    cloud_prices,
    electricity_prices,
    network,
    networks,
    platforms,
    power_save,
    vpn,
    vpns,
)
from simulator.catalog.tables import table
from simulator.engine.base import engine, engines
from simulator.errors import CatalogError
from simulator.laws import Law


def law_of(facts):
    return TypeAdapter(Law).validate_python(facts.delay)


def round_trip_percentiles(facts, crossings, percentiles):
    """By sampling: the sum of so many independent one-way delays of one side."""
    generator = np.random.default_rng(1)
    draws = sum(law_of(facts).quantile(generator.random(400_000)) for _ in range(crossings))
    return np.percentile(draws, percentiles)


@pytest.mark.parametrize(("name", "band"), [("wifi5_clean", "5 GHz"), ("wifi24", "2.4 GHz")])
def test_two_crossings_have_the_published_percentiles(name, band):
    published = [
        float(row["value"]) / 1e3
        for row in table("wifi_latency")
        if row["standard_or_band"].startswith(band) and row["metric"] == "RTT"
    ]
    assert len(published) == 3
    assert round_trip_percentiles(network(name), 2, [50, 95, 99]) == pytest.approx(published, rel=0.03)


def test_home_wifi_has_the_clean_shape_at_another_scale():
    clean, home = (
        round_trip_percentiles(network(name), 2, [50, 95, 99]) for name in ("wifi5_clean", "wifi5")
    )
    assert home / clean == pytest.approx([3.96] * 3, rel=0.02)
    assert home[0] == pytest.approx(3.56e-3, rel=0.02)


@pytest.mark.parametrize(
    ("name", "rtt_s"),
    [("ethernet_10g", 0.17e-3), ("thunderbolt5", 0.6e-3), ("ethernet_1g", 0.47e-3), ("usb4", 142e-6)],
)
def test_four_crossings_have_the_published_median(name, rtt_s):
    """ethernet_1g: geometric mean of 0.369 and 0.6 ms. The median of a sum lies a little above the sum of medians."""
    assert round_trip_percentiles(network(name), 4, [50])[0] == pytest.approx(rtt_s, rel=0.15)


def test_every_network_is_complete_and_its_law_reads():
    assert len(networks()) >= 25
    for facts in networks():
        assert 0 < law_of(facts).mean_s < 0.1
        assert 1e6 < facts.rate_bytes_per_s < 3e10
        assert 0 < facts.scale_log_sd < 1.5
        assert facts.source
        for name in (facts.name, *facts.aliases):
            assert network(name).name == facts.name


@pytest.mark.parametrize(
    ("typed", "name", "gbit_per_s"),
    [
        ("100 Mbit", "ethernet_100m", 0.0941),
        ("2.5GbE", "ethernet_2_5g", 2.35),
        ("ethernet 2.5G", "ethernet_2_5g", 2.35),
        ("5GbE", "ethernet_5g", 4.7),
        ("25GbE", "ethernet_25g", 23.5),
        ("40GbE", "ethernet_40g", 37.6),
        ("100GbE", "ethernet_100g", 55.7),
        ("200GbE", "ethernet_200g", 92.6),
        ("USB4", "usb4", 9.07),
        ("200GbE RoCE", "roce_200g", 189.85),
        ("Thunderbolt 5 RDMA", "thunderbolt5_rdma", 63.5),
    ],
)
def test_each_ethernet_has_its_own_name_and_rate(typed, name, gbit_per_s):
    assert network(typed).name == name
    assert network(typed).rate_bytes_per_s == pytest.approx(gbit_per_s * 1e9 / 8)


@pytest.mark.parametrize("typed", ["QSFP", "rdma", "USB-C", "50GbE", "2_50GbE", "RoCE", "ethernet_20g"])
def test_a_name_that_could_mean_several_networks_is_none_of_them(typed):
    with pytest.raises(CatalogError, match="no known network, (did you mean|no name comes near)"):
        network(typed)


def test_a_collective_over_thunderbolt_rdma_takes_what_was_measured():
    """21 to 38 us from GPU to GPU, which is two sides of one crossing."""
    assert 21e-6 < round_trip_percentiles(network("thunderbolt5_rdma"), 2, [50])[0] < 38e-6


def test_overlays_are_asked_for_by_vpn():
    assert {facts.name for facts in vpns()} == {"tailscale", "wireguard"}
    assert vpn("Tailscale").added_delay_s == pytest.approx(0.13e-3)
    with pytest.raises(CatalogError, match="vpn: tailscale"):
        network("tailscale")
    with pytest.raises(CatalogError, match="did you mean 'wifi6'"):
        network("wify6")


def test_only_phones_on_wifi_doze():
    assert power_save("ios-metal").awake_s == 0.1
    assert network("wifi6").power_save("android-cpu").awake_s == 0.2
    assert network("wifi6").power_save("apple-metal") is None
    assert network("usb").power_save("ios-metal") is None


def test_engines_name_real_platforms_and_the_way_out():
    known = {facts.name for facts in platforms()}
    for facts in (flow.facts for flow in engines().values()):
        assert set(facts.runs_on) | set(facts.does_not_run_on) == known
        assert not set(facts.runs_on) & set(facts.does_not_run_on)
    assert "apple-metal" in engine("exo").facts.runs_on
    assert "ios-metal" in engine("exo").facts.does_not_run_on
    assert "llama-rpc" in engine("exo").facts.note
    assert engine("exo-legacy").facts.hop_overhead_s == pytest.approx(1.25e-3)
    with pytest.raises(CatalogError, match="did you mean 'exo-legacy'"):
        engine("exo-legasy")


def test_prices_are_per_token_and_per_joule():
    groq = cloud_prices()[0]
    assert (groq.provider, groq.output_usd_per_token) == ("Groq", pytest.approx(0.79e-6))
    germany = next(price for price in electricity_prices() if price.region == "Germany")
    assert (germany.price_per_kwh, germany.currency) == (pytest.approx(0.384), "EUR")
    assert all(0 < price.input_usd_per_token <= price.output_usd_per_token for price in cloud_prices())
