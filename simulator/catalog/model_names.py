"""A model by the name that people and repositories give it: 'mlx-community/Qwen3-4B-Instruct-2507-4bit'."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simulator.catalog.tables import normalise

__all__ = ["spelling"]

# what is said of a file or of its tuning, never of the architecture
FILE = r"\d(\.\d+)?-?bits?|bf16|fp16|f16|fp8|int[48]|bnb|nf4|mxfp[48]|nvfp4|gs\d+|dwq|awq|gptq|gguf|mlx|q8"
DYNAMIC = r"(ud-)?[it]?q\d(_[0-9a-z]+)*|dq\d[a-z0-9_]*"
TUNING = r"instruct|it|qat|chat|hf|base|preview|thinking|reasoning|\d{4}|v\d+(\.\d+)?"
TAIL = re.compile(rf"[-_ ]({FILE}|{DYNAMIC}|{TUNING})$", re.IGNORECASE)


def spelling(name: str, known: Sequence[str]) -> str | None:
    """The known name that `name` is another spelling of, or None.

    The owner in front and words at the end that say how a file was made or tuned are left out one by one;
    what is left must be a known name, never merely near one.

    >>> spelling("mlx-community/Qwen3-4B-Instruct-2507-4bit", ["Qwen3-4B", "Qwen3-14B"])
    'Qwen3-4B'
    """
    by_name = {normalise(entry): entry for entry in known}
    left = name[:200].rpartition("/")[2]
    while True:
        for prefix in ("", "meta", "nvidia", "google", "qwen", "mistralai", "openai"):
            found = by_name.get(normalise(left).removeprefix(prefix))
            if found is not None:
                return found
        shorter = TAIL.sub("", left)
        if shorter == left:
            return None
        left = shorter
