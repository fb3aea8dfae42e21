"""Delays that a relay really imposed on messages of a real EXO ring, and Measurements that hold delays."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from pydantic import TypeAdapter
from typer.testing import CliRunner

from calibrate.delays import Route, choose, fit_laws, hop_delays_s, link_rtts_s, table
from sim.delays_cmd import delays
from simulator.errors import CalibrationError
from simulator.laws import Law, Lognormal
from simulator.result.measurement import MeasurementWriter, Provenance, read_measurement

RECORDING = Path(__file__).parents[1] / "data" / "delays" / "ring_F_a12b12_jitter10.csv.gz"
IMPOSED_MEAN_S, IMPOSED_SIGMA = 10e-3, 0.6
"""What the relays were told to draw: independent lognormals, in order of sending per direction."""


@pytest.fixture(scope="module")
def messages():
    with gzip.open(RECORDING, "rt") as file:
        return list(csv.DictReader(file))


def held_s(messages, size_bytes):
    return np.array([int(row["held_us"]) for row in messages if int(row["bytes"]) == size_bytes]) / 1e6


def test_the_imposed_law_comes_back_from_a_real_recording(messages):
    """Hidden states (2,048 bytes): median and sigma within two standard errors, the mean within two of its own."""
    x = held_s(messages, 2048)
    assert x.size == 1_470
    fits = fit_laws(x)
    fit = choose(fits)
    assert fit.name == "lognormal", table(fits)
    median, sigma = fit.parameter("median"), fit.parameter("sigma")
    assert abs(median.value - IMPOSED_MEAN_S * np.exp(-(IMPOSED_SIGMA**2) / 2)) < 2 * median.stderr
    assert abs(sigma.value - IMPOSED_SIGMA) < 2 * sigma.stderr
    assert sigma.stderr < 0.02 * IMPOSED_SIGMA
    assert abs(fit.law.mean_s - IMPOSED_MEAN_S) < 2 * x.std() / x.size**0.5
    assert fit.tail == "ok"
    assert abs(fit.tail_error_p99) < 0.1
    assert fit.warnings == ()


def test_messages_that_wait_behind_others_do_not_follow_the_imposed_law(messages):
    """The 4-byte gather from a to b travels behind a hidden state and keeps its place: no draw of its own."""
    x = [
        int(row["held_us"]) / 1e6
        for row in messages
        if row["bytes"] == "4" and row["connection_from"] + row["direction"] == "abackward"
    ]
    law = choose(fit_laws(x)).law
    assert law.mean_s > 1.15 * IMPOSED_MEAN_S


PROVENANCE = Provenance(
    name="relay",
    created="2026-11-22T00:00:00Z",
    source="local",
    engine="exo",
    engine_version="1",
    model="tiny",
    model_layers=24,
    devices=(),
    placement=(),
    prompt_tokens=40,
    output_tokens=128,
    runs=1,
    warm_up_requests=1,
    clock="monotonic",
)


@pytest.fixture
def measured(tmp_path, messages):
    """A Measurement with the recorded delays as hops, and link events made of pairs of them."""
    path = tmp_path / "relay.jsonl"
    x = held_s(messages, 2048)
    with MeasurementWriter(path, PROVENANCE) as out:
        for each in x:
            held = {"sent_ns": 0, "imposed_ns": round(each * 1e9), "late_ns": 0}
            out.write("hop", run=0, source="a", sink="b", size_bytes=2048, **held)
        for first, second in zip(x[::2], x[1::2], strict=True):
            rtt_ns = round((first + second) * 1e9)
            out.write("link", source="a", sink="b", size_bytes=64, rtt_ns=rtt_ns, loaded=False)
        out.write("link_rate", source="a", sink="b", bytes_per_s=1e8)
    return path


def test_routes_are_read_apart(measured, messages):
    measurement = read_measurement(measured)
    hops, links = hop_delays_s(measurement), link_rtts_s(measurement)
    assert list(hops) == [Route("a", "b", 2048)]
    assert hops[Route("a", "b", 2048)] == pytest.approx(held_s(messages, 2048))
    assert links[Route("a", "b", 64)].size == 735
    assert str(Route("a", "b", 64, loaded=True)) == "a -> b, 64 bytes, loaded"


def test_an_event_without_its_fields_is_left_out_and_told(tmp_path):
    path = tmp_path / "bad.jsonl"
    with MeasurementWriter(path, PROVENANCE) as out:
        out.write("hop", run=0, source="a", sink="b", size_bytes=2048, sent_ns=0)
    found = read_measurement(path)
    assert hop_delays_s(found) == {}
    assert found.faults == (f"{path}:2: hop: imposed_ns: this key is missing (1 faults more); left out",)


def command(*arguments):
    app = typer.Typer()
    app.command()(delays)
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_command_prints_tables_and_a_law_that_a_scenario_takes(measured):
    result = command(measured)
    assert result.exit_code == 0
    assert "a -> b, 2048 bytes (one way, at the relay)" in result.output
    assert "a -> b, 64 bytes (law of one crossing, from round trips)" in result.output
    used = [line for line in result.output.splitlines() if line.startswith("use: ")]
    assert len(used) == 2
    law = Lognormal.model_validate(json.loads(used[0].split(": ", 2)[2]))
    assert law.mean_s == pytest.approx(IMPOSED_MEAN_S, rel=0.05)


def test_the_commands_document_holds_the_same(measured):
    document = json.loads(
        command(measured, "--json", "--link", "a:b", "--law", "gamma", "--law", "empirical").output
    )
    assert [entry["kind"] for entry in document] == ["hop", "link"]
    assert {fit["name"] for fit in document[0]["ranking"]} == {"gamma", "empirical"}
    # 735 round trips do not tell a lognormal from a shifted gamma, but they tell mean and spread
    crossing = TypeAdapter(Law).validate_python(document[1]["chosen"]["law"])
    spread = (np.exp(IMPOSED_SIGMA**2) - 1) ** 0.5 * IMPOSED_MEAN_S
    assert crossing.mean_s == pytest.approx(IMPOSED_MEAN_S, rel=0.05)
    assert crossing.variance_s2**0.5 == pytest.approx(spread, rel=0.10)


def test_a_link_that_was_not_measured_is_named_with_those_that_were(measured):
    result = command(measured, "--link", "b:c")
    assert isinstance(result.exception, CalibrationError)
    assert "no hop or link delays of b:c in these measurements; they have a:b" in str(result.exception)
