"""Errors are shared where their cause is: by platform, kind of device, model, home and engine."""

from __future__ import annotations

from dataclasses import replace
from math import hypot

import numpy as np
import pytest

from simulator.catalog import error_parts, tails
from simulator.cluster.cluster import AccessPoint
from simulator.laws.factors import WorldFactor, in_words, parted
from simulator.laws.law import Floats
from simulator.prepare import prepare
from simulator.result.summary import tokens_per_s
from simulator.run.compare import compare
from simulator.run.evaluate import token_times_s
from simulator.runtime.draws import Draws
from simulator.runtime.job import Job
from simulator.scenario import PosteriorSpec, Scenario
from simulator.spec import SharedSpec
from tests.helpers import SPEED, device, job, link

MODEL = {"name": "Qwen2.5-14B"}
WORLDS = 4000


def of(name: str, engine: str = "exo", wires: object = (), **devices: object) -> Scenario:
    """A scenario of catalogue devices: a kind, or a mapping."""
    told = {who: {"kind": what} if isinstance(what, str) else what for who, what in devices.items()}
    return Scenario.model_validate(
        {"name": name, "model": MODEL, "engine": engine, "devices": told, "wires": wires}
    )


def log_speeds(scenario: Scenario) -> Floats:
    """Logarithms of all devices' decode factors, shape (devices, worlds)."""
    a_job = prepare(scenario).job
    draws = Draws(replace(a_job, workload=a_job.workload.model_copy(update={"runs": 1})), 0, WORLDS)
    return np.log([draws.speed_factor(one, "decode") for one in a_job.cluster.devices])


def sharing(own: float, shared: float, count: int) -> Job:
    """Equal devices whose errors have an own part and one that all have."""
    speed = SPEED.model_copy(
        update={
            "decode_spread": hypot(own, shared),
            "decode_shared": (SharedSpec(by="every pi", spread=shared),),
        }
    )
    return job([device(f"d{i}", speed=speed) for i in range(count)], runs=1)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_the_variance_of_a_sum_has_its_closed_form(count: int) -> None:
    """Mean of n log factors: `shared**2 + own**2 / n`."""
    a_job = sharing(0.3, 0.4, count)
    draws = Draws(a_job, 0, WORLDS)
    mean = np.mean(np.log([draws.speed_factor(one, "decode") for one in a_job.ring]), axis=0)
    # standard error of a variance: itself times sqrt(2 / n)
    assert np.var(mean) == pytest.approx(0.4**2 + 0.3**2 / count, rel=4 * (2 / WORLDS) ** 0.5)


def test_ten_equal_pis_are_as_uncertain_as_one() -> None:
    kinds = {f"pi{i}": {"kind": "Raspberry Pi 5", "memory": "8 GB"} for i in range(10)}
    small = {"model": {"name": "Llama-3.2-1B"}, "engine": "llama-rpc"}
    one, ten = (
        Scenario.model_validate({"name": "pis", "devices": dict(list(kinds.items())[:n]), **small})
        for n in (1, 10)
    )
    assert np.std(log_speeds(ten).mean(axis=0)) > 0.95 * np.std(log_speeds(one)[0])


def test_kinds_share_more_than_platforms_and_platforms_more_than_nothing() -> None:
    mac, twin, other, pc = log_speeds(
        of("mixed", a="Mac mini M4", b="Mac mini M4", c="MacBook Pro M3 Max", d="RTX 4090")
    )
    alike, platform, foreign = (np.corrcoef(mac, x)[0, 1] for x in (twin, other, pc))
    assert alike > 0.98
    assert 0.3 < platform < 0.8
    assert abs(foreign) < 4 / WORLDS**0.5


def test_one_large_mac_beats_two_small_ones_in_nearly_every_world() -> None:
    one = of("one32", a={"kind": "Mac mini M4", "memory": "32 GB"})
    small = {"kind": "Mac mini M4", "memory": "16 GB"}
    two = of("two16", wires=[{"between": ["a", "b"], "kind": "thunderbolt4"}], a=small, b=small)
    row = next(row for row in compare([one, two]).ranking if row.scenario == "two16")
    assert row.probability_better < 0.1


def test_scenarios_draw_the_same_for_a_kind_whatever_its_devices_are_called() -> None:
    first, second = log_speeds(of("x", a="Mac mini M4")), log_speeds(of("y", b="Mac mini M4"))
    assert np.corrcoef(first[0], second[0])[0, 1] > 0.98
    np.testing.assert_array_equal(first, log_speeds(of("x", a="Mac mini M4")))


