"""Prices of cloud instances: list prices and typical spot prices, with date and source (`prices.csv`)."""

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Self

from optiinfra.domain.recommendation import Lifecycle

# The bands of AWS's Spot Advisor: share of instances reclaimed in a month, taken at the band's middle.
# The last band has no upper end; a quarter is our estimate.
_INTERRUPTIONS = {"<5%": 0.025, "5-10%": 0.075, "10-15%": 0.125, "15-20%": 0.175, ">20%": 0.25}

PLAUSIBLE_SHARE = 0.1
"""Least plausible spot quote, as a share of the on-demand price: AWS promises discounts of "up to 90%"."""


class UnknownPriceError(LookupError):
    """The price book has no such row; the text names the row and the known alternatives."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars an hour for one instance (Linux, shared tenancy, before taxes), with date and source."""

    hourly: float
    as_of: date
    source: str


@dataclass(frozen=True, slots=True)
class _Row:
    on_demand: Price
    spot: Price | None
    interruptions: float | None


class PriceBook:
    """Prices by provider, region and instance type."""

    def __init__(self, rows: dict[tuple[str, str, str], _Row]) -> None:
        self._rows = rows

    @classmethod
    def load(cls) -> Self:
        """Load the price book of the package."""
        text = files(__package__).joinpath("prices.csv").read_text(encoding="utf-8")
        rows: dict[tuple[str, str, str], _Row] = {}
        for line in csv.DictReader(text.splitlines()):
            rows[line["provider"], line["region"], line["instance_type"]] = _Row(
                on_demand=_price(line, "on_demand"),
                # A type that is sold in capacity blocks only has neither.
                spot=_price(line, "spot") if line["spot"] else None,
                interruptions=_INTERRUPTIONS[line["interruptions"]] if line["interruptions"] else None,
            )
        return cls(rows)

    def regions(self, provider: str) -> set[str]:
        """The provider's regions with prices."""
        return {region for name, region, _ in self._rows if name == provider}

    def on_demand_price(self, provider: str, region: str, instance_type: str) -> Price:
        """The list price."""
        return self._row(provider, region, instance_type).on_demand

    def spot_price(self, provider: str, region: str, instance_type: str, quoted: float | None = None) -> Price:
        """The spot price: the cloud's own quote (dollars an hour) when it is plausible, else the typical one.

        Plausible is a quote between `PLAUSIBLE_SHARE` of the on-demand price and the whole of it.
        """
        row = self._row(provider, region, instance_type)
        ceiling = row.on_demand.hourly
        if quoted is not None and PLAUSIBLE_SHARE * ceiling <= quoted <= ceiling:
            return Price(quoted, datetime.now(UTC).date(), "quoted by the cloud")
        if row.spot is None:
            raise UnknownPriceError(f"no spot price of {instance_type} in {provider} {region} is known")
        return row.spot

    def interruptions_per_month(self, provider: str, region: str, instance_type: str) -> float:
        """Expected interruptions per spot instance of this type and month."""
        rate = self._row(provider, region, instance_type).interruptions
        if rate is None:
            raise UnknownPriceError(f"no interruption rate of {instance_type} in {provider} {region} is known")
        return rate

    def hourly(
        self, provider: str, region: str, instance_type: str, lifecycle: Lifecycle, quoted: float | None = None
    ) -> float:
        """Dollars an hour for that lifecycle; `quoted` is used for spot only."""
        if lifecycle == "spot":
            return self.spot_price(provider, region, instance_type, quoted).hourly
        return self.on_demand_price(provider, region, instance_type).hourly

    def _row(self, provider: str, region: str, instance_type: str) -> _Row:
        try:
            return self._rows[provider, region, instance_type]
        except KeyError:
            raise UnknownPriceError(self._why_unknown(provider, region, instance_type)) from None

    def _why_unknown(self, provider: str, region: str, instance_type: str) -> str:
        unknown = f"no price of {instance_type} in {provider} {region}"
        elsewhere = sorted(r for p, r, t in self._rows if (p, t) == (provider, instance_type))
        if elsewhere:
            return f"{unknown}; regions with a price of it: {', '.join(elsewhere)}"
        types = sorted({t for p, r, t in self._rows if (p, r) == (provider, region)})
        if types:
            return f"{unknown}; types with a price there: {', '.join(types)}"
        places = sorted({f"{p} {r}" for p, r, _ in self._rows})
        return f"{unknown}; places with prices: {', '.join(places)}"


def _price(line: dict[str, str], kind: str) -> Price:
    return Price(float(line[kind]), date.fromisoformat(line[f"{kind}_date"]), line[f"{kind}_source"])
