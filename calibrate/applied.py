"""Put a calibration into a scenario: fitted speeds for the devices that were measured, a
scaled catalogue for others.

The result is an ordinary Scenario, complete and self-sufficient: the simulator never sees a Calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import hypot

import numpy as np

from calibrate.calibration import Calibration
from calibrate.links import MeasuredLinks, with_links
from calibrate.parameters import (
    BATCH_COST,
    CONTENTIONS,
    CONTEXT_COST,
    HOP_OVERHEAD,
    STEP_OVERHEAD,
    kind_of_parameter,
    layer_time,
)
from calibrate.taught import Lesson, in_words, lesson_for, source_of, taught
from simulator.cluster.cluster import Device
from simulator.complete import complete
from simulator.engine.base import engine
from simulator.errors import CalibrationError
from simulator.hosts import one_processor_each
from simulator.laws.factors import device_factor, engine_factor
from simulator.laws.law import Floats
from simulator.prepare import ground
from simulator.result.estimate import rounded
from simulator.runtime.cost import prefill_s
from simulator.scenario import DeviceSpec, ModelSpec, NoiseSpec, PosteriorSpec, Scenario, SharedHostSpec
from simulator.units import MOST_LOG_SD

__all__ = ["Applied", "apply"]

MOST_DRAWS = 200
"""Joint draws kept in a scenario; as many as the usual replications."""
LESSON_SEED = 0x7A76
"""Of the own parts of devices that were not measured: a stream apart from the bootstrap's."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The scenario with fitted laws, and what the reader should know about it."""

    scenario: Scenario
    warnings: tuple[str, ...]


def apply(calibration: Calibration, scenario: Scenario) -> Applied:
    """The scenario with every number that the calibration knows; labels say which.

    Raises CalibrationError where engine differs: what one engine costs says nothing of another.
    """
    one_processor_each(scenario, "a calibration", ", or predict without the calibration")
    scenario, link_notes = _linked(calibration, scenario)
    own = {name: device.speed for name, device in scenario.devices.items()}
    full = complete(scenario)  # which resolves another name of the engine too
    if calibration.engine != engine(full.engine.name).software:
        raise CalibrationError(
            f"the calibration is of engine {calibration.engine}, the scenario runs "
            f"{full.engine.name}; calibrate that engine, or change the scenario"
        )
    devices, lessons, warnings = {}, dict[str, Lesson](), [*link_notes, *_extrapolations(calibration, full)]
    for name, device in full.devices.items():
        source = source_of(calibration, name, device)
        if source is not None:
            devices[name] = _calibrated(calibration, device, source, full.model)
            continue
        lesson = lesson_for(calibration, full, own, name)
        devices[name] = device
        if lesson is not None:
            lessons[name] = lesson
            devices[name] = _noisy(calibration, taught(calibration, device, lesson))
        said = "the catalogue's" if own[name] is None else "the scenario's"
        warnings.append(f"{name}: not calibrated; its speed is {said}, {in_words(lesson)}")
    fitted = full.model_copy(update={"devices": devices})
    return Applied(
        fitted.model_copy(
            update={
                "engine": full.engine.model_copy(
                    update={
                        "step_overhead": calibration.point(STEP_OVERHEAD, full.engine.step_overhead),
                        "hop_overhead": calibration.point(HOP_OVERHEAD, full.engine.hop_overhead),
                        "request_overhead": calibration.request_overhead_s or full.engine.request_overhead,
                        # what was fitted has its draws; a spread on top would count the same doubt twice
                        "overhead_spread": 0.0,
                        "hop_spread": None,
                        "label": "calibrated",
                    }
                ),
                "common_noise": NoiseSpec(
                    sigma=calibration.noise.common_sigma,
                    correlation=calibration.noise.correlation,
                    run_sigma=calibration.noise.run_sigma,
                    # what is predicted is another session, of another hour
                    session_sigma=min(
                        MOST_LOG_SD, hypot(calibration.noise.session_sigma, calibration.noise.hour_sigma)
                    ),
                    pauses_per_s=calibration.noise.pauses_per_s,
                    pause=f"{calibration.noise.pause_s} s",
                ),
                "posterior": _posterior(calibration, fitted, lessons),
                "shared_host": _shared_host(calibration, full),
            }
        ),
        tuple(warnings),
    )


