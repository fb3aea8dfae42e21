"""Platforms: how much of a device's peak an engine really gets, fitted to published measurements.

`scripts/fit_catalog.py` makes the figures and their held-out errors; `results/catalog/README.md` shows them.
"""

from __future__ import annotations

import re
from functools import cache
from math import hypot, log
from typing import Literal

from simulator.catalog.hardware import DeviceFacts, kind_of
from simulator.catalog.llm import Bits
from simulator.catalog.tables import Facts, Row, number, pick, table

__all__ = [
    "DecodeSpeed",
    "ErrorParts",
    "HeldOut",
    "PlatformFacts",
    "PrefillSpeed",
    "decode_speed",
    "error_parts",
    "generation_of",
    "layer_overhead_s",
    "matrix_peak",
    "peak_flop_per_s",
    "platform",
    "platforms",
    "prefill_speed",
    "unpacking_share",
]

Phase = Literal["decode", "prefill"]
USUAL_BYTES_PER_S = 300e9
"""Bandwidth of the chip whose layer overhead a platform states, as in scripts/fit_catalog_model.py."""
# for a phase that nobody measured on a platform: a third of
# the peak, and nine tenths of devices within a factor of 3
UNMEASURED_PREFILL_EFFICIENCY, UNMEASURED_LOG_SD = 0.33, 0.65
UNMEASURED_GENERATION_LOG_SD = 0.3
"""Of a generation's factor that nobody measured with a runtime, as scripts/fit_catalog_model.py believes."""


class HeldOut(Facts):
    """Errors on chips that were not in the fit: |predicted/measured
    - 1|, and how often an interval held the truth.
    """

    median_error: float
    p90_error: float
    coverage_50: float
    coverage_80: float
    coverage_90: float


class PlatformFacts(Facts):
    """Effective speed of a kind of device, as shares of its peaks. Spreads are of natural logarithms.

    decode: seconds per token = (mixture_cost * active bytes + kv_cost * KV bytes) / what `decode_speed` says
    + layers * (what `layer_overhead_s` says, times mixture_layer_cost); prefill: seconds per token =
    prefill_mixture_cost * (1 + prefill_expert_fill / tokens that an expert gets) * prefill_latent_cost *
    flops / (prefill_efficiency * peak flop/s). The mixture costs apply to mixtures of experts only, the
    latent one to latent attention.
    """

    name: str
    title: str
    runtime: str
    decode_efficiency: float
    decode_log_sd: float
    decode_mixture_cost: float
    layer_overhead_s: float
    """Of a chip of 300 GB/s; see `layer_overhead_s`."""
    kv_cost: float
    unpacking_plain: float
    unpacking_nested: float
    size_factor: float
    mixture_layer_cost: float
    prefill_efficiency: float
    prefill_log_sd: float
    prefill_mixture_cost: float
    prefill_expert_fill: float
    prefill_latent_cost: float
    noise_cv: float
    n_decode_rows: int
    n_decode_chips: int
    n_prefill_rows: int
    n_prefill_chips: int
    decode_held_out: HeldOut | None
    prefill_held_out: HeldOut | None
    disk_bytes_per_s: float
    flop_per_byte: float
    source: str
    assumed_fields: tuple[str, ...]


class ErrorParts(Facts):
    """Shares of the variance of a device's log error, by who else has that part too; they add up to 1.

    `platform` is what all devices of one platform in one scenario have in common: the fitted efficiency, and
    the version and settings of the engine; `kind` the chip; `model` how that platform takes to the model.
    `own_log_sd` comes out of all three: by how much two specimens of one kind differ, in silicon and heat.
    `latent_log_sd` comes on top of them for models with latent attention, of which few rows are known, and
    `field_log_sd` for all: by how much runs at people's homes differ beyond that from the benchmarks that
    were fitted (start-up counted in, versions, settings, templates), all devices of a run alike.
    """

    platform: float
    kind: float
    model: float
    own_log_sd: float
    latent_log_sd: float
    field_log_sd: float


class DecodeSpeed(Facts):
    """Effective bytes/s of reading weights, the spread of its natural logarithm, and where it comes from."""

    bytes_per_s: float
    log_sd: float
    label: Literal["measured", "assumed"]


class PrefillSpeed(Facts):
    """Effective flop/s of reading prompts, and the spread of its natural logarithm."""

    flop_per_s: float
    log_sd: float


@cache
def platforms() -> tuple[PlatformFacts, ...]:
    """All platforms, one entry per runtime that was measured there; the usual runtime comes first."""
    rows = sorted(table("platforms"), key=lambda row: (row["platform"], row["runtime"] != "llama.cpp"))
    return tuple(_facts(row) for row in rows)


