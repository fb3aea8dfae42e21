"""What users write, or take from elsewhere and name in it: scenarios, catalogues, prices, sizes of models."""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path

from simulator.errors import SimulatorError
from simulator.scenario import Scenario
from tests.fuzz.doors.door import DATA, ROOT, Kind, Unfit, command, told

__all__ = ["KINDS"]


PRICES = b"""devices:
  Mac mini M4 24 GB: 799 EUR
  MacBook Air M4: 1099 EUR
accessories:
  ethernet_cable: 15 EUR
electricity: 0.31 EUR/kWh
cloud:
  mine: {input: 0.1 USD, output: 0.3 USD}
watts:
  mac: {idle: 5 W, load: 40 W}
usd_per_eur: 1.1
tax: 20 %
"""
OWN = b"""# Devices of my own
devices:
  desk:
    kind: Mac mini M4
    memory: 24 GB
    speed: {decode_bandwidth: 90 GB/s, prefill_flops: 4 TFLOPS, decode_spread: 0.05}
  box:
    memory: 64 GB
    speed: {decode_bandwidth: 60 GB/s \xc2\xb1 5 GB/s, prefill_flops: 1 TFLOPS}
    link: {kind: attic}
links:
  attic: {delay: {law: constant, value: 3 ms}, rate: 20 MB/s, delay_spread: 0.2}
  cellar: {kind: wifi5, delay: {law: lognormal, median: 4 ms, sigma: 0.4}}
models:
  mine: {layers: 32, hidden: 4096, layer_bytes: 110 MB}
prices:
  devices: {Mac mini M4: 600 EUR}
"""
NAMING = """name: own
model: {name: mine}
devices:
  a: {kind: desk}
  b: {kind: box}
workload: {output_tokens: 6, runs: 2}
replications: 4
"""


def _cost(path: Path) -> None:
    told(path, "cost", "thunderbolt_macs", "--prices", path, "--replications", "2", "--json")


def _price_list(path: Path) -> None:
    from simulator.files import load
    from simulator.plan.buy.prices import PriceBook, PricesFile

    try:
        book = PriceBook("EUR", load(path, PricesFile))
        book.electricity()
        book.accessory("ethernet_cable")
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"prices are refused without naming the file: {error}") from None


def _own_lists(path: Path) -> None:
    part = random.Random(path.stat().st_size).choice(("devices", "networks", "models"))
    told(path, "catalog", part, "--catalog", path, "--json")


def _own_scenario(path: Path) -> None:
    scenario = path.with_name("asked.yaml")
    scenario.write_text(NAMING)
    # a name may be gone from the catalogue: then the scenario is what cannot be used
    code, _, err = command("run", scenario, "--catalog", path, "--json")
    if code not in (0, 1, 2, 3) or (code and not err):
        raise Unfit(f"sim run exits {code}: {err[:300]}")


# scenarios

SPLIT = ("two_sparks", "four_mac_studios", "two_strix_halos", "uneven_pair")
"""Layers split by tensor, or by experts: engine, sharding, backend."""
OTHERS = (
    "four_devices",
    "legacy_phones",
    "hot_phone",
    "llama_server",
    "tower_experts_in_ram",
    "churn_evening",
)


