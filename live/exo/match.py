"""Match names of a scenario with a cluster: its devices with nodes, its model with EXO's cards."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from live.errors import LiveError
from live.exo.state import StateNode
from simulator.catalog.tables import normalise
from simulator.errors import did_you_mean

__all__ = ["device_names", "match_devices", "match_model"]


def device_names(nodes: Sequence[StateNode]) -> dict[str, str]:
    """A name fit for a scenario for each node id, from the node's own name; equal names get numbers.

    >>> device_names([StateNode("id1", "Ada's MacBook Pro")])
    {'id1': 'adas-macbook-pro'}
    """
    plain = [_plain(node.name) for node in nodes]
    total, used, names = Counter(plain), Counter[str](), {}
    for node, name in zip(nodes, plain, strict=True):
        used[name] += 1
        names[node.node_id] = name if total[name] == 1 else f"{name}-{used[name]}"
    return names


def _plain(name: str) -> str:
    """`name` in small letters, digits, dots and dashes; apostrophes (macOS writes U+2019) just go."""
    without = re.sub("['\u2019]", "", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", without).strip("-.")[:50] or "device"


def match_devices(
    devices: Sequence[str], nodes: Sequence[StateNode], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The node id of each device of a scenario: as `given` (device -> name or id of a
    node), else by equal names.

    Raises LiveError that lists what is left over on both sides.
    """
    names = device_names(nodes)
    found = {}
    for device in devices:
        wanted = (given or {}).get(device, device)
        hits = [
            node.node_id
            for node in nodes
            if normalise(wanted) in (normalise(node.name), normalise(names[node.node_id]))
            or node.node_id == wanted
            # an id may be shortened, but not so far that it fits by chance
            or (len(wanted) >= 6 and node.node_id.startswith(wanted))
        ]
        if len(hits) == 1:
            found[device] = hits[0]
    missing = [device for device in devices if device not in found]
    if missing or len(set(found.values())) < len(found):
        there = ", ".join(f"{names[node.node_id]} ({node.node_id[:8]}, {node.chip})" for node in nodes)
        raise LiveError(
            f"no node of the cluster could be told for {', '.join(missing) or 'each device alone'}; nodes "
            f"are {there}. Name the devices of the scenario like the nodes, or say --device device=node"
        )
    return found


def match_model(name: str, quantisation: str | None, cards: Sequence[Mapping[str, Any]]) -> str:
    """The id of EXO's card for a model as a scenario names it: the id itself, or its name and quantisation.

    Raises LiveError with the nearest ids when none or several fit.
    """
    ids = [str(card.get("hugging_face_id") or card.get("id")) for card in cards]
    for card, model_id in zip(cards, ids, strict=True):
        if name in (model_id, str(card.get("id"))):
            return model_id
    # 4 bits: what people run when they do not say
    plain, bits = normalise(name), normalise(quantisation or "4bit")
    hits = [
        model_id
        for card, model_id in zip(cards, ids, strict=True)
        if plain in _names(card, model_id) and normalise(str(card.get("quantization") or bits)) == bits
    ]
    if len(hits) == 1:
        return hits[0]
    near = did_you_mean(name, ids) or (f"; several fit: {', '.join(hits)}" if hits else "")
    raise LiveError(
        f"no model {name!r} in {bits} among the {len(ids)} that the cluster knows{near}; say --model-id ID"
    )


def _names(card: Mapping[str, Any], model_id: str) -> set[str]:
    """What a card may be called: its base model, and its name with and without
    quantisation and 'Instruct'.
    """
    tail = normalise(model_id.rpartition("/")[2])
    bits = normalise(str(card.get("quantization") or ""))
    base = tail.removesuffix(bits).rstrip(".")  # 'GLM-4.7-4bit': the point that kept two numbers apart
    return {tail, base, base.removesuffix("instruct"), normalise(str(card.get("base_model") or tail))}
