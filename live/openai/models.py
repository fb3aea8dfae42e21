"""Which of a server's models a scenario means, and what the list tells of the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from live.errors import LiveError
from live.number import finite
from live.reply import counted
from simulator.catalog.model_names import spelling
from simulator.catalog.tables import normalise

__all__ = ["Offered", "match_id", "offered"]

MOST_MODELS = 5000  # a gateway to every model there is lists some hundred
MOST_SHOWN = 5
ENDINGS = (".gguf", ":latest")
# what each puts into `owned_by` of its list, in its own source
OWNERS = {
    "llamacpp": "llama-server",
    "vllm": "vLLM",
    "library": "Ollama",
    "organization_owner": "LM Studio",
    "exo": "EXO",
    "sglang": "SGLang",
}


@dataclass(frozen=True, slots=True)
class Offered:
    """One model of the list; sizes where the server tells them (llama-server, vLLM)."""

    model_id: str
    server: str | None = None
    size_bytes: float | None = None
    context_tokens: int | None = None


def offered(answer: Any) -> tuple[Offered, ...] | None:
    """The models of an answer of `/models`; None where it is no such list."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return None
    return tuple(
        _offered(entry)
        for entry in entries[:MOST_MODELS]
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    )


def _offered(entry: dict[str, Any]) -> Offered:
    meta, context = entry.get("meta"), entry.get("max_model_len")
    size = finite(meta.get("size")) if isinstance(meta, dict) else None
    return Offered(
        entry["id"][:500],
        OWNERS.get(str(entry.get("owned_by"))),
        size if size and size > 0 else None,
        counted(context) or None,
    )


def match_id(name: str, quantisation: str | None, ids: Sequence[str]) -> str:
    """The id of the model that a scenario calls `name`: the id itself, or another spelling of it.

    Of several spellings the one whose id holds the quantisation. Raises LiveError with the nearest ids.

    >>> match_id("Llama-3.1-8B", "Q4_K_M", ["/models/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "qwen3:8b"])
    '/models/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf'
    """
    if name in ids:
        return name
    hits = [one for one in ids if normalise(_bare(one)) == normalise(name) or spelling(_bare(one), [name])]
    bits = normalise(quantisation or "")
    if len(hits) > 1 and bits:
        hits = [one for one in hits if bits in normalise(one)] or hits
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise LiveError(f"several models of the server may be {name!r}{_near(name, hits)}; say --model-id ID")
    raise LiveError(
        f"no model {name!r} among the {len(ids)} that the server offers{_near(name, ids)}; name it in the "
        "scenario, or say --model-id ID"
    )


def _bare(model_id: str) -> str:
    """An id without the folder and the ending of a file."""
    bare = model_id.replace("\\", "/").rpartition("/")[2]
    for ending in ENDINGS:
        bare = bare.removesuffix(ending)
    return bare.replace(":", "-")


def _near(name: str, ids: Sequence[str]) -> str:
    """': the nearest are a, b', the nearest first."""
    by_bare = {_bare(one).lower(): one for one in ids}
    near = [by_bare[one] for one in get_close_matches(name.lower(), list(by_bare), MOST_SHOWN, 0.3)]
    shown = near or list(ids)[:MOST_SHOWN]
    return f": {'the nearest are' if near else 'they are'} {', '.join(map(repr, shown))}" if shown else ""
