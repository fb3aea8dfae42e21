"""Prices: API tokens and household electricity, for cost per token and break-even."""

from __future__ import annotations

from functools import cache

from simulator.catalog.tables import Facts, table

__all__ = ["CloudPrice", "ElectricityPrice", "cloud_prices", "electricity_prices"]

TOKENS_PER_PRICE = 1e6  # providers quote per million tokens
JOULES_PER_KWH = 3.6e6


class CloudPrice(Facts):
    """What a provider asks per token."""

    provider: str
    model: str
    input_usd_per_token: float
    output_usd_per_token: float
    as_of: str
    source: str
    confidence: str
    note: str = ""


class ElectricityPrice(Facts):
    """What a household pays per joule, in `currency`."""

    region: str
    price_per_joule: float
    currency: str
    period: str
    source: str
    confidence: str
    note: str = ""

    @property
    def price_per_kwh(self) -> float:
        """The figure on the bill."""
        return self.price_per_joule * JOULES_PER_KWH


@cache
def cloud_prices() -> tuple[CloudPrice, ...]:
    """All API prices of the catalogue."""
    kept = ("provider", "model", "as_of", "source", "confidence", "note")
    return tuple(
        CloudPrice(
            input_usd_per_token=float(row["input_usd_per_mtok"]) / TOKENS_PER_PRICE,
            output_usd_per_token=float(row["output_usd_per_mtok"]) / TOKENS_PER_PRICE,
            **{column: row[column] for column in kept},
        )
        for row in table("cloud_prices")
    )


@cache
def electricity_prices() -> tuple[ElectricityPrice, ...]:
    """All household electricity prices of the catalogue."""
    kept = ("region", "period", "source", "confidence", "note")
    return tuple(
        ElectricityPrice(
            price_per_joule=float(row["price"]) / JOULES_PER_KWH,
            currency=row["unit"].split("/")[0],
            **{column: row[column] for column in kept},
        )
        for row in table("electricity_prices")
    )