def test_a_home_has_one_luck_for_all_its_radios() -> None:
    """Two radios on one access point share the home's factor, one on another has its own, a cable none."""
    wifi = {"delay_log_sd": 0.5, "delay_home_log_sd": 0.4}
    points = [AccessPoint("home", 0.0), AccessPoint("attic", 0.0)]
    near, far = (replace(link(0.002, shared=True, **wifi), via=via) for via in ("home", "attic"))
    a_job = job([device(f"d{i}", link=one) for i, one in enumerate([near, near, far])], points=points, runs=1)
    draws = Draws(a_job, 0, WORLDS)
    legs = [a_job.cluster.path(f"d{i}", "d0" if i else "d1").legs[0] for i in range(3)]
    a, b, c = (np.log(draws.product(leg.scales)) for leg in legs)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(0.4**2 / 0.5**2, abs=4 / WORLDS**0.5)
    assert abs(np.corrcoef(a, c)[0, 1]) < 4 / WORLDS**0.5
    assert np.std(a) == pytest.approx(0.5, rel=0.05)


def test_a_measured_delay_is_not_the_homes() -> None:
    link = {"kind": "wifi6", "rtt": "3 ms", "label": "measured"}
    told = of("told", a={"kind": "Mac mini M4", "link": link}, b="Mac mini M4")
    own, catalogue = (one.link for one in prepare(told).job.cluster.devices)
    assert own.delay_home_log_sd == 0
    assert catalogue.rate_home_log_sd > 0 or not catalogue.shared


def test_a_run_has_one_luck_with_its_prompts_on_whatever_platform() -> None:
    """Two platforms share nothing of decoding, and of prompts what reports scatter by beyond the catalogue; the
    variance of Student's t is df / (df - 2) of its scale's square.
    """
    a_job = prepare(of("two", mac="MacBook Air M4", card="RTX 3090")).job
    draws = Draws(replace(a_job, workload=a_job.workload.model_copy(update={"runs": 1})), 0, WORLDS)
    shared = error_parts("prefill").field_log_sd * (tails() / (tails() - 2)) ** 0.5
    assert shared > 0
    for part, wanted in (("prefill", shared**2), ("decode", 0.0)):
        logs = np.log([draws.speed_factor(one, part) for one in a_job.cluster.devices])
        assert np.cov(logs)[0, 1] == pytest.approx(wanted, abs=0.01)


def test_a_calibrated_device_keeps_its_own_draw() -> None:
    """A posterior that names the device is all of its error, though others of its kind share theirs."""
    a_job = sharing(0.3, 0.4, 2)
    sure = a_job.ring[0].speed.model_copy(update={"decode_spread": 0.0})
    devices = (replace(a_job.ring[0], speed=sure), a_job.ring[1])
    posterior = PosteriorSpec(
        names=("world/d0/decode", "world/every pi/decode"), draws=((1.5, 9.0), (0.5, 9.0))
    )
    known = replace(a_job, cluster=replace(a_job.cluster, devices=devices), posterior=posterior)
    assert Draws(known, 0, 2).speed_factor(devices[0], "decode").tolist() == [1.5, 0.5]
    assert Draws(known, 0, 2).speed_factor(devices[1], "decode").min() > 2


def test_parts_never_exceed_their_total() -> None:
    parts = parted("own", 0.1, [WorldFactor("every pi", 0.3), WorldFactor("every one", 0.4)])
    assert sum(part.log_sd**2 for part in parts) == pytest.approx(0.1**2)
    assert [part.log_sd for part in parts] == pytest.approx([0, 0.06, 0.08])
    assert parted("own", 0.0, [WorldFactor("every pi", 0.3)]) == (WorldFactor("own", 0.0),)


def test_shared_factors_are_told_in_words() -> None:
    assert in_words("world/every Apple M4 10c/decode", "exo") == "decode time on every Apple M4 10c"
    assert in_words("world/every radio on home/delay", "exo") == "delay of every radio on home"


def test_equal_devices_do_not_average_their_error_away_in_tokens_per_s() -> None:
    """The issue's own figure: p95/p05 stays what one device has."""
    spreads = []
    for count in (1, 8):
        times = token_times_s(sharing(0.02, 0.3, count), 400, "recursion")
        rates = tokens_per_s(times).mean(axis=0)
        spreads.append(np.std(np.log(rates)))
    assert spreads[1] == pytest.approx(spreads[0], rel=0.05)
