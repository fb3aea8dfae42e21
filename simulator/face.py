"""face: the public names of a package, each imported from its home when it is first asked for (PEP 562).

Every command imports our packages, and `sim --help` needs none of what they offer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["face"]

Homes = Mapping[str, Sequence[str]]


def face(package: str, homes: Homes) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`, whose public names live in the modules of `homes`."""
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home_of[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
