"""`sim catalog add` and the user's own entries in the lists of `sim catalog`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simulator.own import Yours
    from simulator.scenario import DeviceSpec, Scenario

__all__ = ["add", "own_documents", "own_rows"]

YOURS = "yours"
NONE = "-"


def add(
    scenario: Annotated[
        Path | None, typer.Argument(help="A scenario; with --calibration it may be left out.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `sim calibrate`: its speeds are taken.")
    ] = None,
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(help="A result that `sim calibrate` reads, of llama-bench or another tool; repeatable."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Only this device; repeatable. Default: all with a speed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The file; default: devices.yaml in your settings.")
    ] = None,
) -> None:
    """Write devices with their speed into your own catalogue: any scenario can name them as a kind then."""
    from simulator.files import loads, make_folder, write_text_atomically
    from simulator.own import UserCatalog, default_file

    found = _benchmarked(benchmark, device) if benchmark else _devices(scenario, calibration)
    chosen = {name: spec for name, spec in found.items() if not device or name in device}
    _must_be_there(chosen, found, device or ())
    file = out or default_file()
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    known = loads(before, UserCatalog, str(file)).devices if before.strip() else {}
    for name in set(chosen) & set(known):
        raise typer.BadParameter(
            f"{file} has a device {name!r} already; take it out, or add others (--device)"
        )
    after = _inserted(before, _text(chosen))
    loads(after, UserCatalog, str(file))  # before anything is written: what is there must still read
    make_folder(file.parent)
    write_text_atomically(file, after)
    typer.echo(f"wrote {', '.join(chosen)} to {file}; a scenario names it as `kind: {next(iter(chosen))}`")


def _must_be_there(chosen: Mapping[str, object], found: Mapping[str, object], asked: Sequence[str]) -> None:
    missing = [name for name in asked if name not in found]
    if missing or not chosen:
        what = (
            f"{', '.join(missing)}: no device with a speed of this name"
            if missing
            else "no device has a speed"
        )
        way_out = f"there are {', '.join(found)}" if found else "give speed in the scenario"
        raise typer.BadParameter(f"{what}; {way_out}, or measure and add --calibration")


def _devices(file: Path | None, calibration: Path | None) -> dict[str, DeviceSpec]:
    """What an entry keeps of each device: itself, neither its link nor what else it has to do."""
    from sim.run_cmd import load_scenario

    if file is None and calibration is None:
        raise typer.BadParameter(
            "name a scenario whose devices have a speed, a --calibration or a --benchmark"
        )
    asked = load_scenario(file) if file else None
    if calibration is None:
        assert asked is not None
        return {name: _entry(spec) for name, spec in asked.devices.items() if spec.speed is not None}
    return _calibrated(calibration, asked)


def _benchmarked(files: Sequence[Path], device: Sequence[str] | None) -> dict[str, DeviceSpec]:
    """What benchmarks measured, under the one name given with --device, else the name that they give."""
    from calibrate.benchmarks import measured_devices

    name = device[0] if device else None
    found, _, _ = measured_devices(files, name=name)
    for doubt in dict.fromkeys(doubt for one in found for doubt in one.doubts):
        typer.echo(f"doubt: {doubt}", err=True)
    return {name or one.name: _entry(one.spec) for one in found}


def _entry(spec: DeviceSpec, **measured: Any) -> DeviceSpec:
    from simulator.scenario import DeviceSpec

    kept = ("kind", "memory", "usable_memory", "platform", "speed", "noise", "disk")
    return DeviceSpec.model_construct(**{key: getattr(spec, key) for key in kept} | measured)


def _calibrated(file: Path, asked: Scenario | None) -> dict[str, DeviceSpec]:
    """The devices that a calibration knows, with its speeds; its joint draws say how sure those are."""
    from statistics import pstdev

    import numpy as np

    from calibrate.applied import apply
    from calibrate.calibration import load_calibration
    from simulator.scenario import Scenario

    fitted = load_calibration(file)
    if asked is None:
        kinds = {name: {"kind": kind} for name, kind in fitted.kinds.items() if kind != "unknown"}
        if not kinds:
            raise typer.BadParameter(
                f"{file} names no kind of device; give the scenario that was measured too"
            )
        # only its bytes enter a speed, neither how many layers there were nor their width
        model = {"name": fitted.model, "layers": 1, "hidden": 1, "layer_bytes": f"{fitted.layer_bytes} B"}
        asked = Scenario.model_validate(
            {"name": "calibrated", "engine": fitted.engine, "model": model, "devices": kinds}
        )
    full = apply(fitted, asked).scenario
    draws = full.posterior
    found = {}
    for name, spec in full.devices.items():
        if spec.speed is None or spec.speed.label != "calibrated":
            continue
        at = f"world/{name}/decode"
        column = draws.names.index(at) if draws and at in draws.names else None
        spread = (
            0.0 if column is None or draws is None else pstdev(np.log([row[column] for row in draws.draws]))
        )
        speed = spec.speed.model_copy(update={"decode_spread": round(float(spread), 4)})
        found[name] = _entry(asked.devices[name], speed=speed, noise=spec.noise)
    return found


def _text(devices: Mapping[str, DeviceSpec]) -> str:
    """The entries as YAML, two spaces deep; what is a default is left out."""
    import yaml

    plain = {
        name: spec.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        for name, spec in devices.items()
    }
    lines = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110).splitlines()
    return "".join(f"  {line}\n" for line in lines)


def _inserted(before: str, entries: str) -> str:
    """A file with entries more under its `devices:`; all else, comments too, stays as it is."""
    if not before.strip():
        return f"# Devices of my own; see `sim catalog devices`\ndevices:\n{entries}"
    head = re.search(r"^devices:[ \t]*(#.*)?\n", before, flags=re.MULTILINE)
    if head is None and re.search(r"^devices:", before, flags=re.MULTILINE):
        raise typer.BadParameter(f"`devices:` is written in one line there; put this under it:\n{entries}")
    if head is None:
        return f"{before.rstrip()}\ndevices:\n{entries}"
    deep = re.match(r"(?:[ \t]*(?:#.*)?\n)*( +)", before[head.end() :])
    indent = deep[1] if deep else "  "
    shifted = "".join(indent + line[2:] for line in entries.splitlines(keepends=True))
    return before[: head.end()] + shifted + before[head.end() :]


def own_rows(part: str, heads: Sequence[str], search: str) -> list[tuple[str, ...]]:
    """The user's entries of `part` (devices, links, models) as rows under `heads`, marked as the user's."""
    cells = CELLS[part]
    return [
        tuple(cells[head](entry) if head in cells else NONE for head in heads)
        for entry in _found(part, search)
    ]


def own_documents(part: str, search: str) -> list[dict[str, Any]]:
    """The same for --json: what the file says, its path, and that it is the user's."""
    return [
        {
            "name": entry.name,
            "confidence": YOURS,
            "source": str(entry.file),
            **entry.spec.model_dump(mode="json", exclude_defaults=True, exclude={"name"}),
        }
        for entry in _found(part, search)
    ]


