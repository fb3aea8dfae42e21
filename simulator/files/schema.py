"""A JSON schema of a spec, for editors that complete and check YAML while it is typed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["schema"]


def schema(cls: type[BaseModel]) -> dict[str, Any]:
    """The schema of `cls` in draft 2020-12; a quantity is text with a number and a unit, as in the file.

    It knows keys, types, units and ranges of plain numbers; what relates two keys only `load` checks.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | cls.model_json_schema(
        mode="validation"
    )
