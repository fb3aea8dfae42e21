"""What llama.cpp puts on which processor of one machine (`-ngl`, `--tensor-split`, `--n-cpu-moe`, `--fit`).

Read in llama.cpp's load_tensors (src/llama-model.cpp) as of 2026: with L layers, the places 0 .. L - 1
are layers and place L is the output head. `-ngl n` puts the last n places on the cards: the head first,
then layers from the last one on (builds of before the end of 2025 counted the head last). A place p of
those is on the first card whose running share of the tensor split exceeds (p - first) / n; without a
split, shares are free memory. The input layer stays with the host. `--n-cpu-moe n` leaves the experts of
the first n layers in RAM, and attention with its KV cache where the layer is.

Without `-ngl`, llama.cpp fits (`llama_params_fit`, ggml-org/llama.cpp pull request 16653): all on the cards
if it goes; else of a mixture the experts of as few layers as possible stay in RAM; else fewer layers are on
the cards. It leaves 1 GiB of each card free, about what the catalogue takes off a card's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from simulator.cluster.cluster import Processor
from simulator.layer import LayerKind
from simulator.model.stretch import Stretch
from simulator.runtime.portions import Divided, HostTask, Portion

__all__ = ["divide"]

COPIES_FROM_TOKENS = 32
"""A product of so many tokens is computed on a card even where its weights are in RAM, and these are copied
each time (ggml-org/llama.cpp pull request 6083, GGML_OP_OFFLOAD_MIN_BATCH).
"""


def divide(task: HostTask) -> Divided:
    """Who of a device's processors holds which of its layers, as told or as much as fits."""
    return _Split(task, *_chosen(task)).divided()


def _chosen(task: HostTask) -> tuple[int, int]:
    """(places on the cards, first layers whose experts are in RAM)."""
    told, places = task.device.offload, task.end - task.start + task.has_head
    if not task.device.cards:
        return 0, 0
    if told is not None and told.gpu_layers is not None:
        return min(told.gpu_layers, places), told.cpu_moe_layers or 0
    if told is not None and told.cpu_moe_layers is not None:
        return places, told.cpu_moe_layers
    fits = (choice for choice in _choices(task, places) if _Split(task, *choice).fits_cards())
    # what fits nowhere is left to the check of memory, which says by how much
    return next(fits, (0, 0) if task.device.host_processor else (places, 0))


def _choices(task: HostTask, places: int) -> Iterator[tuple[int, int]]:
    """What fitting tries, in llama.cpp's order."""
    yield places, 0
    if task.device.host_processor is None:
        return
    mixtures = task.start
    if any(kind.experts for kind in task.model.kinds):
        mixtures = task.end
        yield from ((places, layers) for layers in range(task.start + 1, task.end + 1))
    yield from ((fewer, mixtures) for fewer in range(places - 1, -1, -1))


@dataclass(frozen=True)
class _Split:
    """One way to divide: the last `gpu_places` on cards, experts of the first `moe_layers` in RAM."""

    task: HostTask
    gpu_places: int
    moe_layers: int

    @cached_property
    def _kinds(self) -> list[int]:
        """The kind of each layer held."""
        pattern = self.task.model.layer_pattern or (0,) * self.task.model.layers
        return list(pattern[self.task.start : self.task.end])

    @cached_property
    def _owners(self) -> list[Processor]:
        """The processor of each layer held, its attention at least, then of the head if it is here."""
        task, cards = self.task, self.task.device.cards
        places = task.end - task.start + task.has_head
        first = places - self.gpu_places
        host = task.device.host_processor
        return [
            # who has no processor but cards has them hold all
            host if host is not None and place < first else cards[self._card(place - first)]
            for place in range(places)
        ]

    def _card(self, place: int) -> int:
        """The card of the place counted from the first one on cards."""
        cards, told = self.task.device.cards, self.task.device.offload
        shares = told.tensor_split if told is not None and told.tensor_split is not None else None
        # in single precision, as llama.cpp compares them: it decides which card takes a layer at the border
        sizes = np.array(shares or [card.device.usable_bytes for card in cards], dtype=np.float32)
        ends = np.cumsum(sizes, dtype=np.float32) / sizes.sum(dtype=np.float32)
        here = np.float32(max(place, 0)) / np.float32(max(self.gpu_places, 1))
        return min(int(np.searchsorted(ends, here, side="right")), len(cards) - 1)

    def _is_apart(self, at: int) -> bool:
        """Whether the experts of the layer at this place are in RAM while the layer is on a card."""
        host, kind = self.task.device.host_processor, self.task.model.kinds[self._kinds[at]]
        on_card = self._owners[at].device.is_card
        return host is not None and on_card and kind.experts > 0 and self.task.start + at < self.moe_layers

    def _path(self) -> list[Processor]:
        """The processors that a step goes through, one after the other."""
        host, path = self.task.device.host_processor, []
        for at, owner in enumerate(self._owners):
            path.append(owner)
            if host is not None and at < len(self._kinds) and self._is_apart(at):
                path += [host, owner]  # what the experts gave is added to the residual on the card
        return path

    def _portion(self, processor: Processor, path: Sequence[Processor]) -> Portion:
        kinds = self.task.model.kinds
        apart = [kind.apart() if kind.experts else (kind, kind) for kind in kinds]
        whole, rest, experts = ([0] * len(kinds) for _ in range(3))
        for at, kind in enumerate(self._kinds):
            is_apart = self._is_apart(at)
            if self._owners[at] is processor:
                (rest if is_apart else whole)[kind] += 1
            elif is_apart and not processor.device.is_card:
                experts[kind] += 1
        told: list[tuple[LayerKind, int]] = [
            *zip(kinds, whole, strict=True),
            *((one, n) for (one, _), n in zip(apart, rest, strict=True)),
            *((one, n) for (_, one), n in zip(apart, experts, strict=True)),
        ]
        present = [(kind, n) for kind, n in told if n]
        return Portion(
            processor=processor,
            held=Stretch(tuple(kind for kind, _ in present), tuple(float(n) for _, n in present)),
            whole_layers=sum(whole),
            layers_without_experts=sum(rest),
            expert_layers=sum(experts),
            crossings=sum((a is processor) != (b is processor) for a, b in pairwise(path)),
            has_head=self.task.has_head and self._owners[-1] is processor,
        )

    def portions(self) -> tuple[Portion, ...]:
        """Of all processors, the host's own first, so that the one with the head comes last."""
        path, device = self._path(), self.task.device
        ordered = sorted(device.processors, key=lambda one: one.device.is_card)
        return tuple(self._portion(processor, path) for processor in ordered)

    def fits_cards(self) -> bool:
        """Whether each card can hold its portion."""
        return all(
            self.task.held_bytes(part) <= part.processor.device.usable_bytes
            for part in self.portions()
            if part.processor.device.is_card
        )

    def divided(self) -> Divided:
        """The division, with what a prompt's chunks do."""
        task = self.task
        whole = task.model.stretch(task.start, task.end)
        return Divided(whole, self.portions(), task.model.activation_bytes, COPIES_FROM_TOKENS)
