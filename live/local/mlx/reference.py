"""The reference workload of MLX: one rank alone, with the smallest model."""

from __future__ import annotations

from pathlib import Path

from live.local.children import Child
from live.local.mlx.cluster import rank_child
from live.local.mlx.weights import model_file, recipe
from live.local.reference import Reference

__all__ = ["MlxReference"]

MODEL = "mlx-20mb"


class MlxReference(Reference):
    """MLX in one process."""

    def _start(self) -> Child:
        file = model_file(MODEL)
        child = rank_child("reference", 0, Path())
        child.command(
            "load",
            model=str(file),
            ranks=1,
            strategy="pipeline",
            start_layer=0,
            end_layer=recipe(MODEL).layers,
            tells=True,
            share=1.0,
            flow="mlx",
        )
        return child
