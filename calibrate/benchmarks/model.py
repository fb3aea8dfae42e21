"""Which model a benchmark ran: the catalogue's by its name and size, else one by the file's own numbers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from calibrate.benchmarks.record import Record
from simulator import catalog
from simulator.errors import CatalogError, MeasurementError
from simulator.scenario import ModelSpec
from simulator.units import format_bytes

__all__ = ["model_of"]

SIZE_TOLERANCE = 0.1
"""By how much a file and the catalogue's model of its name may differ: another model differs by more, another
build of the same one by less."""


def model_of(record: Record, model: str | None, quantisation: str | None) -> tuple[ModelSpec, str]:
    """The model of a run, the catalogue's where that is of the size measured, and what of it to doubt.

    `model` and `quantisation` replace what the record says. Raises MeasurementError where that is not enough.
    """
    for facts, is_told in _readings(record, model, quantisation):
        doubt = _other_size(record, facts)
        if not is_told and not record.model_bytes:
            raise MeasurementError(
                f"{record.place}: {record.tool} does not say how {facts.name} was quantised; give "
                "--quantisation NAME (`sim catalog quantisations`)"
            )
        if not doubt or model:
            return ModelSpec(name=facts.name, quantisation=facts.quantisation), doubt
    return _by_numbers(record, model or record.model), _doubt_of_numbers(record)


def _readings(
    record: Record, model: str | None, quantisation: str | None
) -> Iterator[tuple[catalog.ModelFacts, bool]]:
    """What the name may mean to the catalogue, and whether its quantisation is told or the usual one."""
    stem = PurePosixPath((model or record.model).replace("\\", "/")).name.removesuffix(".gguf")
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
