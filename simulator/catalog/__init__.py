"""What the world knows: devices, platforms, models, networks and prices, each with source and confidence.

What is known of an engine stands with the engine (`simulator.engine`).

Nothing here is measured by this project. Facts are read lazily from `data/` and cached; a look-up that fails
raises CatalogError with the nearest known name.
"""

from simulator.catalog.capacity import doubt_memory, raise_memory, thunderbolt_ports
from simulator.catalog.files import from_gguf
from simulator.catalog.hardware import DeviceFacts, Usable, device, devices, is_card
from simulator.catalog.hf import from_hf_config
from simulator.catalog.links import (
    BusFacts,
    NetworkFacts,
    PowerSaveFacts,
    VpnFacts,
    bus,
    buses,
    network,
    networks,
    power_save,
    vpn,
    vpns,
)
from simulator.catalog.llm import Bits, ModelFacts, Shape, model, models, quantisations, stored_as
from simulator.catalog.prices import CloudPrice, ElectricityPrice, cloud_prices, electricity_prices
from simulator.catalog.speed import (
    DecodeSpeed,
    ErrorParts,
    HeldOut,
    PlatformFacts,
    PrefillSpeed,
    decode_speed,
    error_parts,
    layer_overhead_s,
    peak_flop_per_s,
    platform,
    platforms,
    prefill_speed,
)
from simulator.catalog.told import Statement, said_log_sd, stand_in_log_sd, tails

__all__ = [
    "Bits",
    "BusFacts",
    "CloudPrice",
    "DecodeSpeed",
    "DeviceFacts",
    "ElectricityPrice",
    "ErrorParts",
    "HeldOut",
    "ModelFacts",
    "NetworkFacts",
    "PlatformFacts",
    "PowerSaveFacts",
    "PrefillSpeed",
    "Shape",
    "Statement",
    "Usable",
    "VpnFacts",
    "bus",
    "buses",
    "cloud_prices",
    "decode_speed",
    "device",
    "devices",
    "doubt_memory",
    "electricity_prices",
    "error_parts",
    "from_gguf",
    "from_hf_config",
    "is_card",
    "layer_overhead_s",
    "model",
    "models",
    "network",
    "networks",
    "peak_flop_per_s",
    "platform",
    "platforms",
    "power_save",
    "prefill_speed",
    "quantisations",
    "raise_memory",
    "said_log_sd",
    "stand_in_log_sd",
    "stored_as",
    "tails",
    "thunderbolt_ports",
    "vpn",
    "vpns",
]
