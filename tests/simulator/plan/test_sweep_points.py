"""Axes and points: what is read from `--over`, and what a wrong path is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.complete import complete
from simulator.errors import ScenarioError
from simulator.files import load
from simulator.plan.sweep.paths import check_axis, scenario_at
from simulator.plan.sweep.points import Point, grid, hypercube, number, parse_axis
from simulator.scenario import Scenario

FIVE = load(Path(__file__).parents[3] / "scenarios" / "five_devices.yaml", Scenario)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("workload.concurrency=1,2,4", (1, 2, 4)),
        ("workload.concurrency=1..4", (1, 2, 3, 4)),
        ("workload.concurrency=1..100:3", (1, 50, 100)),
        ("a=1ms..5ms:3", ("1.0 ms", "3.0 ms", "5.0 ms")),
        ("a=100us..10 ms:log:3", ("0.1 ms", "1.0 ms", "10.0 ms")),
        ("a=1..3ms:3", ("1.0 ms", "2.0 ms", "3.0 ms")),
        ("a=0..0.5:3", (0.0, 0.25, 0.5)),
        ("a=wifi5,wifi6", ("wifi5", "wifi6")),
        ("a=true,false", (True, False)),
        ("a={law: constant, value: 1 ms},2 ms", ("{law: constant, value: 1 ms}", "2 ms")),
        ("a=20 /h..60 /h:2", ("20.0 /h", "60.0 /h")),
    ],
)
def test_axes(text: str, values: tuple[object, ...]) -> None:
    assert parse_axis(text).values == values


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "=1",
        "a=",
        "a=1..",
        "a=..1",
        "a=5ms..1ms",
        "a=1ms..1GB",
        "a=1..2:many",
        "a=1,1",
        "a=0..1:log",
        "a=1..2:1",
        "a=1..2:3:4",
        "a=x..y",
        "a=1..2:99999999",
    ],
)
def test_axes_that_are_none(text: str) -> None:
    with pytest.raises(ScenarioError, match="^--over"):
        parse_axis(text)


def test_numbers_in_base_units() -> None:
    wanted = {
        "5 ms": 0.005,
        "1 GB/s": 1e9,
        3: 3.0,
        "wifi6": None,
        "50 %": 0.5,
        "2 GB": 2e9,
        "1.2.3": None,
        True: 1.0,
        "20 /h": 20.0,
    }
    assert {value: number(value) for value in wanted} == pytest.approx(wanted)


def test_a_grid_has_every_combination_and_the_last_axis_runs_fastest() -> None:
    points = grid([parse_axis("a=1,2"), parse_axis("b=x,y,z")])
    assert [tuple(value for _, value in point.values) for point in points] == [
        (1, "x"),
        (1, "y"),
        (1, "z"),
        (2, "x"),
        (2, "y"),
        (2, "z"),
    ]
    with pytest.raises(ScenarioError, match="are more than"):
        grid([parse_axis("a=1..10000:10000"), parse_axis("b=1..1000:1000")])


@given(count=st.integers(1, 60), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_a_hypercube_uses_each_cell_of_each_axis_once(count: int, seed: int) -> None:
    axes = [
        parse_axis("a=0.0..1.0"),
        parse_axis("b=1ms..100ms:log"),
        parse_axis("c=p,q"),
        parse_axis("d=1..10"),
    ]
    points = hypercube(axes, count, seed)
    assert points == hypercube(axes, count, seed)
    columns = [[point.values[at][1] for point in points] for at in range(4)]
    cells = np.sort([number(value) for value in columns[0]]) * count
    # written with six digits, so a value may be a hair beyond its cell
    assert np.all((cells >= np.arange(count) - 1e-3) & (cells <= np.arange(count) + 1 + 1e-3))
    logs = np.array([np.log10(number(value) or 0) for value in columns[1]])
    assert np.all((logs >= -3 - 1e-6) & (logs <= -1 + 1e-6))
    assert abs(columns[2].count("p") - columns[2].count("q")) <= 1
    assert set(columns[3]) <= set(range(1, 11))
    if count >= 40:
        assert set(columns[3]) == set(range(1, 11))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices.old_phon.link.rtt=1ms,2ms", "did you mean 'old_phone'"),
        ("devices.old_phone.link.rt=1ms,2ms", "did you mean 'rtt'"),
        ("devces.old_phone.link.rtt=1ms,2ms", "did you mean 'devices'"),
        ("acces_points.home.background=0,1", "did you mean 'access_points'"),
        ("workload.prompt_tokens.x=1,2", "there is no 'x'"),
        ("wires.0.rate=1 GB/s,2 GB/s", "there is no '0'"),
        ("workload.concurrency=1,-2", "-2"),
        ("devices.pixel.link.rtt=1ms,2GB", "2GB"),
        ("workload.arrivals.rte=1 /h,2 /h", "did you mean 'rate'"),
    ],
)
def test_paths_that_lead_nowhere_and_values_that_are_none(text: str, words: str) -> None:
    faults = check_axis(FIVE, parse_axis(text))
    assert len(faults) == 1
    assert words in str(faults[0])


@pytest.mark.parametrize(
    "text",
    [
        "devices.old_phone.link.rtt=1ms..60ms",
        "workload.concurrency=1,2",
        "devices.pixel.speed.decode_bandwidth=1 GB/s,9 GB/s",
        "devices.pixel.noise.sigma=0..0.5",
        "engine.step_overhead=1ms,2ms",
        "engine=exo,exo-legacy",
        "model.quantisation=3bit,4bit",
        "access_points.home.background=0%..50%",
        "placement.rule=speed,even",
        "workload.arrivals.rate=1 /h,2 /h",
        "seed=1..4",
        "devices.pixel.link.delay={law: constant, value: 1 ms},{law: constant, value: 2 ms}",
        "devices.laptop.link.kind=wifi5,ethernet_1g",
    ],
)
def test_paths_that_lead_to_a_value(text: str) -> None:
    axis = parse_axis(text)
    assert check_axis(FIVE, axis) == []
    first, last = (
        scenario_at(FIVE, Point(((axis.path, value),))) for value in (axis.values[0], axis.values[-1])
    )
    assert first != last
    assert list(first.devices) == list(FIVE.devices), "the order of joining is kept"
    assert complete(first) != complete(last)


def test_a_value_that_something_else_overrides_is_refused() -> None:
    axis = parse_axis("devices.pixel.link.rtt=1ms,20ms")
    assert check_axis(FIVE, axis) == []
    faults = check_axis(complete(FIVE), axis)
    assert len(faults) == 1
    assert "changes nothing" in faults[0].reason


def test_names_with_dots_are_found() -> None:
    plain = FIVE.model_dump(mode="json", exclude_unset=True)
    plain["devices"]["pixel.8"] = plain["devices"].pop("pixel")
    scenario = Scenario.model_validate(plain)
    axis = parse_axis("devices.pixel.8.link.rtt=1ms,2ms")
    assert check_axis(scenario, axis) == []
    assert scenario_at(scenario, Point(((axis.path, "2ms"),))).devices["pixel.8"].link.rtt == 0.002
