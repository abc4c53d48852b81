"""Outcomes of finished optimizations, and the predictions that learn from them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from fixtures import aws, estates
from optiinfra.api.recommendations import Optimization, Recommendation
from optiinfra.stores.qdrant import point_id
from tests.helpers import cloud_state
from tests.helpers.customer import Customer
from tests.helpers.customers import ESTATES, NewCustomer
from tests.helpers.idle_shutdown import IDLE_TYPE, MONTHLY_COST, recommend
from tests.helpers.outcomes import Figures, at_similarity, cosine, points_of, seed_outcome
from tests.helpers.runtime import customer_without_fleet
from tests.helpers.stores import Stores

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

DEPLOYMENT = "chat"
PRIOR_WEIGHT = 0.5
"""How many outcomes the uncorrected model counts for."""
USED_AT_MOST = 5
HOURS_PER_MONTH = 730

Past = tuple[str, float, float, float]
"""An outcome: its optimization, its similarity, and the ratios of measured to modelled savings and latency."""


@pytest.fixture
def stores(environment: dict[str, Any]) -> Iterator[Stores]:
    connected = Stores(environment)
    yield connected
    connected.close()


def draft_of(stores: Stores, recommendation: Recommendation) -> dict[str, Any]:
    """The draft as the agent made it, with its features and the figures of its model."""
    ((draft,),) = stores.sql("SELECT draft FROM recommendations WHERE id = %s", recommendation.id)
    return dict(draft)


def factor(ratios: Sequence[tuple[float, float]]) -> float:
    """The correction by (similarity, measured / modelled) of each outcome: their geometric mean, shrunk towards 1."""
    weight = sum(similarity for similarity, _ in ratios) + PRIOR_WEIGHT
    return float(math.prod(ratio ** (similarity / weight) for similarity, ratio in ratios))


def execute(customer: Customer, recommendation: Recommendation) -> Optimization:
    """Approve a recommendation; the completed optimization."""
    approval = customer.post(f"/recommendations/{recommendation.id}/approve")
    optimization = customer.wait_for_optimization(approval["optimization_id"])
    assert optimization.status == "completed", optimization.result
    return optimization


def check_stored(
    stores: Stores, customer: Customer, recommendation: Recommendation, optimization: Optimization, savings: float
) -> None:
    """The finished optimization is one row, one point and one event, with modelled and measured figures."""
    draft, result = draft_of(stores, recommendation), optimization.result
    assert result is not None
    assert result.actual_savings == pytest.approx(savings, abs=0.01)
    latency = {} if result.p95_after is None else {"p95_latency_ms": result.p95_after}
    modelled, measured = draft["modelled"], {"savings": result.actual_savings} | latency
    assert modelled.keys() == measured.keys()
    rows = stores.sql(
        "SELECT customer_id, type, features, modelled, measured FROM outcomes WHERE optimization_id = %s",
        optimization.id,
    )
    assert rows == [(customer.id, optimization.type, draft["features"], modelled, measured)]
    points = [one for one in points_of(stores, customer.id) if one.payload["optimization_id"] == optimization.id]
    (point,) = points
    assert point.id == point_id(optimization.id)
    assert cosine(point.vector, draft["features"]) == pytest.approx(1.0, abs=1e-6)
    # Qdrant may change the last digit of a number.
    assert point.payload == {
        "customer_id": customer.id,
        "optimization_id": optimization.id,
        "type": optimization.type,
        "modelled": pytest.approx(modelled, rel=1e-12),
        "measured": pytest.approx(measured, rel=1e-12),
    }
    events = customer.get(f"/customers/{customer.id}/events", limit=1000)
    stored = [event for event in events if event["optimization_id"] == optimization.id]
    payloads = [event["payload"] for event in stored if event["event_type"] == "outcome_stored"]
    assert payloads == [{"modelled": modelled, "measured": measured}]


def check_next_shutdown(stores: Stores, customer: Customer, first: Optimization) -> None:
    """The outcome of the shutdown, and one that saved half as much as modelled, correct the next prediction."""
    ((features,),) = stores.sql("SELECT features FROM outcomes WHERE optimization_id = %s", first.id)
    half = seed_outcome(
        stores, customer.id, "idle_shutdown", at_similarity(features, 0.95), {"savings": 100.0}, {"savings": 50.0}
    )
    aws.start_instances(
        cloud_state.ec2(customer.seeded.clouds[0]), IDLE_TYPE, 1, "on-demand", {"optiinfra:deployment": "idle"}
    )
    found = recommend(customer)
    similarities = [
        cosine(draft_of(stores, found)["features"], one) for one in (features, at_similarity(features, 0.95))
    ]
    assert found.similar_outcomes == [first.id, half]
    expected = factor([(similarities[0], 1.0), (similarities[1], 0.5)])
    assert found.estimated_savings == pytest.approx(MONTHLY_COST * expected, rel=1e-4)
    # More than the instances cost cannot be saved.
    seed_outcome(stores, customer.id, "idle_shutdown", features, {"savings": 100.0}, {"savings": 1000.0})
    assert recommend(customer).estimated_savings == pytest.approx(MONTHLY_COST, abs=0.01)


def spot_figures(recommendation: Recommendation, savings_factor: float) -> tuple[float, float]:
    """Savings and cost afterwards, recomputed: the corrected price difference, minus what interruptions cost."""
    given = recommendation.parameters
    count, spot, ondemand = given["count"], given["spot_price"], given["ondemand_price"]
    cost = ondemand * count * HOURS_PER_MONTH
    difference = cost - spot * count * HOURS_PER_MONTH
    interruptions = given["interruptions_per_month"] * count * (24 * (ondemand - spot) + ondemand)
    savings = min(difference * savings_factor, cost) - interruptions
    return savings, cost - savings


def assert_predicted(stores: Stores, recommendation: Recommendation, used: Sequence[Past]) -> None:
    """The prediction is corrected by exactly these outcomes, the most similar first."""
    assert recommendation.similar_outcomes == [optimization for optimization, *_ in used]
    modelled = draft_of(stores, recommendation)["modelled"]
    savings_factor = factor([(similarity, savings) for _, similarity, savings, _ in used])
    latency_factor = factor([(similarity, latency) for _, similarity, _, latency in used])
    savings, cost = spot_figures(recommendation, savings_factor)
    assert recommendation.estimated_savings == pytest.approx(savings, rel=1e-4)
    assert recommendation.predicted.monthly_cost == pytest.approx(cost, rel=1e-4)
    assert recommendation.predicted.p95_latency_ms == pytest.approx(
        modelled["p95_latency_ms"] * latency_factor, rel=1e-3
    )
    weight = sum(similarity for _, similarity, _, _ in used)
    assert recommendation.confidence == pytest.approx(0.7 + 0.25 * weight / (1 + weight), abs=0.001)
    told = f"{savings_factor:.3f}, as measured after {len(used)} similar changes of yours"
    assert (told in recommendation.explanation) == bool(used)


def seed_past(
    stores: Stores, customer: Customer, features: Sequence[float]
) -> tuple[dict[str, list[float]], dict[str, tuple[float, float]]]:
    """Outcomes of several similarities: their vectors, and their ratios of savings and latency, by optimization."""
    ratios = {
        0.99: (0.6, 1.5),
        0.97: (0.9, 1.2),
        0.95: (1.3, 1.0),
        0.93: (0.5, 2.0),
        0.92: (0.7, 1.1),
        0.91: (0.2, 3.0),
    }
    vectors, kept = dict[str, list[float]](), dict[str, tuple[float, float]]()
    for similarity, (savings, latency) in ratios.items():
        vector = at_similarity(features, similarity)
        modelled, measured = {"savings": 1000.0, "p95_latency_ms": 800.0}, {}
        measured = {"savings": 1000.0 * savings, "p95_latency_ms": 800.0 * latency}
        optimization = seed_outcome(stores, customer.id, "spot_migration", vector, modelled, measured)
        vectors[optimization], kept[optimization] = vector, (savings, latency)
    return vectors, kept


def seed_unusable(stores: Stores, customer: Customer, stranger: Customer, features: Sequence[float]) -> None:
    """Outcomes that must not be used: too different, of another type, and another customer's, however similar."""
    modelled: Figures = {"savings": 1000.0, "p95_latency_ms": 800.0}
    measured: Figures = {"savings": 9000.0, "p95_latency_ms": 9000.0}
    seed_outcome(stores, customer.id, "spot_migration", at_similarity(features, 0.88), modelled, measured)
    seed_outcome(stores, customer.id, "rightsizing", features, modelled, measured)
    seed_outcome(stores, stranger.id, "spot_migration", features, modelled, measured)


