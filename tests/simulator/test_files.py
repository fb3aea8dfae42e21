"""Reading and writing spec files: every broken input gets its lines and words, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from simulator.errors import Fault, ScenarioError
from simulator.files import dumps, load, loads, write_text_atomically
from simulator.scenario import Scenario
from simulator.spec import Spec
from simulator.units import Bytes, BytesPerSecond, Seconds, Share

DATA = Path(__file__).parents[1] / "data" / "broken"
SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))


class Constant(Spec):
    law: Literal["constant"] = "constant"
    value: Seconds


class Lognormal(Spec):
    law: Literal["lognormal"] = "lognormal"
    median: Annotated[Seconds, Field(gt=0)]
    sigma: float = Field(ge=0)


Law = Annotated[Constant | Lognormal, Field(discriminator="law")]


class Link(Spec):
    rate: BytesPerSecond
    kind: Literal["wifi", "ethernet"] = "wifi"


class Square(Spec):
    side: int


class Box(Spec):
    width: int
    height: int


class Device(Spec):
    memory: Bytes
    cores: int = Field(default=4, ge=1)
    link: Link
    delay: Law | None = None
    pause: Seconds | Law = 0.001
    rank: int | Literal["auto"] = "auto"
    shape: Square | Box | None = None
    note: str | None = "none"


class Root(Spec):
    name: str
    devices: dict[str, Device] = Field(min_length=1)
    shares: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _rules(self) -> Root:
        if self.name == "boom":
            raise ValueError("devices need other names than 'boom'")
        if self.name == "several":
            raise ScenarioError("", [Fault("devices.a.link", "is odd"), Fault("name", "is odd too")])
        return self


GOOD = """\
# a comment
name: x
devices:
  no: {memory: 8 GB, link: {rate: 1 Gbit/s}, delay: {law: lognormal, median: 1 ms, sigma: 0.1}}
  8: {memory: 16 GiB, cores: 8, link: {rate: 100 Mbit/s, kind: ethernet}, pause: {law: constant, value: 0}}