def platform(name: str, runtime: str | None = None) -> PlatformFacts:
    """The platform called `name` with `runtime` ('llama.cpp', 'mlx').

    Without a runtime, or with one that nobody measured there, the platform's usual runtime answers: look at
    `.runtime`. Raises CatalogError for an unknown platform.
    """
    found = pick("platform", name, platforms(), lambda facts: (facts.name,))
    return next((facts for facts in found if facts.runtime == runtime), found[0])


@cache
def _row_of(name: str, chip: str, **where: str) -> Row | None:
    """The first row of a table of kinds of chips that is of these columns, and whose pattern the chip has."""
    rows = (row for row in table(name) if all(row[column] == value for column, value in where.items()))
    return next((row for row in rows if re.search(row["pattern"], chip)), None)


def unpacking_share(platform: str, runtime: str, chip: str) -> float:
    """What of the work of unpacking a chip is not spared by doing it beside its multiplications."""
    row = _row_of("unpacking", chip, platform=platform, runtime=runtime)
    return float(row["share"]) if row else 1.0


def generation_of(platform: str, chip: str, phase: Phase) -> str:
    """The generation of a chip where those of its platform differ in that phase, else ''."""
    row = _row_of("generations", chip, platform=platform, phase=phase)
    return row["generation"] if row else ""


def matrix_peak(platform: str, chip: str) -> float:
    """How many times the flop/s of its shaders, which the catalogue has, a chip's matrix units reach: 1 where
    it has none, or where what the catalogue has are theirs.
    """
    row = _row_of("generations", chip, platform=platform, phase="prefill")
    return float(row["matrix_peak"]) if row else 1.0


def _generation_factor(chip: str, on: PlatformFacts, phase: Phase) -> float | None:
    """The fitted factor of a chip's generation, None of one that nobody measured with the runtime."""
    generation = generation_of(on.name, chip, phase)
    key = (on.name, on.runtime, phase, generation)
    columns = ("platform", "runtime", "phase", "generation")
    rows = (row for row in table("generation_speeds") if tuple(row[name] for name in columns) == key)
    return next((float(row["factor"]) for row in rows), None if generation else 1.0)


def layer_overhead_s(facts: DeviceFacts, on: PlatformFacts) -> float:
    """Fixed time per layer and token: a larger chip takes longer to start and to fill, as a power of its
    bandwidth over that of a chip in the middle.
    """
    of_chip: float = (facts.memory_bytes_per_s / USUAL_BYTES_PER_S) ** log(on.size_factor)
    return on.layer_overhead_s * of_chip


def decode_speed(facts: DeviceFacts, on: PlatformFacts, stored: Bits | None = None) -> DecodeSpeed:
    """How fast `facts` reads and unpacks weights on a platform, `1 / (1 / read + u * flops per byte / peak
    flop/s)`: read is its own measured value if there is one, else the platform's share of its bandwidth; u,
    how many flops unpacking costs for one of the model, is 0 for 16 bits and without `stored`.

    A measured value holds only together with the layer overhead of the runtime that it was measured with, so
    another runtime or another platform of the device gets the platform's share of the peak.
    """
    measured, spread = facts.measured_decode_bytes_per_s, facts.measured_decode_log_sd
    of_generation = _generation_factor(facts.chip, on, "decode") or 1.0
    share = facts.memory_bytes_per_s * on.decode_efficiency * of_generation
    cost = {"none": 0.0, "plain": on.unpacking_plain, "nested": on.unpacking_nested}
    flop_per_s = peak_flop_per_s(facts, on)
    work_s = cost[stored.unpacking] * stored.flops_per_byte / flop_per_s if stored else 0.0
    work_s *= unpacking_share(on.name, on.runtime, facts.chip)
    unpacked = 1 / (1 / share + work_s)
    if measured and spread and (facts.platform, facts.measured_decode_runtime) == (on.name, on.runtime):
        # what was measured is by how much the chip is off its platform, in all that a byte takes
        return DecodeSpeed(bytes_per_s=measured / share * unpacked, log_sd=spread, label="measured")
    return DecodeSpeed(bytes_per_s=unpacked, log_sd=on.decode_log_sd, label="assumed")