def _scenarios(names: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple((ROOT / f"scenarios/{name}.yaml").read_bytes() for name in names)


def _small(path: Path) -> Scenario | None:
    """The scenario with little to do, None where it is refused, which must name the file."""
    from simulator.library import load

    try:
        asked = load(path)
    except SimulatorError as error:
        if path.name not in str(error):
            raise Unfit(f"a scenario is refused without naming the file: {error}") from None
        return None
    work = asked.workload
    few = {"runs": 1, "output_tokens": min(6, work.output_tokens), "concurrency": min(4, work.concurrency)}
    few |= {"prompt_tokens": min(2000, work.prompt_tokens)}
    return asked.model_copy(update={"replications": 2, "workload": work.model_copy(update=few)})


def _predicted(path: Path) -> None:
    from simulator.files import dumps, loads
    from simulator.run.predict import predict

    if (asked := _small(path)) is None:
        return
    try:
        found = predict(asked)
    except SimulatorError:
        return  # what is right in itself may fit nowhere
    found.document()
    loads(dumps(found.scenario), Scenario, "complete.yaml")


def _placed(path: Path) -> None:
    from simulator.plan.place.forms import forms
    from simulator.plan.place.search import search

    if (asked := _small(path)) is None:
        return
    try:
        forms(search(asked))
    except SimulatorError:
        return


SWARMS = ("petals_three_rooms", "petals_flaky", "petals_public")


def _swarmed(path: Path) -> None:
    """A minute of it, with a few of the servers and users."""
    from simulator.swarm.study import rows_of, swarm_answer

    if (asked := _small(path)) is None or (spec := asked.swarm) is None:
        return
    few = {name: one.model_copy(update={"count": min(4, one.count)}) for name, one in spec.population.items()}
    coming = {"users": min(2, spec.users), "arrivals": spec.arrivals and min(500.0, spec.arrivals)}
    swarm = spec.model_copy(update={"population": few, "hours": min(0.02, spec.hours), **coming})
    asked = asked.model_copy(update={"swarm": swarm})
    try:
        swarm_answer(asked, rows_of(asked, 1)).model_dump_json()
    except SimulatorError:
        return  # servers may hold nothing, or be another engine's


# sizes of models

OF_A_CONFIG = """name: own
model: {hf_config: config.json, quantisation: 4bit}
devices: {a: {kind: Mac Studio M3 Ultra, memory: 512 GB}, b: {kind: Mac Studio M3 Ultra, memory: 512 GB}}
workload: {output_tokens: 4, runs: 1}
replications: 2
"""
OF_A_HEADER = OF_A_CONFIG.replace("hf_config: config.json, quantisation: 4bit", "gguf: model.gguf")


@cache
def _configs() -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted((DATA / "configs").glob("*.json")))


def _config(path: Path) -> None:
    _sized(path, OF_A_CONFIG)


def _header(path: Path) -> None:
    _sized(path, OF_A_HEADER)


def _sized(path: Path, text: str) -> None:
    scenario = path.with_name("asked.yaml")
    scenario.write_text(text)
    # a size that is right and fits nowhere names the model, whose name stands in the file
    code, _, err = command("run", scenario, "--json")
    if code not in (0, 2, 3) or (code and not err):
        raise Unfit(f"sim run exits {code}: {err[:300]}")
    if len(err) > 20_000:
        raise Unfit(f"sim run says {len(err)} characters: {err[:300]}")


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _pair(key: str, value: int | str) -> bytes:
    """One key of a header: type 4 is a 32-bit number, 8 text (GGUF specification)."""
    return _text(key) + (
        struct.pack("<I", 8) + _text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
    )


@cache
def _headers() -> tuple[bytes, ...]:
    """A small llama in 16 bits; the weights themselves are not there, as nobody reads them."""
    pairs = {
        "general.architecture": "llama",
        "general.name": "small",
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 512,
        "general.file_type": 1,
    }
    shapes = {"token_embd.weight": (64, 100), "output.weight": (64, 100)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.attn_q.weight": (64, 64), f"blk.{layer}.ffn_up.weight": (64, 128)}
    out, offset = [b"GGUF", struct.pack("<IQQ", 3, len(shapes), len(pairs))], 0
    out += [_pair(key, value) for key, value in pairs.items()]
    for name, shape in shapes.items():
        out.append(_text(name) + struct.pack("<IQQIQ", 2, *shape, 1, offset))
        offset += 2 * shape[0] * shape[1]
    return (b"".join(out) + bytes(32 + offset),)


KINDS = {
    "prices": Kind("prices.yaml", lambda: (PRICES,), (*5 * (_price_list,), _cost)),
    "catalogue": Kind("own.devices.yaml", lambda: (OWN,), (_own_lists, _own_scenario)),
    "tensor scenario": Kind("split.yaml", lambda: _scenarios(SPLIT), (*4 * (_predicted,), _placed)),
    "scenario": Kind("mine.yaml", lambda: _scenarios(OTHERS), (*4 * (_predicted,), _placed)),
    "swarm": Kind("swarm.yaml", lambda: _scenarios(SWARMS), (_swarmed,)),
    "model config": Kind("config.json", _configs, (_config,)),
    "model header": Kind("model.gguf", _headers, (_header,)),
}
