"""Predictions, outcomes, and tables of results."""

from __future__ import annotations

import random
import shutil
from functools import cache
from pathlib import Path

from tests.fuzz.doors.door import DATA, RESULTS, Kind, Unfit, command, read_back, same, scratch, told
from tests.fuzz.doors.measured import prediction

__all__ = ["KINDS"]


@cache
def ledgers() -> tuple[bytes, ...]:
    """Outcomes alone, and with predictions."""
    lines = (RESULTS / "local/ledger.jsonl").read_bytes().splitlines(keepends=True)
    other = (RESULTS / "exo/ledger.jsonl").read_bytes().splitlines(keepends=True)
    return (
        b"".join(lines[:6]),
        b"".join(other[:6]),
        b"".join([*lines[-4:], *other[-3:]]),
        b"".join(lines[:60]),
    )


def _ledger(path: Path) -> None:
    told(path, "ledger", "--ledger-file", path, *random.Random(path.stat().st_size).choice(([], ["--json"])))


def _append(path: Path) -> None:
    """A new outcome behind whatever is there: the next reading finds it, or is refused before anything is said."""
    said = path.with_name("said.prediction.json")
    said.write_bytes(prediction())
    code, _, err = command("validate", said, DATA / "campaign/B_a12b12.jsonl", "--ledger-file", path)
    if code and path.name not in err:
        raise Unfit(f"sim validate refuses without naming the ledger: {err[:300]}")
    read_back(code, path)


def _trials(path: Path) -> None:
    folder = path.with_name("grounds")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mine").mkdir(parents=True)
    shutil.copy(path, folder / "mine" / path.name)
    told(path, "ledger", "--results", folder, "--json")


def _dropouts(path: Path) -> None:
    _ground(
        path, "dropout/first", {"predictions.jsonl": "measured.jsonl", "measured.jsonl": "predictions.jsonl"}
    )


def _published(path: Path) -> None:
    _ground(path, "published", {"predictions.csv": "causes.csv", "causes.csv": "predictions.csv"})


def _chips(path: Path) -> None:
    _ground(path, "catalog", {"held_out.csv": ""})


def _ground(path: Path, name: str, pairs: dict[str, str]) -> None:
    folder = path.with_name("grounds") / name
    shutil.rmtree(path.with_name("grounds"), ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(path, folder / path.name)
    if other := pairs[path.name]:
        shutil.copy(RESULTS / name / other, folder / other)
    told(path, "ledger", "--results", path.with_name("grounds"), "--json")


def _prediction(path: Path) -> None:
    measured, ledger = DATA / "campaign/B_a12b12.jsonl", scratch(path, "made.jsonl")
    read_back(told(path, "validate", path, measured, "--ledger-file", ledger), ledger)


KINDS = {
    "ledger": Kind("ledger.jsonl", ledgers, (_ledger, _append, _trials)),
    "prediction": Kind("odd.prediction.json", lambda: (prediction(),), (_prediction,)),
    "dropout predictions": Kind(
        "predictions.jsonl", same(RESULTS / "dropout/first/predictions.jsonl"), (_dropouts,)
    ),
    "dropout outcomes": Kind("measured.jsonl", same(RESULTS / "dropout/first/measured.jsonl"), (_dropouts,)),
    "published": Kind("predictions.csv", same(RESULTS / "published/predictions.csv"), (_published,)),
    "published causes": Kind("causes.csv", same(RESULTS / "published/causes.csv"), (_published,)),
    "held-out chips": Kind("held_out.csv", same(RESULTS / "catalog/held_out.csv"), (_chips,)),
}
