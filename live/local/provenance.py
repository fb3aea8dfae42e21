"""Provenance: the machine, its load and the cluster as they were, collected by code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from live.local.plan import ClusterPlan
from simulator.result.measurement import DeviceProvenance, Provenance, ShardProvenance

__all__ = ["TICKS_PER_S", "LoadMeter", "chip", "collect", "power_source", "process_ticks"]

PACKAGES = ("numpy", "gguf")
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def chip() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else ():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def power_source() -> str:
    """Mains or battery, unknown where the system does not tell."""
    supplies = sorted(Path("/sys/class/power_supply").glob("*/online"))
    states = [supply.read_text(encoding="utf-8").strip() for supply in supplies]
    if not states:
        return "unknown"
    return "mains" if "1" in states else "battery"


def memory_bytes() -> float | None:
    """Installed memory."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def _busy_ticks() -> int | None:
    """CPU ticks that the whole machine has spent at work, stolen ones included:
    nobody here could use them.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    total = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, *others = (int(ticks) for ticks in total[1:9])
    return user + nice + system + sum(others)


def process_ticks(pid: int) -> int:
    """CPU ticks of a process, 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@dataclass(slots=True)
class LoadMeter:
    """How many cores everything but our own processes keeps busy."""

    pids: tuple[int, ...] = ()
    _since: tuple[float, int | None, int] = field(default=(0.0, None, 0))

    def start(self, pids: Iterable[int] = ()) -> None:
        """Begin; `pids` are our processes beside this one."""
        self.pids = (*pids, os.getpid())
        self._since = self._now()

    def _now(self) -> tuple[float, int | None, int]:
        return time.monotonic(), _busy_ticks(), sum(process_ticks(pid) for pid in self.pids)

    def others_cores(self) -> float | None:
        """Mean cores that others kept busy since `start`, None where the system does not tell."""
        (begin_s, busy, own), (end_s, busy_now, own_now) = self._since, self._now()
        if busy is None or busy_now is None or end_s <= begin_s:
            return None
        return max(0.0, (busy_now - busy) - (own_now - own)) / TICKS_PER_S / (end_s - begin_s)


def _versions(of_engine: Mapping[str, str]) -> dict[str, str]:
    found = {"python": platform.python_version(), **of_engine}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def collect(
    plan: ClusterPlan,
    achieved: dict[str, float],
    details: dict[str, dict[str, Any]],
    cluster: dict[str, Any],
    *,
    versions: Mapping[str, str],
    is_local: bool,
    warm_up_requests: int,
) -> Provenance:
    """The header of a Measurement; `achieved` are shares of full speed, `details` what
    else is known of each device, `versions` those of the engine's packages.
    """
    full, model, workload = plan.scenario, plan.prepared.job.model, plan.scenario.workload
    this = {"chip": chip(), "os": f"{platform.system()} {platform.release()}", "power_source": power_source()}
    # what we are told of nobody: a real device says nothing of itself over RPC
    remote = {"chip": "unknown", "os": "unknown", "power_source": "unknown"}
    devices = tuple(
        DeviceProvenance(
            name=device.name,
            memory_bytes=memory_bytes() if is_local or number == 0 else None,
            link_kind=full.devices[device.name].link.kind or "custom",
            throttle_asked=device.share if is_local else None,
            throttle_achieved=achieved.get(device.name),
            details={"threads": device.threads, **details.get(device.name, {})},
            **(this if is_local or number == 0 else remote),
        )
        for number, device in enumerate(plan.devices)
    )
    written = full.model_dump(mode="json")
    return Provenance(
        name=full.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source="local" if is_local else plan.source,
        engine=full.engine.name,
        engine_version=", ".join(f"{package} {version}" for package, version in versions.items()),
        model=full.model.name,
        model_layers=model.layers,
        model_bytes=plan.model_bytes,
        hidden_bytes=model.activation_bytes,
        devices=devices,
        placement=tuple(
            ShardProvenance(
                device=device.name,
                start_layer=device.start_layer,
                end_layer=device.start_layer + device.layers,
            )
            for device in plan.devices
        ),
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        runs=workload.runs,
        concurrency=workload.concurrency,
        warm_up_requests=warm_up_requests,
        clock="CLOCK_MONOTONIC of one machine",
        software=_versions(versions),
        scenario=written,
        scenario_sha256=sha256(full.model_dump_json().encode()).hexdigest(),
        cluster={
            "cores": os.cpu_count(),
            "load_average": list(os.getloadavg()),
            "links": [shape.model_dump(mode="json") for shape in plan.links] if is_local else [],
            **cluster,
        },
    )
