"""Writing spec files: every object survives the disk exactly, and no failure leaves half a file."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from simulator.errors import ScenarioError, SimulatorError
from simulator.files import dump, dumps, load, loads, schema, write_bytes_atomically, write_text_atomically
from simulator.files.text import UNPRINTABLE
from simulator.scenario import DeviceSpec, Scenario
from simulator.spec import Spec
from simulator.units import Bytes, BytesPerSecond, FlopPerSecond, Money, PerHour, Seconds, Share, Watts

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
REAL = """\
name: five
model: llama-3.3-70b
engine: exo
devices:
  mac: {kind: m4, memory: 24 GB, speed: {decode_bandwidth: 90 GB/s, prefill_flops: 3 TFLOPS}}
  phone:
    link: {rtt: 3 ms, delay: {law: lognormal, median: 3 ms, sigma: 0.2},
           power_save: {awake: 50 ms, wake: {value: 1 s, law: constant}}}
placement: {order: [mac, phone], roles: {mac: head}}
"""


@pytest.mark.parametrize("text", [REAL, *(path.read_text(encoding="utf-8") for path in SCENARIOS)])
def test_scenarios_survive_the_disk(text: str, tmp_path: Path) -> None:
    scenario = loads(text, Scenario)
    dump(scenario, tmp_path / "scenario.yaml", header="what was asked")
    assert load(tmp_path / "scenario.yaml", Scenario) == scenario


class Every(Spec):
    """One field of each kind that a file may hold."""

    time: Seconds
    size: Bytes
    rate: BytesPerSecond
    flops: FlopPerSecond
    power: Watts
    share: Share
    per_hour: PerHour
    price: Money
    number: float
    whole: int = Field(ge=-(2**63) + 1, lt=2**63)
    flag: bool
    text: str
    maybe: str | None = "default"
    several: tuple[Seconds, ...]
    named: dict[str, Share]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
# What the reader takes, escaped or not: neither lone surrogates nor what a terminal would obey.
TEXT = (st.text(max_size=30) | st.from_regex(r"[-+.0-9eEinfa_:~ ]{1,8}")).filter(
    lambda text: not UNPRINTABLE.search(text)
)
QUANTITIES = ("time", "size", "rate", "flops", "power", "share", "per_hour", "price", "number")


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    text=TEXT,
    maybe=st.none() | TEXT,
    names=st.dictionaries(TEXT.filter(str.isprintable), FINITE, max_size=3),
    header=TEXT,
)
def test_round_trip_is_exact(
    data: st.DataObject, text: str, maybe: str | None, names: dict[str, float], header: str
) -> None:
    quantities: dict[str, Any] = dict.fromkeys(QUANTITIES, data.draw(FINITE))
    whole = data.draw(st.integers(-(2**63) + 1, 2**63 - 1))
    several = tuple(data.draw(st.lists(FINITE, max_size=4)))
    # model_construct takes floats as the program computes them, without units.
    every = Every.model_construct(
        **quantities,
        whole=whole,
        flag=data.draw(st.booleans()),
        text=text,
        maybe=maybe,
        several=several,
        named=names,
    )
    printable = "".join(character for character in header if character.isprintable())
    assert loads(dumps(every, printable), Every) == every


@pytest.mark.parametrize("value", [1e300, -sys.float_info.max, sys.float_info.min])
def test_the_outermost_floats_survive_the_disk(value: float) -> None:
    every = Every.model_construct(
        **dict.fromkeys(QUANTITIES, value),
        whole=0,
        flag=True,
        text="",
        maybe=None,
        several=(),
        named={"": value},
    )
    assert loads(dumps(every, ""), Every) == every


def test_dump_writes_base_units_in_the_order_of_declaration(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    dump(loads(REAL, Scenario), path, header="which question\nof two lines")
    lines = path.read_text().splitlines()
    assert lines[:3] == ["# which question", "# of two lines", "name: five"]
    assert "    memory: 24000000000 B" in lines
    assert "        median: 0.003 s" in lines
    keys = [line.split(":")[0] for line in lines[2:] if not line.startswith(" ")]
    assert keys == [name for name in Scenario.model_fields if name in keys]


def test_dump_refuses_what_no_file_can_say_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    broken = loads(REAL, Scenario).model_copy(update={"seed": -1})
    with pytest.raises(ScenarioError, match=r"<Scenario>:.*seed.* must be at least 0"):
        dump(broken, path)
    assert list(tmp_path.iterdir()) == []


def test_none_is_written_where_it_is_not_the_default() -> None:
    wired = loads(REAL + "wires: [{between: [mac, phone], kind: null}]", Scenario)
    assert wired.wires[0].kind is None
    assert loads(dumps(wired), Scenario) == wired
    assert "null" not in dumps(loads(REAL, Scenario))


def test_atomic_write_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.txt"
    write_text_atomically(path, "old")

    def fail(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    path, link = tmp_path / "x.bin", tmp_path / "link"
    write_bytes_atomically(path, b"1")
    path.chmod(0o640)
    link.symlink_to(path)
    write_bytes_atomically(link, b"\r\n\x00")
    assert path.read_bytes() == b"\r\n\x00"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["no/x", ".", "a\0b", "x" * 300])
def test_writing_where_nobody_can_is_an_error_with_the_way_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="cannot be written"):
        write_text_atomically(tmp_path / name, "x")
    assert list(tmp_path.iterdir()) == []


def test_schema_says_what_load_takes() -> None:
    document = schema(DeviceSpec)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["additionalProperties"] is False
    speed = document["$defs"]["SpeedSpec"]["properties"]
    assert [kind.get("type", "const") for kind in speed["decode_bandwidth"]["anyOf"]] == ["string", "const"]
    assert speed["decode_bandwidth"]["description"] == "weight and KV bytes read per second while decoding"
    assert document["properties"]["background_load"]["anyOf"][1] == {"type": "number"}


CHANGES: list[dict[str, Any]] = [
    {},
    *({"memory": text} for text in (8, "8 Gb", " 1e3 KiB ", "1_000 B", "GB", "8B", "8 GB/s", [8], None)),
    *({"background_load": share} for share in (0, 0.5, "50 %", "0.5", "half")),
    *({"allow_paging": flag} for flag in (True, "perhaps")),
    *({"noise": noise} for noise in ({}, {"sigma": 0.1}, {"sigma": 3}, {"sigma": 0.1, "nope": 1})),
    *(
        {"link": {"delay": law}}
        for law in ({"law": "constant", "value": "1 ms"}, {"law": "constant"}, {"law": "no"})
    ),
    *({"link": {"power_save": choice}} for choice in (True, {"awake": "1 s"}, {"awake": 0, "wake": {}})),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_schema_and_load_agree(change: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    instance = {"kind": "m4", **change}
    try:
        loads(json.dumps(instance), DeviceSpec)  # JSON is YAML
        loaded = True
    except ScenarioError:
        loaded = False
    assert jsonschema.Draft202012Validator(schema(DeviceSpec)).is_valid(instance) == loaded