def _found(part: str, search: str) -> list[Yours]:
    from simulator.own import yours

    return [entry for entry in yours(part) if search.lower() in f"{entry.name} {YOURS}".lower()]


def _size(value: float | None, unit: float) -> str:
    return NONE if value is None else f"{value / unit:.4g}"


Cell = Callable[["Yours"], str]
CELLS: dict[str, dict[str, Cell]] = {
    "devices": {
        "device": lambda own: own.name,
        "memory GiB": lambda own: _size(own.spec.memory, 2**30),
        "usable GB": lambda own: _size(own.spec.usable_memory, 1e9),
        "GB/s": lambda own: _size(own.spec.speed and own.spec.speed.decode_bandwidth, 1e9),
        "fp16 Tflop/s": lambda own: _size(own.spec.speed and own.spec.speed.prefill_flops, 1e12),
        "network": lambda own: own.spec.link.kind or NONE,
        "platform": lambda own: own.spec.platform or own.spec.kind or NONE,
        "confidence": lambda own: YOURS,
    },
    "links": {
        "network": lambda own: own.name,
        "what": lambda own: f"as {own.spec.kind}" if own.spec.kind else NONE,
        "throughput": lambda own: _size(own.spec.rate and 8 * own.spec.rate, 1e6) + " Mbit/s",
        "confidence": lambda own: YOURS,
    },
    "models": {
        "model": lambda own: own.name,
        "layers": lambda own: str(own.spec.layers or NONE),
        "confidence": lambda own: YOURS,
    },
}
