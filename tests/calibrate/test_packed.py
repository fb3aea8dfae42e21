"""Packed measurements: read as plain ones are, known by the same hash, refused in one message when damaged."""

from __future__ import annotations

import gzip
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from calibrate.calibration import calibrate, load_calibration, save_calibration
from calibrate.ledger import append, read_ledger
from calibrate.samples import sample
from calibrate.validation import predict_sessions, validate
from sim.main import main
from simulator.errors import CalibrationError, MeasurementError
from simulator.files import pack, read_lines
from simulator.result.measurement import MeasurementWriter, read_measurement

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "campaign"
LOCAL = ROOT / "results" / "local"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "m.jsonl"
    path.write_bytes((DATA / "A_a24.jsonl").read_bytes())
    return path


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 0xFF]) + data[201:]


def without_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes(4) + data[-4:]


DAMAGES = [cut, flipped, without_checksum, lambda data: gzip.decompress(data), lambda data: data + b"more"]


def test_a_packed_measurement_is_the_plain_one_but_for_its_name(plain: Path) -> None:
    before, lines = read_measurement(plain), list(read_lines(plain))
    file = pack(plain)
    found = read_measurement(file)
    assert (found.provenance, found.events, found.complete) == (
        before.provenance,
        before.events,
        before.complete,
    )
    assert found.sha256 == before.sha256
    assert list(read_lines(file)) == lines
    assert not plain.exists()


def test_packing_twice_gives_the_same_bytes(plain: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(plain.read_bytes())
    assert pack(plain).read_bytes() == pack(other).read_bytes()


def test_committed_hashes_are_those_of_the_packed_files() -> None:
    training = {read_measurement(path).sha256 for path in (LOCAL / "training").glob("*.jsonl.gz")}
    assert training == {source.sha256 for source in load_calibration(LOCAL / "calibration.yaml").sources}
    ledger = read_ledger(LOCAL / "ledger.jsonl").validations
    assert {row.calibration_sha256 for row in ledger} == {
        sha256((LOCAL / "calibration.yaml").read_bytes()).hexdigest()
    }
    measured = {row.measurement_sha256 for row in ledger}
    assert measured == {read_measurement(path).sha256 for path in (LOCAL / "held_out").glob("*.jsonl.gz")}


def test_a_packed_copy_of_what_trained_validates_nothing(plain: Path) -> None:
    scenario = sample(read_measurement(plain)).scenario.model_copy(update={"replications": 5})
    prediction = predict_sessions(scenario, trained_on=(read_measurement(plain).sha256,))
    with pytest.raises(CalibrationError, match="trained the calibration"):
        validate(prediction, sample(read_measurement(pack(plain))))


def test_the_same_measurement_packed_and_plain_counts_once(plain: Path) -> None:
    made = calibrate([pack(plain), DATA / "A_a24.jsonl"], draws=20)
    assert len(made.sources) == 1
    assert any("the same measurement" in text for text in made.warnings)


def test_nothing_packed_is_overwritten_or_appended_to(plain: Path, tmp_path: Path) -> None:
    provenance, content = read_measurement(plain).provenance, plain.read_bytes()
    file = pack(plain)
    with pytest.raises(MeasurementError, match=r"m\.jsonl\.gz exists"):
        MeasurementWriter(plain, provenance)
    plain.write_bytes(content)
    for again in (plain, file):
        with pytest.raises(MeasurementError, match=r"m\.jsonl\.gz exists"):
            pack(again)
    with pytest.raises(CalibrationError, match="only read"):
        append(tmp_path / "ledger.jsonl.gz")


def test_a_packed_ledger_is_read(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_bytes((LOCAL / "ledger.jsonl").read_bytes())
    assert read_ledger(pack(ledger)).entries == read_ledger(LOCAL / "ledger.jsonl").entries


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "words",
    [
        ("calibrate", "m.jsonl.gz"),
        ("summary", "m.jsonl.gz"),
        ("delays", "m.jsonl.gz"),
        ("ledger", "--ledger-file", "m.jsonl.gz"),
        ("validate", "p.json", "m.jsonl.gz"),
    ],
)
def test_a_damaged_file_ends_in_one_message(
    words, damage, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(plain.parent)
    if words[0] == "validate":
        scenario = sample(read_measurement(plain)).scenario.model_copy(update={"replications": 2})
        Path("p.json").write_text(predict_sessions(scenario).model_dump_json())
    file = pack(plain)
    file.write_bytes(damage(file.read_bytes()))
    monkeypatch.setattr(sys, "argv", ["sim", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "m.jsonl.gz" in said
    assert "no whole gzip file" in said
    assert "copy it again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["summary", "delays"])
def test_commands_print_the_same_of_a_packed_file(
    command, plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(plain.parent)
    said = []
    for name in ("m.jsonl", "m.jsonl.gz"):
        if name.endswith("gz"):
            pack(plain)
        monkeypatch.setattr(sys, "argv", ["sim", command, name])
        with pytest.raises(SystemExit):
            main()
        out = capsys.readouterr()
        said.append((out.out + out.err).replace(name, "FILE"))
    assert said[0] == said[1]


def test_a_calibration_says_a_draw_on_one_line(tmp_path: Path) -> None:
    made = calibrate([DATA / "A_a24.jsonl"], draws=20)
    save_calibration(made, tmp_path / "c.yaml")
    assert load_calibration(tmp_path / "c.yaml") == made
    assert (
        sum(line.startswith("- [") for line in (tmp_path / "c.yaml").read_text().splitlines()) == 2 * 20
    )  # of the fit, and of prompts
