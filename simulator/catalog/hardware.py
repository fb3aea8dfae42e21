"""Devices that people own: memory, speed, power and price, each with source and confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from simulator.catalog.tables import Facts, Row, names_of, normalise, number, pick, split, table
from simulator.units import GB, GIB

__all__ = ["DeviceFacts", "Usable", "device", "devices", "is_card", "kind_of"]

ASSUMED = "assumed"
PER_S = {"decode": "bytes_per_s", "prefill": "flop_per_s"}
SNAP = 0.08  # '16 GB' may mean 16e9 or 2**34 bytes, 7.4 % apart: both name the 16 GB option


class Usable(Facts):
    """How much of a device's memory a model may take (bytes), and who says so."""

    bytes: float
    source: str
    confidence: str


class DeviceFacts(Facts):
    """What the catalogue knows about one device; `assumed_fields` names what nobody published."""

    name: str
    aliases: tuple[str, ...]
    category: str
    platform: str
    other_platforms: tuple[str, ...] = ()
    chip: str
    memory_bytes: float
    memory_options_bytes: tuple[float, ...]
    usable_low_bytes: float | None = None
    usable_high_bytes: float | None = None
    usable_basis: str = ""
    memory_bytes_per_s: float
    measured_memory_bytes_per_s: float | None = None
    flop_per_s: float
    disk_bytes_per_s: float
    network: str
    network_ports: str = ""
    idle_w: float | None = None
    load_w: float | None = None
    price_usd: float | None = None
    measured_decode_bytes_per_s: float | None = None
    measured_decode_log_sd: float | None = None
    measured_decode_models: int = 0
    measured_decode_runtime: str | None = None
    measured_prefill_flop_per_s: float | None = None
    measured_prefill_log_sd: float | None = None
    measured_prefill_models: int = 0
    measured_prefill_runtime: str | None = None
    source: str
    confidence: str
    from_memory_fields: tuple[str, ...] = ()
    rule_fields: tuple[str, ...] = ()
    note: str = ""

    @property
    def assumed_fields(self) -> tuple[str, ...]:
        """Fields to show as assumed: recalled from memory, or filled in by a rule of the platform."""
        return tuple(dict.fromkeys((*self.from_memory_fields, *self.rule_fields)))

    def usable(self, memory_bytes: float | None = None) -> Usable:
        """Memory that a model may take when the device has
        `memory_bytes` (default: its own), with its source.

        In this order: a limit published for this very device, a printed limit for this amount of memory, the
        rule of the platform (a share of the memory, or the memory minus what the system keeps).
        """
        total = self.snap(memory_bytes)
        own = self.usable_low_bytes
        if own is not None and total == self.memory_options_bytes[0]:
            return Usable(bytes=own, source=self.usable_basis, confidence=self.confidence)
        return _printed_limit(self.platform, total) or _platform_rule(self.platform, total)

    def usable_bytes(self, memory_bytes: float | None = None) -> float:
        """Bytes that a model may take; `usable` also tells the source."""
        return self.usable(memory_bytes).bytes

    def snap(self, memory_bytes: float | None) -> float:
        """The sold memory option (bytes) that `memory_bytes`
        means, or the value itself when none is within 8 %.
        """
        if memory_bytes is None:
            return self.memory_bytes
        near = min(self.memory_options_bytes, key=lambda option: abs(option - memory_bytes))
        return near if abs(near - memory_bytes) <= SNAP * near else memory_bytes

    def sold_with(self, memory_bytes: float) -> bool:
        """Whether this device is sold with so much memory."""
        return self.snap(memory_bytes) in self.memory_options_bytes


def _printed_limit(platform: str, total_bytes: float) -> Usable | None:
    """The Metal working set printed on a Mac with this much
    memory; of several the newest, which stands last.
    """
    if platform != "apple-metal":
        return None
    rows = [row for row in table("device_memory_limits") if row["what"].startswith("Metal recommended")]
    for row in reversed(rows):
        if abs(float(row["total_ram_gb"]) * GIB - total_bytes) < SNAP * total_bytes:
            source = f"{row['what']} ({row['source']})"
            return Usable(bytes=float(row["limit_gb"]) * GB, source=source, confidence=row["confidence"])
    return None


def _platform_rule(platform: str, total_bytes: float) -> Usable:
    """Usable bytes by the platform's rule: a share of the memory, or the memory minus a reserve."""
    kind = kind_of(platform)
    if kind["usable_rule"] == "metal":
        share = 0.67 if total_bytes <= 36 * GIB else 0.75  # the catalogue rule that devices.csv states
        usable_bytes = share * total_bytes
    elif kind["usable_rule"] == "share":
        usable_bytes = float(kind["usable_share"]) * total_bytes
    else:
        usable_bytes = max(total_bytes - float(kind["os_reserve_gb"]) * GB, 0.5 * total_bytes)
    return Usable(bytes=usable_bytes, source=kind["usable_source"], confidence=ASSUMED)


def kind_of(platform: str) -> Row:
    """The row of platform_kinds.csv; raises CatalogError for an unknown platform."""
    return pick("platform", platform, table("platform_kinds"), lambda row: (row["platform"],))[0]


def is_card(platform: str | None) -> bool:
    """Whether a platform is a graphics card, whose memory is
    its own and not that of the computer around it.
    """
    known = platform not in (None, "unknown")
    return known and kind_of(str(platform))["usable_rule"] == "vram"