shares: [0.5, 50 %]
"""
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


def faults(text: bytes | str, cls: type[Spec] = Root) -> list[Fault]:
    with pytest.raises(ScenarioError) as caught:
        loads(text, cls, "f.yaml")
    assert caught.value.exit_code == 2
    return list(caught.value.faults)


def corpus(name: str) -> list[Any]:
    cases = (DATA / name).read_text(encoding="utf-8").split("=== ")[1:]
    parts = [(case.split("\n", 1)[0], *case.split("\n", 1)[1].split(">>>\n")) for case in cases]
    return [pytest.param(expected.splitlines(), text, id=title) for title, expected, text in parts]


def check(expected: list[str], found: list[Fault]) -> None:
    messages = [f"{fault.line} | {fault}" for fault in found]
    for line in expected:
        number, *words = line.split(" | ")
        fitting = [m for m in messages if m.startswith(f"{number} | ") and all(word in m for word in words)]
        assert len(fitting) == 1, f"{line!r} not once in {messages}"
    assert len(found) == len(expected), messages
    assert not any(
        noise in m for m in messages for noise in ("https://", "type=", "Input should", "Value error")
    )


@pytest.mark.parametrize(("expected", "text"), corpus("specs.txt"))
def test_each_broken_spec_gets_all_its_faults_with_lines(expected: list[str], text: str) -> None:
    check(expected, faults(text))


@pytest.mark.parametrize(("expected", "text"), corpus("scenarios.txt"))
def test_each_broken_scenario_gets_all_its_faults_with_lines(expected: list[str], text: str) -> None:
    check(expected, faults(text, Scenario))


BYTES = {
    "empty": (b"", "1 | the file is empty"),
    "not utf-8": (b"name: x\nnote: \xfc", "2 | byte 0xfc at offset 14 is not UTF-8"),
    "binary": (b"name: x\n\x00\x01", "2 | control character '\\x00' at offset 8"),
    "utf-16": ("name: x".encode("utf-16"), "1 | the file is UTF-16"),
    "lone surrogate": ("name: \ud800", "1 | byte 0xed at offset 6 is not UTF-8"),
    "over 1 MB": (b"#" * 1_000_001, "None | more than 1000000 bytes"),
    "deep lists": (b"[" * 900_000, "1 | nested more than 50 levels deep"),
    "deep mappings": (b"{a: " * 200_000, "1 | nested more than 50 levels deep"),
    "deep dashes": (b"- " * 400_000, "1 | nested more than 50 levels deep"),
    "many values": (b"shares: [" + b"1," * 400_000 + b"]", "1 | more than 100000 keys and values"),
}


@pytest.mark.parametrize(("raw", "expected"), BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_spec_are_refused_fast(raw: bytes | str, expected: str) -> None:
    start = time.process_time()
    check([expected], faults(raw))
    assert time.process_time() - start < 4  # 0.4 s with libyaml


BOMBS = {
    "billion laughs": "k0: &a0 [x]\n"
    + "".join(f"k{i + 1}: &a{i + 1} [{f'*a{i},' * 9}]\n" for i in range(20)),
    "4000 digits": "name: " + "1" * 4000,
    "900000 digits": f"name: {'1' * 900_000}\ndevices: {{a: {{cores: {'1' * 400}.{'1' * 90_000}}}}}",
    "digits of a quantity": "shares: ['" + "1" * 900_000 + r"\nx']",
    "a long key": f"? {'k' * 900_000}\n: 1",
    "many unknown keys": "\n".join(f"k{i}: 1" for i in range(49_000)),
    "many duplicates": "a: 1\n" * 49_000,
    "many wrong devices": "name: x\ndevices:\n"
    + "\n".join(f" d{i}: {{memory: 1, pause: [x]}}" for i in range(12_000)),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_end_in_a_few_short_messages(text: str) -> None:
    start = time.process_time()
    found = faults(text)
    assert time.process_time() - start < 4
    assert len(found) <= 101
    assert max(len(str(fault)) for fault in found) < 500


def test_what_yaml_allows_is_read() -> None:
    root = loads(GOOD, Root)
    assert list(root.devices) == ["no", "8"]
    assert root.devices["8"].memory == 16 * 2**30
    assert root.shares == (0.5, 0.5)
    for variant in (b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n"), f"---\n{GOOD}...\n"):
        assert loads(variant, Root) == root


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    good = tmp_path / "five_devices.yaml"
    write_text_atomically(good, GOOD)
    assert load(good, Root) == loads(GOOD, Root)
    cases = {
        tmp_path / "five_device.yaml": "no such file, did you mean 'five_devices.yaml'?",
        tmp_path / "no" / "x.yaml": "nor the folder",
        tmp_path: "this is a folder",
        tmp_path / "a\0b": "cannot be read",
        tmp_path / ("x" * 300): "cannot be read",
        good / "x.yaml": "cannot be read",
    }
    for path, words in cases.items():
        with pytest.raises(ScenarioError, match=r"file|folder|cannot") as caught:
            load(path, Root)
        assert words in str(caught.value)


def test_a_file_without_permission_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the superuser, who may run this, is refused nothing
    with pytest.raises(ScenarioError, match=r"^x\.yaml: permission denied; make the file readable$"):
        load("x.yaml", Root)


def test_a_large_file_is_refused_without_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: 1\n" * 2_000_000)
    start = time.process_time()
    with pytest.raises(ScenarioError, match=r"big\.yaml: the file has more than 1000000 bytes"):
        load(path, Root)
    assert time.process_time() - start < 0.2


def test_message_form_is_file_line_path_reason() -> None:
    with pytest.raises(ScenarioError) as caught:
        loads(GOOD.replace("cores: 8", "cores: 0").replace("name: x", "nam: x"), Root, "s/f.yaml")
    assert str(caught.value).splitlines() == [
        "s/f.yaml:2: nam: unknown key, did you mean 'name'? (allowed here: name, devices, shares)",
        "s/f.yaml:5: devices.8.cores: 0 must be at least 1",
    ]


JUNK = st.sampled_from([*'~[]|%\t"', "", "{}", "x: y", "- a", "*a", "&a b", "!!int 3", "1e999", "-1", "''"])


@st.composite
def mutated(draw: st.DrawFn, texts: list[str]) -> bytes:
    """A valid file after up to four small accidents."""
    raw = draw(st.sampled_from(texts)).encode()
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(raw))), draw(st.integers(1, 20))
        lines = raw.split(b"\n")
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        accident = draw(st.sampled_from(["delete", "repeat", "insert", "swap", "junk", "double"]))
        if accident == "swap":
            lines[i], lines[j] = lines[j], lines[i]
        elif accident == "junk":
            lines[i] = lines[i].split(b":")[0] + b": " + draw(JUNK).encode()
        elif accident == "double":
            lines.insert(j, lines[i])
        insert = draw(st.one_of(st.binary(max_size=4), JUNK.map(str.encode)))
        edits = {"delete": b"", "repeat": raw[at : at + length] * 2, "insert": insert + raw[at : at + length]}
        raw = raw[:at] + edits[accident] + raw[at + length :] if accident in edits else b"\n".join(lines)
    return raw


def survives(raw: bytes, cls: type[Spec]) -> None:
    start = time.process_time()
    lines = []
    try:
        instance = loads(raw, cls, "f.yaml")
    except ScenarioError as error:
        lines = error.lines()
    else:
        assert loads(dumps(instance), cls) == instance
    assert all(line.startswith("f.yaml:") and line.isprintable() for line in lines)
    assert time.process_time() - start < 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=mutated([GOOD]))
def test_mutated_specs_load_or_are_refused(raw: bytes) -> None:
    survives(raw, Root)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=mutated([REAL, *(path.read_text(encoding="utf-8") for path in SCENARIOS)]))
def test_mutated_scenarios_load_or_are_refused(raw: bytes) -> None:
    survives(raw, Scenario)
