"""`sim catalog`: what the catalogue knows, with units and confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sim import own_cmd
from sim.json_output import Json, print_json

if TYPE_CHECKING:
    from simulator.catalog import DeviceFacts, ModelFacts, NetworkFacts, PlatformFacts, Shape, VpnFacts
    from simulator.catalog.llm import Bits
    from simulator.engine.facts import EngineFacts
    from simulator.spec import Spec

__all__ = ["app"]

app = typer.Typer(
    help="Devices, platforms, models, networks and engines that scenarios can name.", no_args_is_help=True
)

Search = Annotated[
    str, typer.Option("--search", "-s", help="only entries whose names, chip or kind hold all words of TEXT")
]

NONE = "-"
ASSUMED = "~"  # printed before a figure that nobody published


app.command("add")(own_cmd.add)


@app.command("devices")
def devices_cmd(search: Search = "", as_json: Json = False) -> None:
    """Devices: memory, what a model may use of it, speed, power and price; --json adds their other names."""
    from simulator.catalog import devices

    heads = (
        "device",
        "memory GiB",
        "usable GB",
        "GB/s",
        "fp16 Tflop/s",
        "network",
        "platform",
        "confidence",
        "idle/load W",
        "USD",
    )
    layout = Layout(
        wraps=("device", "memory GiB", "usable GB"), drops=("USD", "idle/load W", "confidence", "platform")
    )
    _show("Devices", heads, layout, devices(), _device_row, _device_words, search, as_json)


@app.command("platforms")
def platforms_cmd(search: Search = "", as_json: Json = False) -> None:
    """Platforms: share of the peak that an engine gets, its spread, and the error on
    devices that were not fitted.
    """
    from simulator.catalog import platforms

    heads = (
        "platform",
        "runtime",
        "decode share",
        "decode spread",
        "per layer",
        "chips",
        "held-out error",
        "prefill share",
        "prefill spread",
    )
    _show(
        "Platforms",
        heads,
        Layout(wraps=("held-out error",), drops=("per layer", "chips")),
        platforms(),
        _platform_row,
        lambda facts: (facts.name, facts.title, facts.runtime),
        search,
        as_json,
    )


@app.command("models")
def models_cmd(search: Search = "", as_json: Json = False) -> None:
    """Models: shape, cache per token, 4-bit file sizes (~:
    computed, none published); --json adds other names.
    """
    from simulator.catalog import models
    from simulator.catalog.llm import shape_named

    if "/" in search:  # the id of a repository or of a card of EXO
        search = shape_named(search)[0].name
    heads = (
        "model",
        "layers",
        "hidden",
        "params",
        "active",
        "KV/token",
        "MLX 4 bit",
        "GGUF 4 bit",
        "confidence",
    )
    layout = Layout(wraps=(), drops=("confidence", "hidden", "KV/token", "active"))
    _show(
        "Models",
        heads,
        layout,
        models(),
        _model_row,
        lambda shape: (shape.name, shape.family, *shape.aliases),
        search,
        as_json,
    )


@app.command("networks")
def networks_cmd(search: Search = "", as_json: Json = False) -> None:
    """Networks and overlays: throughput, delay of one side, how much homes differ."""
    from simulator.catalog import networks, vpns

    heads = (
        "network",
        "what",
        "medium",
        "throughput",
        "one-way delay of a side",
        "homes differ by",
        "confidence",
    )
    entries: Sequence[NetworkFacts | VpnFacts] = (*networks(), *vpns())
    layout = Layout(wraps=("what", "throughput", "one-way delay of a side"), drops=("confidence", "medium"))
    _show(
        "Networks",
        heads,
        layout,
        entries,
        _network_row,
        lambda facts: (facts.name, facts.title, facts.medium),
        search,
        as_json,
    )


@app.command("engines")
def engines_cmd(search: Search = "", as_json: Json = False) -> None:
    """Engines: where they run and what they cost beside the arithmetic."""
    from simulator.engine.base import engines

    heads = ("engine", "what", "runs on", "per step", "per message", "memory", "note", "confidence")
    _show(
        "Engines",
        heads,
        Layout(wraps=("what", "runs on", "note"), drops=("confidence", "what", "memory")),
        tuple(flow.facts for flow in engines().values()),
        _engine_row,
        lambda facts: (facts.name, facts.title, *facts.aliases),
        search,
        as_json,
    )


@app.command("quantisations")
def quantisations_cmd(search: Search = "", as_json: Json = False) -> None:
    """Quantisations: bits per weight of a model's parts, scales included."""
    from simulator.catalog import quantisations

    heads = ("quantisation", "format", "bits/weight", "attention", "embedding", "head")
    _show(
        "Quantisations",
        heads,
        Layout(wraps=(), drops=()),
        quantisations(),
        _quantisation_row,
        lambda bits: (bits.quantisation, bits.format),
        search,
        as_json,
    )


