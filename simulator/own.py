"""The user's own catalogue: devices, links and models by name, written as a scenario writes them.

A file holds `devices`, `links`, `models` (name: what the scenario may say of one) and `prices` (as for
`sim plan --prices`). What an entry says stands where the scenario says nothing; an entry's own `kind` names
the catalogue's device that fills the rest. Names of the user go before the catalogue's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, field_validator, model_validator

from simulator import catalog
from simulator.catalog.tables import normalise
from simulator.errors import CatalogError, Fault, ScenarioError
from simulator.files import load
from simulator.scenario import DeviceSpec, LinkSpec, ModelSpec, ProcessorSpec, Scenario, WireSpec
from simulator.spec import Spec

__all__ = ["ENVIRONMENT", "UserCatalog", "Yours", "default_file", "own_files", "spelt_out", "yours"]

# an environment variable, so that the worker processes of a sweep know the files too
ENVIRONMENT = "SIM_CATALOG"
WIRE_KEYS = ("delay", "rate", "delay_spread", "rate_spread")


class UserCatalog(Spec):
    """The content of one file."""

    devices: dict[str, DeviceSpec] = Field(default_factory=dict)
    links: dict[str, LinkSpec] = Field(default_factory=dict)
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    prices: dict[str, Any] = Field(default_factory=dict, description="as in a file for sim plan --prices")

    @field_validator("models", mode="before")
    @classmethod
    def _called_by_their_keys(cls, models: Any) -> Any:
        if not isinstance(models, dict):
            return models
        named = {key: {"name": key, **spec} for key, spec in models.items() if isinstance(spec, dict)}
        return {**models, **named}

    @model_validator(mode="after")
    def _names_are_known(self) -> UserCatalog:
        faults = list(self._faults())
        if faults:
            raise ScenarioError("", faults)
        return self

    def _faults(self) -> Iterator[Fault]:
        """Names that the catalogue lacks, and devices that nothing fills."""
        for name, device in self.devices.items():
            at = f"devices.{name}"
            alone = device.processors is None
            if (
                alone
                and device.kind is None
                and (device.speed is None or not (device.memory or device.usable_memory))
            ):
                yield Fault(at, "needs a kind of the catalogue (`sim catalog devices`), or speed and memory")
            yield from _unknown(f"{at}.kind", catalog.device, device.kind)
            yield from _unknown(f"{at}.platform", catalog.platform, device.platform)
            yield from _unknown(f"{at}.link.kind", self._network, device.link.kind)
        for name, link in self.links.items():
            at = f"links.{name}"
            if link.kind is None and (link.delay is None or link.rate is None):
                yield Fault(at, "needs a kind of the catalogue (`sim catalog networks`), or delay and rate")
            yield from _unknown(f"{at}.kind", catalog.network, link.kind)

    def _network(self, kind: str) -> None:
        if _called(self.links, kind) is None:
            catalog.network(kind)


def _unknown(where: str, look_up: Any, name: str | None) -> Iterator[Fault]:
    if name is None:
        return
    try:
        look_up(name)
    except CatalogError as error:
        yield Fault(where, str(error))


class Yours(NamedTuple):
    """An entry of the user, and the file that it stands in."""

    name: str
    spec: Any
    file: Path


def default_file() -> Path:
    """`devices.yaml` in the folder for settings: `$XDG_CONFIG_HOME`, else `~/.config`."""
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (
        (Path(settings) if settings else Path.home() / ".config") / "lan-cluster-simulator" / "devices.yaml"
    )


def own_files() -> tuple[Path, ...]:
    """The user's files, the last one first in rank: the usual one where it is there, those of `--catalog`."""
    given = [Path(part) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    try:
        usual = [file for file in (default_file(),) if file.is_file()]
    except (OSError, RuntimeError):  # no home, or one that may not be read
        usual = []
    return (*usual, *given)


def yours(part: str) -> tuple[Yours, ...]:
    """All entries of `part` (devices, links, models); of one name the one of the last file.

    Raises ScenarioError with every fault of a file.
    """
    found: dict[str, Yours] = {}
    for file in own_files():
        for name, spec in getattr(_content(file), part).items():
            found[normalise(name)] = Yours(name, spec, file)
    return tuple(found.values())


def _content(file: Path) -> UserCatalog:
    try:
        state = file.stat()
    except OSError:
        return load(file, UserCatalog)  # which says best what is wrong
    return _read(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _read(file: Path, _changed_ns: int, _size: int) -> UserCatalog:
    """A file as it was last changed: a notebook sees what is edited meanwhile."""
    content = load(file, UserCatalog)
    models = {name: _from_folder(spec, file.parent) for name, spec in content.models.items()}
    return content.model_copy(update={"models": models})


def _from_folder(spec: ModelSpec, folder: Path) -> ModelSpec:
    paths = {key: getattr(spec, key) for key in ("gguf", "hf_config")}
    return spec.model_copy(update={key: str(folder / path) for key, path in paths.items() if path})


def spelt_out(scenario: Scenario) -> Scenario:
    """`scenario` with what the user's names stand for, so that it runs where the user's files are not.

    Raises ScenarioError with every fault of a file, or where a cable is a link that has only an rtt.
    """
    if not own_files():
        return scenario
    devices, links, models = (
        {e.name: e.spec for e in yours(part)} for part in ("devices", "links", "models")
    )
    entry = _called(models, scenario.model.name)
    told = {name: _device(spec, devices, links) for name, spec in scenario.devices.items()}
    return scenario.model_copy(
        update={
            "model": _over(entry, scenario.model, "name") if entry else scenario.model,
            "devices": told,
            "wires": tuple(_wire(wire, links) for wire in scenario.wires),
        }
    )


def _device(spec: DeviceSpec, devices: Mapping[str, DeviceSpec], links: Mapping[str, LinkSpec]) -> DeviceSpec:
    entry = _called(devices, spec.kind)
    full = _over(entry, spec, "kind") if entry else spec
    if full.processors is not None:
        told = {name: _processor(one, devices) for name, one in full.processors.items()}
        full = full.model_copy(update={"processors": told})
    link = _called(links, full.link.kind)
    return full.model_copy(update={"link": _over(link, full.link, "kind")}) if link else full


def _processor(spec: ProcessorSpec, devices: Mapping[str, DeviceSpec]) -> ProcessorSpec:
    entry = _called(devices, spec.kind)
    if entry is None:
        return spec
    # of a device of the user's own, what a processor has too: neither its link nor its disk
    keys = ("kind", "memory", "usable_memory", "platform", "speed")
    plain = ProcessorSpec.model_construct(**{key: getattr(entry, key) for key in keys})
    return _over(plain, spec, "kind")


def _wire(wire: WireSpec, links: Mapping[str, LinkSpec]) -> WireSpec:
    link = _called(links, wire.kind)
    if link is None:
        return wire
    if link.rtt is not None:
        reason = f"{wire.kind} has an rtt, which is to an access point; give it delay and rate for a cable"
        raise ScenarioError("scenario", [Fault(f"wires {' -- '.join(wire.between)}", reason)])
    told = {key: getattr(link, key) for key in WIRE_KEYS if getattr(wire, key) is None}
    return wire.model_copy(update=told | {"kind": link.kind})


SpecT = TypeVar("SpecT", bound=Spec)


def _called(entries: Mapping[str, SpecT], name: str | None) -> SpecT | None:
    plain = normalise(name or "")
    return next((spec for known, spec in entries.items() if plain and normalise(known) == plain), None)


def _over(entry: SpecT, spec: SpecT, *names: str) -> SpecT:
    """`entry` with all that `spec` says, its `names` apart: those led to the entry.

    What is said may be the default: `allow_paging: false` takes back what the entry allows.
    """
    return entry.model_copy(
        update={key: getattr(spec, key) for key in spec.model_fields_set if key not in names}
    )
