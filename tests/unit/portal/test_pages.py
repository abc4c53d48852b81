"""The pages and the dashboard's JSON."""

import re

import pytest
from starlette.testclient import TestClient

from tests.unit.portal import fake

JSON = {"accept": "application/json"}
DASHBOARD = "/portal/customers/cust_1/dashboard"


def test_the_dashboard_adds_up(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.optimizations = [
        fake.optimization("opt_2", "running", 3),
        fake.optimization("opt_1", "completed", 7, result=fake.success()),
    ]
    told = owner.get(DASHBOARD, headers=JSON).json()
    assert told["current_spend"] == pytest.approx(120_431.10)
    assert told["potential_savings"] == 18_514.0, "what a validator refuses cannot be saved"
    assert told["realized_savings"] == 18_420.0
    assert [one["id"] for one in told["active_optimizations"]] == ["opt_2"]
    assert len(told["recommendations"]) == 2
    assert len(told["agents"]) == 4
    assert set(told["series"]) == {"monthly_cost", "p95_latency_ms", "quality_score"}


def test_the_dashboard_takes_a_bearer_token(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.signings = 1
    answer = visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer access-1"})
    assert answer.status_code == 200
    assert visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer forged"}).status_code == 401
    assert visitor.get(DASHBOARD, headers=JSON).status_code == 401


def test_another_customers_dashboard_is_unknown(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    before = len(orchestrator.calls)
    answer = owner.get("/portal/customers/cust_2/dashboard", headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:optiinfra:problem:not_found")
    assert len(orchestrator.calls) == before


def test_series_are_fetched_for_the_json_alone(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    owner.get("/")
    assert "GET /customers/cust_1/metrics" not in orchestrator.calls
    owner.get(DASHBOARD, headers=JSON)
    assert orchestrator.calls.count("GET /customers/cust_1/metrics") == 3


@pytest.mark.parametrize("path", ["/", "/optimizations/opt_1"])
def test_a_page_tells_the_last_event_before_its_data(
    owner: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "running", 3)]
    orchestrator.calls.clear()
    assert '<body data-after="41">' in owner.get(path).text
    assert orchestrator.calls[0] == "GET /customers/cust_1/events/latest"


def test_programs_get_problems_and_people_get_pages(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.away = True
    told = owner.get(DASHBOARD, headers=JSON)
    assert (told.status_code, told.headers["content-type"]) == (503, "application/problem+json")
    page = owner.get("/")
    assert page.status_code == 503
    assert page.headers["content-type"].startswith("text/html")
    assert "Nothing is lost" in page.text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_an_answer_that_cannot_be_read_is_the_platforms_fault(
    owner: TestClient, orchestrator: fake.Orchestrator, accept: str
) -> None:
    orchestrator.nonsense = "/orchestrator/agents"
    told = owner.get("/", headers={"accept": accept})
    assert told.status_code == 502
    assert "gave an answer that cannot be read" in told.text


def test_a_defect_of_ours_is_a_protected_page_for_people_and_a_problem_for_programs(
    owner: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("optiinfra.portal.dashboard.overview", broken)
    page = owner.get("/")
    assert (page.status_code, page.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "a defect" not in page.text
    assert "Trace " in page.text
    told = owner.get("/", headers=JSON)
    assert (told.status_code, told.headers["content-type"]) == (500, "application/problem+json")
    assert "default-src 'none'" in told.headers["content-security-policy"]
    # The server is told too, which logs it.
    server = TestClient(owner.app, base_url=fake.ADDRESS, cookies=owner.cookies)
    with pytest.raises(RuntimeError, match="a defect"):
        server.get("/")


def test_a_bearer_token_cannot_be_checked_while_the_platform_is_away(
    visitor: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.away = True
    answer = visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer access-1"})
    assert answer.status_code == 503


def test_home_shows_figures_voices_and_who_may_be_approved(owner: TestClient) -> None:
    text = owner.get("/").text
    assert "$120,431" in text
    assert "$18,514 a month" in text
    assert "Performance agent objects:</b> p95 would pass 10 s" in text
    assert 'action="/recommendations/rec_1/approve"' in text
    assert 'action="/recommendations/rec_2/approve"' not in text
    assert text.index("vllm-prod-1 to spot") < text.index("vllm-prod-2 to spot")


def test_nothing_is_approved_before_every_validator_has_spoken(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    one = orchestrator.recommendations[0]
    orchestrator.recommendations = [one.model_copy(update={"validations": one.validations[:1]})]
    text = owner.get("/").text
    assert "Being checked by the application agent" in text
    assert "/approve" not in text
    assert owner.get(DASHBOARD, headers=JSON).json()["potential_savings"] == 0.0


def test_a_viewer_sees_no_buttons(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.identity = fake.OWNER.model_copy(update={"role": "viewer"})
    owner.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    text = owner.get("/").text
    assert "/approve" not in text
    assert "An approver decides" in text


def test_an_estate_with_nothing_yet(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.recommendations = []
    orchestrator.infrastructure = orchestrator.infrastructure.model_copy(
        update={"status": "pending", "instances": [], "vllm_deployments": []}
    )
    text = owner.get("/").text
    assert "Nothing to decide" in text
    assert "No deployment is known yet" in text


def test_approving_leads_to_the_optimization(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = owner.post("/recommendations/rec_1/approve")
    assert (answer.status_code, answer.headers["location"]) == (303, "/optimizations/opt_1")
    assert orchestrator.calls[-1] == "POST /recommendations/rec_1/approve"


def test_what_cannot_be_approved_says_why(owner: TestClient) -> None:
    answer = owner.post("/recommendations/rec_2/approve")
    assert answer.status_code == 409
    assert "The performance agent objects" in answer.text


def test_rejecting_needs_a_reason(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    assert owner.post("/recommendations/rec_1/reject", data={"reason": "  "}).status_code == 422
    assert "POST /recommendations/rec_1/reject" not in orchestrator.calls
    answer = owner.post("/recommendations/rec_1/reject", data={"reason": "not this week"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_running_optimization_shows_what_is_done_and_what_comes(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "running", 3)]
    text = owner.get("/optimizations/opt_1").text
    classes = re.findall(r'<li class="(completed|running|planned)"', text)
    assert classes == ["completed"] * 3 + ["running"] + ["planned"] * 3
    assert "Predicted and measured" not in text
    assert "<dt>Performance agent</dt><dd>p95 7,077 ms over 304 requests</dd>" in text
    assert "<dt>Weights</dt><dd>r-8 0.2</dd>" in text
    assert "2026-11-02T09" not in text


def test_a_finished_optimization_compares_prediction_and_measurement(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "completed", 7, result=fake.success())]
    text = owner.get("/optimizations/opt_1").text
    for figure in ("$18,514", "$18,420", "46.0% cheaper", "7.41 s", "7.2 s", "97.1%", "96.7%", "at least 94.1%"):
        assert figure in text
    assert "planned" not in text


def test_an_unknown_optimization_is_a_readable_page(owner: TestClient) -> None:
    answer = owner.get("/optimizations/opt_9")
    assert answer.status_code == 404
    assert "Not found" in answer.text


@pytest.mark.parametrize("path", ["/", "/optimizations/opt_1"])
def test_pages_hold_no_inline_code_and_no_dead_link(
    owner: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "completed", 7, result=fake.success())]
    answer = owner.get(path)
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", answer.text)
    links = set(re.findall(r'(?:href|src)="([^"]+)"', answer.text))
    assert {link: owner.get(link).status_code for link in links} == dict.fromkeys(links, 200)
