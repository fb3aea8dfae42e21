"""Money: an amount is nothing without its currency, and a price nothing without its source."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simulator.errors import UnitError
from simulator.spec import Spec

__all__ = ["Money", "Price", "Quote", "per_joule", "read_money"]

CURRENCIES = ("EUR", "GBP", "USD")
JOULES_PER_KWH = 3.6e6
_TEXT = re.compile(r"\s*(\d{1,9}(?:\.\d{1,4})?)\s*([A-Z]{3})\s*(/\s*kWh)?\s*\Z")


class Money(Spec):
    """An amount in a currency."""

    amount: float = Field(ge=0, le=1e9)
    currency: Literal["EUR", "GBP", "USD"]


class Quote(Spec):
    """What one thing costs in the plan's currency, and how much to believe that."""

    what: str
    amount: float
    label: Literal["catalogue", "assumed", "yours", "owned"]
    source: str = ""
    as_of: str = "undated"


def read_money(value: Any, *, energy: bool = False) -> Money:
    """'800 EUR', or '0.30 EUR/kWh' where `energy` is meant; raises UnitError.

    >>> read_money("800 EUR").amount
    800.0
    """
    if isinstance(value, Money):
        return value
    example = "0.30 EUR/kWh" if energy else "800 EUR"
    match = _TEXT.match(value) if isinstance(value, str) else None
    if match is None or match[2] not in CURRENCIES or bool(match[3]) != energy:
        raise UnitError(
            f"{str(value)[:40]!r} is no price; write an amount and one of {', '.join(CURRENCIES)}, "
            f"for example {example!r}"
        )
    return Money.model_validate({"amount": float(match[1]), "currency": match[2]})


def per_joule(price_per_kwh: float) -> float:
    """The same price per joule: `price / 3.6e6`."""
    return price_per_kwh / JOULES_PER_KWH


Price = Annotated[Money, BeforeValidator(read_money)]