@pytest.mark.slow
def test_outcomes_correct_the_predictions_of_similar_changes_of_the_same_customer(
    environment: dict[str, Any], new_customer: NewCustomer, stores: Stores
) -> None:
    estate = estates.load(ESTATES / "startup.yaml")
    customer = new_customer(estate.model_copy(update={"deployments": estate.deployments[:1]}))
    with customer_without_fleet(environment) as stranger:
        shutdown = recommend(customer)
        first = execute(customer, shutdown)
        check_stored(stores, customer, shutdown, first, MONTHLY_COST)
        before = customer.analyze("cost")[DEPLOYMENT]
        assert_predicted(stores, before, [])
        features = draft_of(stores, before)["features"]
        seed_unusable(stores, customer, stranger, features)
        assert_predicted(stores, customer.analyze("cost")[DEPLOYMENT], [])
        vectors, ratios = seed_past(stores, customer, features)
        after = customer.analyze("cost")[DEPLOYMENT]
        now = draft_of(stores, after)["features"]
        used = list(vectors)[:USED_AT_MOST]
        assert_predicted(stores, after, [(one, cosine(now, vectors[one]), *ratios[one]) for one in used])
        ondemand, spot = (
            round(cloud_state.HOURLY["g5.xlarge", lifecycle] * HOURS_PER_MONTH, 2)
            for lifecycle in ("on-demand", "spot")
        )
        check_stored(stores, customer, after, execute(customer, after), 3 * (ondemand - spot))
        check_next_shutdown(stores, customer, first)
