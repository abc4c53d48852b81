"""Prices of the price book, its errors, and the plausibility of every row."""

from datetime import UTC, date, datetime

import pytest

from optiinfra.clouds.price_book import PriceBook, UnknownPriceError
from optiinfra.domain import savings
from optiinfra.domain.hardware import INSTANCE_TYPES

PLACE = ("aws", "us-east-1", "p4de.24xlarge")


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.load()


def test_on_demand_prices_include_the_reductions_of_june_2025(book: PriceBook) -> None:
    assert book.on_demand_price(*PLACE).hourly == 27.44705
    assert book.on_demand_price("aws", "us-east-1", "p5.48xlarge").hourly == 55.04
    assert book.on_demand_price("aws", "us-east-1", "p4d.24xlarge").hourly == 21.957642


def test_known_instance_types_have_a_price_in_some_region(book: PriceBook) -> None:
    def somewhere(instance_type: str) -> bool:
        for region in ("us-east-1", "us-west-2"):
            try:
                return book.on_demand_price("aws", region, instance_type).hourly > 0
            except UnknownPriceError:
                continue
        return False

    assert [name for name in INSTANCE_TYPES if not somewhere(name)] == []


@pytest.mark.parametrize("instance_type", [name for name in INSTANCE_TYPES if not name.startswith("p5e.")])
def test_rows_are_plausible_dated_and_sourced(book: PriceBook, instance_type: str) -> None:
    place = ("aws", "us-east-1", instance_type)
    listed, spot = book.on_demand_price(*place), book.spot_price(*place)
    assert 0.1 * listed.hourly < spot.hourly < 0.9 * listed.hourly
    assert 0 < book.interruptions_per_month(*place) <= 0.25
    for price in (listed, spot):
        assert date(2025, 6, 1) <= price.as_of <= datetime.now(UTC).date()
        assert price.source


def test_spot_price_without_quote_says_so(book: PriceBook) -> None:
    assert book.spot_price(*PLACE).source.startswith("typical, not a quote")


def test_two_p4de_on_spot_save_about_18_000_dollars_a_month(book: PriceBook) -> None:
    saved = savings.monthly(book.on_demand_price(*PLACE).hourly, 2) - savings.monthly(book.spot_price(*PLACE).hourly, 2)
    assert saved == pytest.approx(18_400, rel=0.02)


@pytest.mark.parametrize("quoted", [2.744706, 14.0, 27.44705])
def test_spot_price_with_plausible_quote_is_the_quote(book: PriceBook, quoted: float) -> None:
    price = book.spot_price(*PLACE, quoted=quoted)
    assert (price.hourly, price.source) == (quoted, "quoted by the cloud")
    assert price.as_of == datetime.now(UTC).date()


@pytest.mark.parametrize("quoted", [None, 0.0, 0.00001, 2.744, 27.45, -1.0, float("nan")])
def test_spot_price_with_implausible_quote_is_the_typical_one(book: PriceBook, quoted: float | None) -> None:
    assert book.spot_price(*PLACE, quoted=quoted) == book.spot_price(*PLACE)


def test_hourly_price_follows_the_lifecycle(book: PriceBook) -> None:
    assert book.hourly(*PLACE, "on-demand", quoted=14.0) == 27.44705
    assert book.hourly(*PLACE, "spot", quoted=14.0) == 14.0
    assert book.hourly(*PLACE, "spot") == book.spot_price(*PLACE).hourly


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (("aws", "mars-1", "g5.xlarge"), ["g5.xlarge", "mars-1", "us-east-1"]),
        (("aws", "us-east-1", "x9.huge"), ["x9.huge", "us-east-1", "p5.48xlarge"]),
        (("gcp", "us-central1", "a3-highgpu-8g"), ["a3-highgpu-8g", "us-central1", "aws us-east-1"]),
    ],
)
def test_unknown_price_names_the_known_ones(book: PriceBook, place: tuple[str, str, str], named: list[str]) -> None:
    with pytest.raises(UnknownPriceError) as error:
        book.on_demand_price(*place)
    assert all(word in str(error.value) for word in named)


def test_type_sold_in_blocks_only_has_no_spot_price(book: PriceBook) -> None:
    place = ("aws", "us-west-2", "p5e.48xlarge")
    assert book.on_demand_price(*place).hourly > 0
    with pytest.raises(UnknownPriceError, match="no spot price"):
        book.spot_price(*place)
    with pytest.raises(UnknownPriceError, match="no interruption rate"):
        book.interruptions_per_month(*place)
