"""Measured links as links of a scenario: three agents with imposed round trips, and made ones whose truth is known."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from calibrate.applied import apply
from calibrate.calibration import calibrate, load_calibration, save_calibration
from calibrate.links import MeasuredLinks, is_links, measured_links, with_links
from sim.main import app
from simulator.errors import CalibrationError, MeasurementError
from simulator.files import load
from simulator.laws.law import median_s, table
from simulator.prepare import prepare
from simulator.result.measurement import DeviceProvenance, MeasurementWriter, Provenance, read_measurement
from simulator.scenario import Scenario

DATA = Path(__file__).parents[1] / "data"
THREE = DATA / "delays/links_three_agents.jsonl.gz"  # imposed round trips: a-b 4 ms, a-c 10 ms, b-c 20 ms
LAPTOP = {"kind": "Linux laptop LPDDR5/DDR5-4800 dual channel"}


def scenario(*names: str) -> Scenario:
    """Laptops of these names with Llama 3.2 1B."""
    return Scenario.model_validate(
        {"name": "mine", "model": {"name": "Llama-3.2-1B"}, "devices": dict.fromkeys(names, LAPTOP)}
    )


def written(
    path: Path, sides_s: dict[str, float], wires_s: dict[tuple[str, str], float], trips: int = 300
) -> Path:
    """A file of links: each side draws `exponential(15 % of its delay)` beyond its own; a wire has its own one-way."""
    draw = np.random.default_rng(7)
    devices = tuple(DeviceProvenance(name=name, chip="c", os="o") for name in sides_s)
    header = Provenance(
        name="links",
        created="2026-11-27T00:00:00+00:00",
        source="agent",
        engine="links",
        engine_version="1",
        model="none",
        model_layers=0,
        devices=devices,
        placement=(),
        prompt_tokens=0,
        output_tokens=0,
        runs=1,
        warm_up_requests=0,
        clock="monotonic",
    )
    with MeasurementWriter(path, header) as file:
        for source, sink in permutations(sides_s, 2):
            wire_s = wires_s.get((source, sink)) or wires_s.get((sink, source))
            means = [wire_s / 2] * 4 if wire_s else [sides_s[source], sides_s[sink]] * 2
            for _ in range(trips):
                rtt_s = sum(mean * 0.85 + draw.exponential(mean * 0.15) for mean in means)
                file.write(
                    "link", source=source, sink=sink, size_bytes=4, loaded=False, rtt_ns=int(rtt_s * 1e9)
                )
            file.write("link_rate", source=source, sink=sink, bytes_per_s=1e8, seconds=2.0)
    return path


def test_pairs_that_are_no_sums_are_wires() -> None:
    """20 ms is more than 4 and 10: no delay per device explains that, as it is with routers and radios between."""
    measurement = read_measurement(THREE)
    assert is_links(measurement)
    found = measured_links([measurement])
    assert found.links == {}
    one_way_s = {wire.between: 2 * median_s(wire.delay) for wire in found.wires if wire.delay}
    assert one_way_s == pytest.approx(
        {("node-a", "node-b"): 2e-3, ("node-a", "node-c"): 5e-3, ("node-b", "node-c"): 10e-3}, rel=0.06
    )
    assert all(wire.label == "measured" for wire in found.wires)
    assert all("no sum of two devices' sides" in note for note in found.notes)


def test_laws_have_the_tails_of_the_samples() -> None:
    """Four draws of an end are a round trip: its 95th percentile is that of the samples."""
    measurement = read_measurement(THREE)
    draw = np.random.default_rng(1)
    for wire in measured_links([measurement]).wires:
        assert wire.delay is not None
        trips = draw.choice(table(wire.delay), (100_000, 4)).sum(axis=1)
        measured = [
            event["rtt_ns"] / 1e9
            for event in measurement.of("link")
            if {event["source"], event["sink"]} == set(wire.between)
            and event["size_bytes"] == 4
            and not event["loaded"]
        ]
        for quantile in (0.5, 0.95):
            assert np.quantile(trips, quantile) == pytest.approx(np.quantile(measured, quantile), rel=0.35)


def test_pairs_that_add_up_are_sides_of_devices(tmp_path: Path) -> None:
    sides_s = {"mac": 0.3e-3, "phone": 4e-3, "pi": 1e-3}
    found = measured_links([read_measurement(written(tmp_path / "l.jsonl", sides_s, {}))])
    assert {name: median_s(link.delay) for name, link in found.links.items() if link.delay} == pytest.approx(
        sides_s, rel=0.1
    )
    assert found.wires == ()
    assert found.links["pi"].rate == pytest.approx(1e8, rel=0.01)


def test_a_cable_between_two_of_four_is_a_wire(tmp_path: Path) -> None:
    sides_s = {"mac": 3e-3, "mini": 2e-3, "phone": 4e-3, "pi": 1e-3}
    found = measured_links(
        [read_measurement(written(tmp_path / "l.jsonl", sides_s, {("mac", "mini"): 0.1e-3}))]
    )
    assert [wire.between for wire in found.wires] == [("mac", "mini")]
    assert {name: median_s(link.delay) for name, link in found.links.items() if link.delay} == pytest.approx(
        sides_s, rel=0.1
    )
    made, notes = with_links(scenario("mac", "mini", "phone"), found)
    assert made.devices["phone"].link.label == "measured"
    assert any(note.startswith("pi: measured, and no device") for note in notes)
    prepare(made)


def test_two_agents_have_half_each(tmp_path: Path) -> None:
    found = measured_links([read_measurement(written(tmp_path / "l.jsonl", {"a": 1e-3, "b": 3e-3}, {}))])
    assert [median_s(link.delay) for link in found.links.values() if link.delay] == pytest.approx(
        [2e-3, 2e-3], rel=0.05
    )
    assert "ask a third agent" in found.notes[0]


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="call the agents like the devices"):
        with_links(scenario("x", "y"), measured_links([read_measurement(THREE)]))
    with pytest.raises(MeasurementError, match="no idle round trips"):
        measured_links([read_measurement(written(tmp_path / "l.jsonl", {"a": 1e-3, "b": 3e-3}, {}, trips=0))])
    with pytest.raises(MeasurementError, match="1 files hold links alone: `sim delays"):
        calibrate([THREE])


def test_calibrate_takes_links_as_data(tmp_path: Path) -> None:
    """They are in place while the rest is fitted, and in what the calibration is applied to."""
    runs = [DATA / f"campaign/{name}.jsonl" for name in ("A_a24", "B_a12b12", "B_a4b20")]
    measured = read_measurement(runs[1])
    names = [shard.device for shard in measured.provenance.placement]
    links = written(tmp_path / "links.jsonl", dict.fromkeys(names, 1e-3), {})
    found = calibrate([*runs, links], draws=20)
    assert found.links is not None
    save_calibration(found, tmp_path / "c.yaml")
    assert load_calibration(tmp_path / "c.yaml").links == found.links
    plain = calibrate(runs, draws=20)
    assert plain.links is None
    hop = "hop_overhead_s"
    # a millisecond a side that the scenario did not have leaves the less to the hops
    assert (found.value(hop) or 0.0) <= (plain.value(hop) or 0.0)
    asked = scenario(*names)
    asked = asked.model_copy(
        update={"model": asked.model, "engine": asked.engine.model_copy(update={"name": found.engine})}
    )
    applied = apply(found, asked).scenario
    assert {device.link.label for device in applied.devices.values()} == {"measured"}


def test_the_command_writes_a_scenario(tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    devices = "".join(
        f"  {name}: {{kind: MacBook Air M2, link: {{kind: wifi6}}}}\n"
        for name in ("node-a", "node-b", "node-c")
    )
    source.write_text(f"name: mine\nmodel: Llama-3.2-1B\ndevices:\n{devices}")
    done = CliRunner().invoke(
        app, ["delays", str(THREE), "--scenario", str(source), "-o", str(tmp_path / "new.yaml")]
    )
    assert done.exit_code == 0, done.output
    made = load(tmp_path / "new.yaml", Scenario)
    assert len(made.wires) == 3
    assert made.devices["node-a"].link.kind == "wifi6"
    prepare(made)
    alone = CliRunner().invoke(app, ["delays", str(THREE), "--scenario", str(source)])
    assert alone.exit_code == 2
    assert isinstance(measured_links([read_measurement(THREE)]), MeasuredLinks)
