"""Which layers sit on which device, and what it must hold."""

from simulator.placement.memory import MemoryUse, memory_table
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.rules import RULES, Rule, place
from simulator.placement.shard import Placement, Shard

__all__ = [
    "RULES",
    "DeviceCapacity",
    "MemoryUse",
    "Placement",
    "PlacementRequest",
    "Rule",
    "Shard",
    "memory_table",
    "place",
]
