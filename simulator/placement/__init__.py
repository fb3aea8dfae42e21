"""Which layers sit on which device: EXO's rules of both generations, and our own."""

from simulator.placement.exo_request import ExoRefusal
from simulator.placement.memory import MemoryUse, memory_table
from simulator.placement.request import DeviceCapacity, PlacementRequest
from simulator.placement.rules import RULES, place
from simulator.placement.shard import Placement, Shard

__all__ = [
    "RULES",
    "DeviceCapacity",
    "ExoRefusal",
    "MemoryUse",
    "Placement",
    "PlacementRequest",
    "Shard",
    "memory_table",
    "place",
]
