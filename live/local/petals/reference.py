"""The reference workload of Petals: its client alone, which
computes all blocks of the smallest model itself.
"""

from __future__ import annotations

from live.local.children import Child
from live.local.petals.cluster import load_alone
from live.local.petals.nursery import Nestling
from live.local.petals.weights import model_file
from live.local.reference import Reference

__all__ = ["PetalsReference"]

MODEL = "petals-18"


class PetalsReference(Reference):
    """torch in one process, without a swarm."""

    def _start(self) -> Child:
        child = Nestling("reference", "client", {})
        load_alone(child, model_file(MODEL).parent)
        return child