def _measured(chip: str, platform: str) -> dict[str, Any]:
    """Effective decode bandwidth (bytes/s) and prompt rate (flop/s) of this very
    chip, where that predicts better than its platform does.
    """
    found: dict[str, Any] = {}
    for row in table("measured_chips"):
        if row["platform"] == platform and normalise(row["chip"]) == normalise(chip):
            phase = row["phase"]
            found |= {
                f"measured_{phase}_{PER_S[phase]}": number(row, "per_s"),
                f"measured_{phase}_log_sd": number(row, "log_sd"),
                f"measured_{phase}_models": int(row["n_models"]),
                f"measured_{phase}_runtime": row["runtime"],
            }
    return found


def _facts(row: Row) -> DeviceFacts:
    """One row of devices.csv with the platform's rules filled in where the row is silent."""
    kind = kind_of(row["platform"])
    options = tuple(float(part) * GIB for part in split(row["ram_gib_options"]))
    bandwidth = number(row, "mem_bandwidth_gbs", GB) or 0.0
    flops, disk = number(row, "gpu_fp16_tflops", 1e12), number(row, "disk_read_gbs", GB)
    filled = [field for field, value in (("flop_per_s", flops), ("disk_bytes_per_s", disk)) if value is None]
    memory = tuple(FIELD_OF.get(field, field) for field in split(row["from_memory_fields"]))
    if "all" in memory:
        memory = ("memory_options_bytes", "memory_bytes_per_s", "flop_per_s", "load_w", "price_usd")
    return DeviceFacts(
        name=row["device"],
        aliases=names_of(row, "device")[1:],
        category=row["category"],
        platform=row["platform"],
        other_platforms=split(row["other_platforms"]),
        chip=row["chip"],
        memory_bytes=options[0],
        memory_options_bytes=options,
        usable_low_bytes=number(row, "usable_low_gb", GB),
        usable_high_bytes=number(row, "usable_high_gb", GB),
        usable_basis=row["usable_basis"],
        memory_bytes_per_s=bandwidth,
        measured_memory_bytes_per_s=number(row, "mem_bandwidth_measured_gbs", GB),
        flop_per_s=flops or bandwidth * float(kind["flop_per_byte"]),
        disk_bytes_per_s=disk or float(kind["disk_bytes_per_s"]),
        network=row["network"],
        network_ports=row["network_ports"],
        idle_w=number(row, "idle_w"),
        load_w=number(row, "load_w"),
        price_usd=number(row, "price_usd"),
        **_measured(row["chip"], row["platform"]),
        source=row["source"],
        confidence=row["confidence"],
        from_memory_fields=memory,
        rule_fields=tuple(filled),
        note=row["note"],
    )


# the published column that a field comes from, for the names in `from_memory_fields`
FIELD_OF = {
    "ram_gb_options": "memory_options_bytes",
    "ram_gb_options (partly)": "memory_options_bytes",
    "mem_bandwidth_gbs": "memory_bytes_per_s",
    "usable_llm_gb": "usable_low_bytes",
}


@cache
def devices() -> tuple[DeviceFacts, ...]:
    """All devices of the catalogue, in the order of devices.csv."""
    return tuple(_facts(row) for row in table("devices"))


def device(name: str, memory_bytes: float | None = None) -> DeviceFacts:
    """The device called `name` (case, spaces and punctuation do not matter), with `memory_bytes` of memory.

    Where one name covers several models ('MacBook Pro M4 Max'), the one sold
    with that much memory is meant, else the one listed first. Without `memory_bytes`
    it gets its first option. Raises CatalogError for an unknown name.
    """
    found = _called(name) or pick("device", name, devices(), lambda facts: (facts.name, *facts.aliases))
    if memory_bytes is None:
        return found[0]
    fits = [facts for facts in found if facts.sold_with(memory_bytes)]
    chosen = (fits or found)[0]
    return chosen.model_copy(update={"memory_bytes": chosen.snap(memory_bytes)})


# what devices run on whose maker's name people put before theirs: an 'Apple A10' is no NVIDIA A10
MAKERS = {
    "nvidia": ("nvidia-cuda", "jetson"),
    "geforce": ("nvidia-cuda",),
    "amd": ("amd-gpu", "x86"),
    "radeon": ("amd-gpu", "x86-igpu"),
    "intel": ("intel-gpu", "x86"),
    "samsung": ("android",),
    "google": ("android",),
}


@cache
def _by_name() -> Mapping[str, Sequence[DeviceFacts]]:
    """Devices by each of their names, normalised: `sim plan` asks for thousands."""
    found: dict[str, list[DeviceFacts]] = {}
    for facts in devices():
        for plain in dict.fromkeys(map(normalise, (facts.name, *facts.aliases))):
            found.setdefault(plain, []).append(facts)
    return found


def _called(name: str) -> Sequence[DeviceFacts]:
    """Devices of this name, or of this name but for the maker's before it ('NVIDIA GeForce RTX 3070')."""
    found = _by_name().get(normalise(name), ())
    maker, _, rest = name.strip().partition(" ")
    runs_on = MAKERS.get(maker.lower())
    if found or runs_on is None or not rest:
        return found
    return [facts for facts in _called(rest) if facts.platform.startswith(runs_on)]