class Layout(NamedTuple):
    """Columns that break between words, and those that go where there is no room, the first one first."""

    wraps: tuple[str, ...]
    drops: tuple[str, ...]


def _show(
    title: str,
    heads: Sequence[str],
    layout: Layout,
    entries: Sequence[Any],
    row: Callable[[Any], Sequence[str]],
    words: Callable[[Any], Sequence[str]],
    search: str,
    as_json: bool,
) -> None:
    """Print the entries that match as a table, or as one JSON document."""
    parts = search.lower().split()
    found = [entry for entry in entries if _holds(" ".join(words(entry)), parts)]
    part = OWN_PARTS.get(title)
    if as_json:
        own = own_cmd.own_documents(part, search) if part else []
        print_json([*own, *map(_as_json, found)])
        return
    rows = [*(own_cmd.own_rows(part, heads, search) if part else ()), *map(row, found)]
    if not rows:
        from simulator.catalog.tables import nearest

        near = nearest(search, tuple(tuple(words(entry)) for entry in entries))
        typer.echo(
            f"nothing in {title.lower()} contains {search!r}{near}; without --search all {len(entries)} are "
            "listed",
            err=True,
        )
        raise typer.Exit(2)
    _print_table(heads, layout, rows)


def _holds(text: str, parts: Sequence[str]) -> bool:
    """Whether all parts of what was searched for stand in a text, as typed or without punctuation."""
    from simulator.catalog.tables import normalise

    plain = normalise(text)
    return all(part in text.lower() or (normalise(part) or part) in plain for part in parts)


OWN_PARTS = {"Devices": "devices", "Networks": "links", "Models": "models"}
"""What a list of the catalogue is called in the user's own file."""


def _print_table(heads: Sequence[str], layout: Layout, rows: Sequence[Sequence[str]]) -> None:
    from sim.console import console_here
    from sim.table import print_table

    console = console_here()
    left_out = print_table(console, heads, rows, wraps=layout.wraps, drops=layout.drops)
    if any(cell.startswith(ASSUMED) for row in rows for cell in row):
        console.print(f"{ASSUMED} assumed: nobody published this figure for this very entry")
    if left_out:
        console.print(f"no room for {', '.join(left_out)}; --json has everything")


def _as_json(entry: Spec) -> dict[str, Any]:
    """All fields of an entry; of a device also what a model may use of each memory option."""
    document = entry.model_dump(mode="json")
    if hasattr(entry, "usable_bytes"):
        options = entry.memory_options_bytes  # type: ignore[attr-defined]
        document["usable_bytes"] = [entry.usable_bytes(option) for option in options]
        document["assumed_fields"] = list(entry.assumed_fields)  # type: ignore[attr-defined]
    return document


def _device_words(facts: DeviceFacts) -> tuple[str, ...]:
    return (facts.name, *facts.aliases, facts.chip, facts.category, facts.platform)


def _device_row(facts: DeviceFacts) -> tuple[str, ...]:
    from simulator.units import GIB

    def mark(field: str, text: str) -> str:
        return (ASSUMED if field in facts.assumed_fields else "") + text

    options = ", ".join(f"{option / GIB:g}" for option in facts.memory_options_bytes)
    usable = ", ".join(
        (ASSUMED if found.confidence in ("assumed", "from-memory") else "") + f"{found.bytes / 1e9:.3g}"
        for found in map(facts.usable, facts.memory_options_bytes)
    )
    watts = "/".join(NONE if value is None else f"{value:g}" for value in (facts.idle_w, facts.load_w))
    price = NONE if facts.price_usd is None else mark("price_usd", f"{facts.price_usd:g}")
    return (
        facts.name,
        mark("memory_options_bytes", options),
        usable,
        mark("memory_bytes_per_s", f"{facts.memory_bytes_per_s / 1e9:.4g}"),
        mark("flop_per_s", f"{facts.flop_per_s / 1e12:.3g}"),
        mark("network", facts.network),
        facts.platform,
        facts.confidence,
        watts,
        price,
    )


