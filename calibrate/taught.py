"""What calibrated devices teach of one that was not measured: how far off what is said of it will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from calibrate.calibration import Calibration
from calibrate.parameters import BATCH_COST, layer_time
from calibrate.prior import POOLING_LOG_SD
from simulator import catalog
from simulator.laws.law import Floats
from simulator.scenario import DeviceSpec, Scenario, SpeedSpec

__all__ = ["Lesson", "in_words", "lesson_for", "source_of", "taught"]

LONELY_LOG_SD = 0.3
"""How far an engine's speed may be from the catalogue's on a device when a single calibrated device showed
how far it is on that one. Assumed.
"""


@dataclass(frozen=True, slots=True)
class Lesson:
    """How far what was said of a device is off, by what calibrated devices teach."""

    logs: Floats
    """Logarithm of true over said seconds per layer in each joint draw, shape (draws,)."""
    slower: float
    """The same at the fitted values."""
    log_sd: float
    """Of the device's own part beside that."""
    prefill_ratio: float
    """True over said flop/s of a prompt."""
    prefill_log_sd: float | None
    """How sure that is; None where the catalogue said it, whose prompts nobody here corrects."""


def source_of(calibration: Calibration, name: str, device: DeviceSpec) -> str | None:
    """The calibrated device that stands for this one: of the same name, else of the same kind."""
    if calibration.value(layer_time(name)) is not None:
        return name
    alike = (
        other
        for other, kind in calibration.kinds.items()
        # two devices without a kind are not alike: nothing is known of either
        if kind != "unknown" and kind == device.kind and calibration.value(layer_time(other)) is not None
    )
    return next(alike, None)


def lesson_for(
    calibration: Calibration, full: Scenario, own: Mapping[str, SpeedSpec | None], name: str
) -> Lesson | None:
    """What calibrated devices teach about the speed of one that was not measured; None where none can.

    A person who was wrong about four devices is wrong about the fifth, and an engine that gets less of their
    peak from four gets less from the fifth. So those teach whose figure comes from the same hand (the
    scenario's or the catalogue's), of the same platform where there are any.
    """
    hand = _hand(own[name])
    if hand == "measured":
        return None  # others' guesses say nothing of what was measured, in the scenario or by a benchmark
    is_told = hand == "told"
    said = {
        other: _layer_s(calibration, spec)
        for other, spec in full.devices.items()
        if _hand(own[other]) == hand
    }
    if not is_told:
        # what the catalogue had said of devices that are not in this scenario
        said |= calibration.catalogue_layer_s
    known = {other: source for other in said if (source := _fitted_as(calibration, full, other)) is not None}
    platform = full.devices[name].platform
    near = [one for one in known if one in full.devices and full.devices[one].platform == platform]
    peers = near or list(known)
    if not peers:
        return None
    draws = [
        np.log(np.maximum(calibration.column(layer_time(known[one])), 1e-9) / said[one]) for one in peers
    ]
    points = np.log([calibration.point(layer_time(known[one])) / said[one] for one in peers])
    unlike = _unlike(full, name, is_told=is_told)
    # what they differ by, and what such devices usually differ by as one device more; the mean is as unsure
    scatter = (unlike**2 + float(np.sum((points - points.mean()) ** 2))) / len(points)
    here = [one for one in peers if one in full.devices]
    # what the catalogue doubts of a chip stays; a person's own doubt is settled by how wrong the others were
    left = 0.0 if is_told else _left_of_spread(full.devices[name])
    return Lesson(
        logs=np.mean(draws, axis=0),
        slower=float(points.mean()),
        log_sd=hypot((scatter * (1 + 1 / len(points))) ** 0.5, left),
        prefill_ratio=_prefill_ratio(calibration, full, here) if is_told else 1.0,
        prefill_log_sd=hypot(calibration.prefill_log_sd, unlike) if is_told else None,
    )


def _hand(speed: SpeedSpec | None) -> str:
    """Who says a device's speed."""
    # a complete scenario writes the catalogue's figures out; only those are shared with a kind or a platform
    if speed is None or speed.decode_shared:
        return "catalogue"
    return "told" if speed.label == "assumed" else "measured"


def _unlike(full: Scenario, name: str, *, is_told: bool) -> float:
    """How far two devices usually are from each other in what is wrong about them (log sd)."""
    if is_told and full.shared_host is not None:
        return POOLING_LOG_SD  # one machine plays both
    speed = full.devices[name].speed
    said = speed.decode_spread if speed else None
    return (said or catalog.said_log_sd("decode", measured=False)) if is_told else LONELY_LOG_SD


def _left_of_spread(device: DeviceSpec) -> float:
    """What a device's spread leaves beside its shared parts, which are drawn for all who share them."""
    speed = device.speed
    shared = sum(part.spread**2 for part in speed.decode_shared) if speed else 0.0
    return float(np.sqrt(max(0.0, ((speed.decode_spread if speed else None) or 0.0) ** 2 - shared)))


def _layer_s(calibration: Calibration, device: DeviceSpec) -> float:
    """Seconds per layer of the model that was measured, as it is said of a device."""
    assert device.speed is not None
    return calibration.layer_bytes / device.speed.decode_bandwidth + device.speed.layer_overhead


def _fitted_as(calibration: Calibration, full: Scenario, name: str) -> str | None:
    if name in full.devices:
        return source_of(calibration, name, full.devices[name])
    return name if calibration.value(layer_time(name)) is not None else None


def _prefill_ratio(calibration: Calibration, full: Scenario, peers: Sequence[str]) -> float:
    """How much faster prompts were read than these devices were said to read them."""
    said = [speed.prefill_flops for peer in peers if (speed := full.devices[peer].speed) is not None]
    return calibration.prefill_flops / float(np.exp(np.mean(np.log(said)))) if said else 1.0


def in_words(lesson: Lesson | None) -> str:
    """What was done to a device that was not calibrated."""
    if lesson is None:
        return "kept as it is"
    way = "slower" if lesson.slower > 0 else "faster"
    return f"made {np.exp(abs(lesson.slower)):.3g} times {way} as the calibrated devices were found to be"


def taught(calibration: Calibration, device: DeviceSpec, lesson: Lesson) -> DeviceSpec:
    """A device that was not measured, by what others taught; the posterior's draws say how sure that is."""
    assert device.speed is not None
    slower = float(np.exp(lesson.slower))
    changes: dict[str, Any] = {
        "decode_bandwidth": device.speed.decode_bandwidth / slower,
        "layer_overhead": device.speed.layer_overhead * slower,
        "batch_cost": calibration.value(BATCH_COST) or device.speed.batch_cost,
    }
    if lesson.prefill_log_sd is not None:
        # a person's figures: whatever was unsure about them is in what was taught
        changes |= {
            "prefill_flops": device.speed.prefill_flops * lesson.prefill_ratio,
            "decode_spread": 0.0,
            "decode_shared": (),
            "prefill_spread": lesson.prefill_log_sd,
            "prefill_shared": (),
        }
    return device.model_copy(update={"speed": device.speed.model_copy(update=changes)})
