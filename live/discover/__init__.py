"""Who is on this network: EXO of either generation, our own agents, and hosts that the user names."""

from live.discover.found import FoundDevice
from live.discover.look import Discovery, Options, discover

__all__ = ["Discovery", "FoundDevice", "Options", "discover"]