def _platform_row(facts: PlatformFacts) -> tuple[str, ...]:
    from simulator.units import format_seconds

    def mark(field: str, text: str) -> str:
        return (ASSUMED if field in facts.assumed_fields else "") + text

    held_out = facts.decode_held_out
    return (
        facts.name,
        facts.runtime,
        f"{facts.decode_efficiency:.0%}",
        f"x/: {_factor(facts.decode_log_sd)}",
        format_seconds(facts.layer_overhead_s),
        str(facts.n_decode_chips),
        f"{held_out.median_error:.0%}" if held_out else "one chip: not tested",
        mark("prefill_efficiency", f"{facts.prefill_efficiency:.0%}"),
        mark("prefill_log_sd", f"x/: {_factor(facts.prefill_log_sd)}"),
    )


def _factor(log_sd: float) -> str:
    """The factor that 80 % of devices stay within: exp(1.28 sd)."""
    from math import exp

    return f"{exp(1.2816 * log_sd):.2f}"


def _model_row(shape: Shape) -> tuple[str, ...]:
    from simulator.catalog import model
    from simulator.units import format_bytes

    def size(facts: ModelFacts) -> str:
        return (ASSUMED if facts.size_basis == "computed" else "") + format_bytes(facts.total_bytes)

    mlx, gguf = model(shape.name, format="MLX"), model(shape.name, format="GGUF")
    return (
        shape.name,
        str(shape.layers),
        str(shape.hidden),
        f"{shape.params_total / 1e9:.3g} B",
        f"{mlx.params_active / 1e9:.3g} B",
        format_bytes(shape.layers * shape.kv_bytes_per_token_per_layer),
        size(mlx),
        size(gguf),
        shape.confidence,
    )


def _quantisation_row(bits: Bits) -> tuple[str, ...]:
    parts = (bits.body, bits.attention, bits.embedding, bits.head)
    return bits.quantisation, bits.format, *(f"{part:.4g}" for part in parts)


def _network_row(facts: NetworkFacts | VpnFacts) -> tuple[str, ...]:
    from simulator.units import format_rate, format_seconds

    if facts.medium == "vpn":
        delay, rate = (
            f"+{format_seconds(facts.added_delay_s)} end to end",
            f"{facts.rate_share:.0%} of the network's",
        )
        return facts.name, facts.title, facts.medium, rate, delay, NONE, facts.confidence
    delay = ("~" if "delay" in facts.assumed_fields else "") + _law(facts.delay)
    rate = ("~" if "rate" in facts.assumed_fields else "") + format_rate(facts.rate_bytes_per_s)
    homes = f"x/: {_factor(facts.scale_log_sd)}"
    return facts.name, facts.title, facts.medium, rate, delay, homes, facts.confidence


def _law(law: Mapping[str, Any]) -> str:
    """A law in words: its median, and of a mixture how many messages take how long instead."""
    if law["law"] != "mixture":
        return str(law["median"])
    body, tail = law["parts"]
    return f"{body['of']['median']}, {tail['weight']:.1%} of messages {tail['of']['median']}"


def _engine_row(facts: EngineFacts) -> tuple[str, ...]:
    from simulator.units import format_bytes, format_seconds

    def mark(field: str, text: str) -> str:
        return (ASSUMED if field in facts.assumed_fields else "") + text

    return (
        facts.name,
        facts.title,
        ", ".join(facts.runs_on),
        mark("step_overhead_s", format_seconds(facts.step_overhead_s)),
        mark("hop_overhead_s", format_seconds(facts.hop_overhead_s)),
        mark("memory_overhead_bytes", format_bytes(facts.memory_overhead_bytes)),
        facts.note,
        facts.confidence,
    )