def prefill_speed(facts: DeviceFacts, on: PlatformFacts) -> PrefillSpeed:
    """How fast `facts` computes a prompt on a platform: its own measured value if there is one for
    the runtime, else the platform's share of the peak of its matrix units, or of its shaders without any.
    """
    measured, spread = facts.measured_prefill_flop_per_s, facts.measured_prefill_log_sd
    if measured and spread and (facts.platform, facts.measured_prefill_runtime) == (on.name, on.runtime):
        return PrefillSpeed(flop_per_s=measured, log_sd=spread)
    share = peak_flop_per_s(facts, on) * matrix_peak(on.name, facts.chip) * on.prefill_efficiency
    of_generation = _generation_factor(facts.chip, on, "prefill")
    if of_generation is None:
        unknown = hypot(on.prefill_log_sd, UNMEASURED_GENERATION_LOG_SD)
        return PrefillSpeed(flop_per_s=share, log_sd=unknown)
    return PrefillSpeed(flop_per_s=share * of_generation, log_sd=on.prefill_log_sd)


def peak_flop_per_s(facts: DeviceFacts, on: PlatformFacts) -> float:
    """Peak flop/s of a device on a platform."""
    # a chip's published flop/s are those of its usual platform; elsewhere its bandwidth tells better
    return facts.flop_per_s if on.name == facts.platform else facts.memory_bytes_per_s * on.flop_per_byte


@cache
def error_parts(phase: Phase) -> ErrorParts:
    """How the error of a phase splits up, by a hierarchical fit to published single-device rates."""
    row = next(row for row in table("error_parts") if row["phase"] == phase)
    shares = {part: float(row[f"{part}_share"]) for part in ("platform", "kind", "model")}
    field = (float(one["log_sd"]) for one in table("field_spread") if one["phase"] == phase)
    return ErrorParts(
        **shares,
        own_log_sd=float(row["own_log_sd"]),
        latent_log_sd=float(row["latent_log_sd"]),
        field_log_sd=next(field, 0.0),
    )


def _facts(row: Row) -> PlatformFacts:
    kind = kind_of(row["platform"])
    usual = _usual_prefill(row)
    assumed = ["noise_cv", *([] if usual["prefill_efficiency"] else ["prefill_efficiency", "prefill_log_sd"])]
    return PlatformFacts(
        name=row["platform"],
        title=kind["title"],
        runtime=row["runtime"],
        decode_efficiency=float(row["decode_efficiency"]),
        decode_log_sd=float(row["decode_log_sd"]),
        decode_mixture_cost=float(row["decode_mixture_cost"]),
        layer_overhead_s=float(row["layer_overhead_s"]),
        kv_cost=float(row["kv_cost"]),
        unpacking_plain=float(row["unpacking_plain"]),
        unpacking_nested=float(row["unpacking_nested"]),
        size_factor=float(row["size_factor"]),
        mixture_layer_cost=float(row["mixture_layer_cost"]),
        prefill_efficiency=number(usual, "prefill_efficiency") or UNMEASURED_PREFILL_EFFICIENCY,
        prefill_log_sd=number(usual, "prefill_log_sd") or UNMEASURED_LOG_SD,
        prefill_mixture_cost=number(usual, "prefill_mixture_cost") or 1.0,
        prefill_expert_fill=number(usual, "prefill_expert_fill") or 0.0,
        prefill_latent_cost=number(usual, "prefill_latent_cost") or 1.0,
        noise_cv=float(kind["noise_cv"]),
        n_decode_rows=int(row["decode_rows"]),
        n_decode_chips=int(row["decode_chips"]),
        n_prefill_rows=int(usual["prefill_rows"] or 0),
        n_prefill_chips=int(usual["prefill_chips"] or 0),
        decode_held_out=_held_out(row, "decode"),
        prefill_held_out=_held_out(usual, "prefill"),
        disk_bytes_per_s=float(kind["disk_bytes_per_s"]),
        flop_per_byte=float(kind["flop_per_byte"]),
        source="scripts/fit_catalog.py; " + kind["source"],
        assumed_fields=tuple(assumed),
    )


def _usual_prefill(row: Row) -> Row:
    """The row itself, or that of another runtime on the platform when only there prompts were measured."""
    if row["prefill_efficiency"]:
        return row
    others = [
        other
        for other in table("platforms")
        if other["platform"] == row["platform"] and other["prefill_efficiency"]
    ]
    return others[0] if others else row


def _held_out(row: Row, phase: str) -> HeldOut | None:
    """The held-out errors of a phase, None where only one chip was measured."""
    names = ("median", "p90", "50", "80", "90")
    values = [number(row, f"{phase}_held_out_{name}") for name in names]
    if None in values:
        return None
    fields = ("median_error", "p90_error", "coverage_50", "coverage_80", "coverage_90")
    return HeldOut(**{field: float(value or 0) for field, value in zip(fields, values, strict=True)})
