"""Which model a benchmark ran: the catalogue's by its name and size, else one by the file's own numbers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from calibrate.benchmarks.record import Record
from simulator import catalog
from simulator.catalog.tables import normalise
from simulator.engine.base import engine
from simulator.errors import CatalogError, MeasurementError
from simulator.scenario import ModelSpec, Scenario
from simulator.units import format_bytes

__all__ = ["differences", "model_of"]

SIZE_TOLERANCE = 0.1
"""By how much a file and the catalogue's model of its name may differ: another model differs by more, another
build of the same one by less."""


def model_of(record: Record, model: str | None, quantisation: str | None) -> tuple[ModelSpec, str]:
    """The model of a run, the catalogue's where that is of the size measured, and what of it to doubt.

    `model` and `quantisation` replace what the record says. Raises MeasurementError where that is not enough.
    """
    readings = list(_readings(record, model, quantisation))
    if not readings:
        _must_be_known(record, model, quantisation)
    for facts, is_told in readings:
        doubt = _other_size(record, facts)
        if not is_told and not record.model_bytes:
            raise MeasurementError(
                f"{record.place}: {record.tool} does not say how {facts.name} was quantised; give "
                "--quantisation NAME (`sim catalog quantisations`)"
            )
        if not doubt or model:
            return ModelSpec(name=facts.name, quantisation=facts.quantisation), doubt
    return _by_numbers(record, model or record.model), _doubt_of_numbers(record)


def _must_be_known(record: Record, model: str | None, quantisation: str | None) -> None:
    """Refuse what a person said and the catalogue does not know: the file's own numbers are no answer."""
    said = [option for option, value in (("--model", model), ("--quantisation", quantisation)) if value]
    if not said:
        return
    try:
        catalog.model(_stem(model or record.model), quantisation)
    except CatalogError as error:
        own = f"; leave {' and '.join(said)} out to take the file's own numbers" if record.model_bytes else ""
        raise MeasurementError(f"{record.place}: {error}{own}") from None


def _stem(name: str) -> str:
    """A model's name without folders and the ending of a file."""
    return PurePosixPath(name.replace("\\", "/")).name.removesuffix(".gguf")


def _readings(
    record: Record, model: str | None, quantisation: str | None
) -> Iterator[tuple[catalog.ModelFacts, bool]]:
    """What the name may mean to the catalogue, and whether its quantisation is told or the usual one."""
    stem = _stem(model or record.model)
    said = quantisation or record.quantisation
    # cut only before what is a quantisation: 'DeepSeek-R1-Distill-Qwen-7B' is no DeepSeek-R1
    cuts = [mark.start() for mark in re.finditer(r"[-._ ]", stem)][::-1]
    for name, tail in [(stem, said), *((stem[:cut], stem[cut + 1 :]) for cut in cuts)]:
        try:
            if tail:
                facts = catalog.model(name, tail)
                yield catalog.model(name, said) if said else facts, True
        except CatalogError:
            continue
    if not said:
        with contextlib.suppress(CatalogError):
            yield catalog.model(stem, None, "GGUF" if record.runtime == "llama.cpp" else "MLX"), False


def _other_size(record: Record, facts: catalog.ModelFacts) -> str:
    """That the file's own size is not this model's; empty where it is, or is not told."""
    for said, known, what in (
        (record.model_params, facts.params_total, "weights"),
        (record.model_bytes, facts.total_bytes, "bytes"),
    ):
        if said and abs(said / known - 1) > SIZE_TOLERANCE:
            return (
                f"{record.model!r} has {said:.4g} {what} and the catalogue's {facts.name} "
                f"{facts.quantisation} {known:.4g}; name what it is with --model and --quantisation"
            )
    return ""


def differences(records: Sequence[Record], asked: Scenario) -> tuple[str, ...]:
    """What benchmarks ran otherwise than the scenario, as doubts: model, quantisation, what computes."""
    told: dict[str, None] = {}
    own = engine(asked.engine.name).facts
    for record in records:
        if record.runtime != own.runtime:
            tool = f"measured with {record.tool} ({record.runtime})"
            told[f"{tool}, predicted on {own.name} ({own.runtime})"] = None
        for facts, is_told in list(_readings(record, None, None))[:1]:
            told |= dict.fromkeys(_other_model(facts, is_told, asked.model))
        if record.batch > 1:
            told[f"measured with {record.batch} chats at once, and held against the rate of one"] = None
    return tuple(told)


def _other_model(facts: catalog.ModelFacts, is_told: bool, asked: ModelSpec) -> Iterator[str]:
    with contextlib.suppress(CatalogError):
        name = catalog.model(asked.name).name
        if name != facts.name:
            yield f"measured was {facts.name}, predicted is {name}"
        elif (
            is_told and asked.quantisation and normalise(asked.quantisation) != normalise(facts.quantisation)
        ):
            yield f"measured was {name} at {facts.quantisation}, predicted is {asked.quantisation}"


def _by_numbers(record: Record, name: str) -> ModelSpec:
    """A model that the catalogue does not know, from the file's numbers: one layer that is read whole."""
    size, params = record.model_bytes, record.model_params
    if not size or not params:
        known = (
            f"{name!r} is no model of the catalogue"
            if name
            else f"{record.tool} does not say which model it was"
        )
        raise MeasurementError(
            f"{record.place}: {known}; give --model NAME and --quantisation NAME (`sim catalog models`, "
            "`sim catalog quantisations`)"
        )
    return ModelSpec(
        name=name,
        layers=1,
        hidden=1,
        layer_bytes=f"{size} B",
        layer_flops=2 * params,
        kv_bytes_per_token_per_layer=0,
    )


def _doubt_of_numbers(record: Record) -> str:
    return (
        f"{record.model!r} is no model of the catalogue, so it is taken for dense: all "
        f"its {format_bytes(record.model_bytes or 0.0)} are read for each token; else name it with --model"
    )