def _linked(calibration: Calibration, scenario: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with the calibration's measured links, where it has the devices and says no better.

    A link that the scenario calls measured is what the user asks about: another room, a cable.
    """
    links = calibration.links
    names = {name for name, device in scenario.devices.items() if device.link.label != "measured"}
    if links is None or not names & {*links.links, *(end for wire in links.wires for end in wire.between)}:
        return scenario, ()
    known = MeasuredLinks(
        links={name: link for name, link in links.links.items() if name in names},
        wires=tuple(wire for wire in links.wires if set(wire.between) <= names),
    )
    if not known.links and not known.wires:
        return scenario, ()
    return with_links(scenario, known)


def _calibrated(calibration: Calibration, device: DeviceSpec, source: str, model: ModelSpec) -> DeviceSpec:
    assert device.speed is not None
    bytes_per_s = calibration.layer_bytes / calibration.point(layer_time(source))
    read_bytes = model.active_layer_bytes or model.layer_bytes
    decode_flops = (model.layer_flops or 0.0) * bytes_per_s / read_bytes if read_bytes else 0.0
    speed = device.speed.model_copy(
        update={
            "decode_bandwidth": bytes_per_s,
            # not below what it does while it decodes (see `forward`)
            "prefill_flops": max(calibration.prefill_flops, decode_flops),
            "prompt_attention_cost": calibration.prefill_attention_cost or device.speed.prompt_attention_cost,
            # the fitted time per layer holds it already (see `forward`)
            "layer_overhead": 0.0,
            # what a server does for a request is in what a message costs
            "serving_overhead": 0.0,
            "context_cost": calibration.value(CONTEXT_COST) or device.speed.context_cost,
            "batch_cost": calibration.value(BATCH_COST) or device.speed.batch_cost,
            "decode_spread": 0.0,  # the posterior's draws say it
            "decode_shared": (),
            # where the posterior's draws do not
            "prefill_spread": 0.0 if calibration.prefill_draws else calibration.prefill_log_sd,
            "prefill_shared": (),
            "prefill_latent_spread": 0.0,
            "label": "calibrated",
        }
    )
    return _noisy(calibration, device.model_copy(update={"speed": speed}))


def _shared_host(calibration: Calibration, scenario: Scenario) -> SharedHostSpec | None:
    name = _contention(calibration)
    if scenario.shared_host is None or name is None:
        return scenario.shared_host
    return scenario.shared_host.model_copy(update={"contention": rounded(calibration.point(name))})


def _contention(calibration: Calibration) -> str | None:
    """What this engine's cost of sharing a machine is called, None where it was not fitted."""
    return next((name for name in CONTENTIONS if calibration.value(name) is not None), None)


def _noisy(calibration: Calibration, device: DeviceSpec) -> DeviceSpec:
    noise = NoiseSpec(sigma=calibration.noise.own_sigma, correlation=calibration.noise.correlation)
    return device.model_copy(update={"noise": noise})


def _posterior(calibration: Calibration, scenario: Scenario, lessons: Mapping[str, Lesson]) -> PosteriorSpec:
    """The joint draws as factors of the point values, under the simulator's names."""
    columns: dict[str, Floats] = {}
    for number, (name, lesson) in enumerate(lessons.items()):
        # with the draws of those that taught: where their layers are fast and the engine slow, so is this one
        generator = np.random.default_rng(np.random.SeedSequence((LESSON_SEED, number)))
        own_part = generator.normal(0, lesson.log_sd, len(calibration.draws))
        columns[device_factor(name, "decode")] = np.exp(lesson.logs - lesson.slower + own_part)
    for name, device in scenario.devices.items():
        source = source_of(calibration, name, device)
        if source is not None:
            fitted = layer_time(source)
            columns[kind_of_parameter(fitted).factor(name)] = _factors(calibration, fitted)
    for shared in _shared(calibration, scenario):
        columns[kind_of_parameter(shared).factor("")] = _factors(calibration, shared)
    if calibration.prefill_draws:
        columns |= _first_tokens(calibration, scenario)
    # whole rows: parameters that trade against each other in the fit must do so in the prediction
    kept = np.column_stack(list(columns.values()))[:MOST_DRAWS]
    return PosteriorSpec(names=tuple(columns), draws=tuple(tuple(map(rounded, row)) for row in kept.tolist()))


def _first_tokens(calibration: Calibration, fitted: Scenario) -> dict[str, Floats]:
    """What multiplies the reading of this scenario's prompt, and the host's work for it, in each joint draw.

    One session for all devices: what a host does beside reading slows down all that it plays or waits for.
    """
    products, attention, reading, request = np.array(calibration.prefill_draws).T
    found, tokens = ground(fitted), fitted.workload.prompt_tokens
    layer = found.model.average(1)
    columns = {engine_factor("request"): request} if calibration.request_overhead_s else {}
    for name, spec in fitted.devices.items():
        if source_of(calibration, name, spec) is None:
            continue
        device = found.cluster.device(name)
        seconds = [
            prefill_s(_reading_at(device, *drawn), layer, tokens)
            for drawn in zip(products.tolist(), attention.tolist(), strict=True)
        ]
        columns[device_factor(name, "prefill")] = reading * seconds / prefill_s(device, layer, tokens)
    return columns


def _reading_at(device: Device, products: float, attention: float) -> Device:
    """The device where matrix products and attention take so many times as long."""
    speed = device.speed
    changes = {
        "prefill_flops": speed.prefill_flops / products,
        "prompt_attention_cost": speed.prompt_attention_cost * attention / products,
    }
    return replace(device, speed=speed.model_copy(update=changes))


def _shared(calibration: Calibration, scenario: Scenario) -> Iterator[str]:
    """Parameters that all devices share and that the scenario takes from the calibration."""
    yield from (name for name in (STEP_OVERHEAD, HOP_OVERHEAD) if calibration.value(name) is not None)
    # a cost fitted to be zero leaves the device's own in place (`_calibrated`), and draws are factors of that
    yield from (name for name in (CONTEXT_COST, BATCH_COST) if calibration.value(name))
    contention = _contention(calibration)
    if scenario.shared_host is not None and contention is not None:
        yield contention


def _factors(calibration: Calibration, name: str) -> Floats:
    point = calibration.point(name)
    draws = calibration.column(name)
    # a factor is positive by definition, a drawn overhead may be zero
    return np.clip(draws / point, 1e-6, 1e6) if point > 0 else np.ones_like(draws)


def _extrapolations(calibration: Calibration, scenario: Scenario) -> list[str]:
    """Where the scenario leaves what was measured."""
    low, high = calibration.context_range
    end = scenario.workload.prompt_tokens + scenario.workload.output_tokens
    found = []
    # the cost of a context is linear in its length (`cost.decode_s`), so that some way beyond is safe
    if end > 2 * high:
        found.append(f"extrapolation: contexts up to {end} tokens, measured were {low:.0f} to {high:.0f}")
    batches = next((parameter.n for parameter in calibration.parameters if parameter.name == BATCH_COST), 0)
    if scenario.workload.concurrency > 1 and batches == 0:
        found.append(
            "extrapolation: several chats at once, none were measured; the cost of a batch is a guess"
        )
    layer_bytes = scenario.model.layer_bytes or calibration.layer_bytes
    # bytes scale, what an engine does once per layer does not: beyond a factor of two that shows
    if not 0.5 < layer_bytes / calibration.layer_bytes < 2:
        found.append(
            f"extrapolation: layers of {layer_bytes / 1e6:.0f} MB, measured were "
            f"{calibration.layer_bytes / 1e6:.0f} MB; fixed costs per layer scale wrongly with the bytes"
        )
    return found
