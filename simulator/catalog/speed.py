"""Platforms: how much of a device's peak an engine really gets, fitted to published measurements.

`scripts/fit_catalog.py` makes the figures and their held-out errors; `results/catalog/README.md` shows them.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from simulator.catalog.hardware import DeviceFacts, kind_of
from simulator.catalog.tables import Facts, Row, number, pick, table

__all__ = [
    "DecodeSpeed",
    "ErrorParts",
    "HeldOut",
    "PlatformFacts",
    "decode_speed",
    "error_parts",
    "platform",
    "platforms",
]

# for a phase that nobody measured on a platform: a third of
# the peak, and nine tenths of devices within a factor of 3
UNMEASURED_PREFILL_EFFICIENCY, UNMEASURED_LOG_SD = 0.33, 0.65


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

    decode: seconds per token = (mixture_cost * active bytes + kv_cost * KV bytes) / (decode_efficiency * peak
    bytes/s) + layers * layer_overhead_s; prefill: seconds per token = prefill_mixture_cost * flops /
    (prefill_efficiency * peak flop/s). The mixture costs apply to mixtures of experts only.
    """

    name: str
    title: str
    runtime: str
    decode_efficiency: float
    decode_log_sd: float
    decode_mixture_cost: float
    layer_overhead_s: float
    kv_cost: float
    prefill_efficiency: float
    prefill_log_sd: float
    prefill_mixture_cost: float
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
    """

    platform: float
    kind: float
    model: float
    own_log_sd: float


class DecodeSpeed(Facts):
    """Effective bytes/s of reading weights, the spread of its natural logarithm, and where it comes from."""

    bytes_per_s: float
    log_sd: float
    label: Literal["measured", "assumed"]


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


def decode_speed(facts: DeviceFacts, on: PlatformFacts) -> DecodeSpeed:
    """How fast `facts` reads weights on a platform: its own
    measured value if there is one, else the platform's share.

    A measured value holds only together with the layer overhead of the runtime that it was measured with, so
    another runtime or another platform of the device gets the platform's share of the peak.
    """
    measured, spread = facts.measured_decode_bytes_per_s, facts.measured_decode_log_sd
    if measured and spread and (facts.platform, facts.measured_decode_runtime) == (on.name, on.runtime):
        return DecodeSpeed(bytes_per_s=measured, log_sd=spread, label="measured")
    share = facts.memory_bytes_per_s * on.decode_efficiency
    return DecodeSpeed(bytes_per_s=share, log_sd=on.decode_log_sd, label="assumed")


@cache
def error_parts(phase: Literal["decode", "prefill"]) -> ErrorParts:
    """How the error of a phase splits up, by a hierarchical fit to published single-device rates."""
    row = next(row for row in table("error_parts") if row["phase"] == phase)
    shares = {part: float(row[f"{part}_share"]) for part in ("platform", "kind", "model")}
    return ErrorParts(**shares, own_log_sd=float(row["own_log_sd"]))


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
        prefill_efficiency=number(usual, "prefill_efficiency") or UNMEASURED_PREFILL_EFFICIENCY,
        prefill_log_sd=number(usual, "prefill_log_sd") or UNMEASURED_LOG_SD,
        prefill_mixture_cost=number(usual, "prefill_mixture_cost") or 1.0,
        noise_cv=float(kind["noise_cv"]),
        n_decode_rows=int(row["decode_rows"]),
        n_decode_chips=int(row["decode_chips"]),
        n_prefill_rows=int(usual["prefill_rows"] or 0),
        n_prefill_chips=int(usual["prefill_chips"] or 0),
        decode_held_out=_held_out(row, "decode"),
        prefill_held_out=_held_out(usual, "prefill"),
        disk_bytes_per_s=float(kind["disk_bytes_per_s"]),
        flop_per_byte=float(kind["flop_per_byte"]),
        source="scripts/fit_catalog.py on llamacpp_single_device.csv; " + kind["source"],
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
