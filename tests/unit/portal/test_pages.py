"""The pages and the dashboard's JSON."""

import re

import pytest
from starlette.testclient import TestClient

from tests.unit.portal import fake

JSON = {"accept": "application/json"}
DASHBOARD = "/portal/customers/cust_1/dashboard"


def test_dashboard_figures_add_up(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.optimizations = [
        fake.optimization("opt_2", "running", 3),
        fake.optimization("opt_1", "completed", 7, result=fake.success()),
        fake.optimization("opt_0", "rolling_back", 7, result=fake.success()),
    ]
    advice = fake.recommendation("rec_3").model_copy(update={"type": "commitment"})
    orchestrator.recommendations.append(advice)
    document = owner.get(DASHBOARD, headers=JSON).json()
    assert document["current_spend"] == pytest.approx(120_431.10)
    assert document["potential_savings"] == 18_514.0, "refused recommendations and advice do not count"
    assert document["realized_savings"] == 18_420.0
    assert [one["id"] for one in document["active_optimizations"]] == ["opt_2", "opt_0"]
    assert len(document["recommendations"]) == 3
    assert len(document["agents"]) == 4
    assert set(document["series"]) == {"monthly_cost", "p95_latency_ms", "quality_score"}


def test_dashboard_with_an_unpriced_instance_counts_it_and_shows_no_cost_of_its_deployment(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    estate = orchestrator.infrastructure
    known = sum(one.monthly_cost or 0.0 for one in estate.instances[1:])
    unpriced = estate.instances[0].model_copy(update={"monthly_cost": None})
    orchestrator.infrastructure = estate.model_copy(update={"instances": [unpriced, *estate.instances[1:]]})
    document, page = owner.get(DASHBOARD, headers=JSON).json(), owner.get("/").text
    assert document["current_spend"] == pytest.approx(known)
    assert document["unpriced_instances"] == 1
    assert ", 1 without a known price" in page
    costs = re.findall(r'<td class="number">([^<]*)</td>\s*</tr>', page.partition('id="deployments"')[2])
    assert costs[0] == "\N{EN DASH}"
    assert costs[1].startswith("$")


def test_dashboard_accepts_a_bearer_token(visitor: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.logins = 1
    answer = visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer access-1"})
    assert answer.status_code == 200
    assert visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer forged"}).status_code == 401
    assert visitor.get(DASHBOARD, headers=JSON).status_code == 401


def test_dashboard_of_another_customer_is_not_found(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    before = len(orchestrator.calls)
    answer = owner.get("/portal/customers/cust_2/dashboard", headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:optiinfra:problem:not_found")
    assert len(orchestrator.calls) == before


def test_series_are_requested_only_for_the_json(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    owner.get("/")
    assert "GET /customers/cust_1/metrics" not in orchestrator.calls
    owner.get(DASHBOARD, headers=JSON)
    assert orchestrator.calls.count("GET /customers/cust_1/metrics") == 3


@pytest.mark.parametrize("path", ["/", "/optimizations/opt_1"])
def test_page_reads_the_last_event_before_its_data(
    owner: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "running", 3)]
    orchestrator.calls.clear()
    assert '<body data-after="41">' in owner.get(path).text
    assert orchestrator.calls[0] == "GET /customers/cust_1/events/latest"


def test_errors_are_problem_details_for_programs_and_pages_for_browsers(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.unavailable = True
    document = owner.get(DASHBOARD, headers=JSON)
    assert (document.status_code, document.headers["content-type"]) == (503, "application/problem+json")
    page = owner.get("/")
    assert page.status_code == 503
    assert page.headers["content-type"].startswith("text/html")
    assert "Nothing is lost" in page.text


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_invalid_response_of_the_platform_is_a_bad_gateway(
    owner: TestClient, orchestrator: fake.Orchestrator, accept: str
) -> None:
    orchestrator.invalid = "/orchestrator/agents"
    document = owner.get("/", headers={"accept": accept})
    assert document.status_code == 502
    assert "gave a response that cannot be read" in document.text


def test_unexpected_error_is_a_page_with_security_headers_or_problem_details(
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
    document = owner.get("/", headers=JSON)
    assert (document.status_code, document.headers["content-type"]) == (500, "application/problem+json")
    assert "default-src 'none'" in document.headers["content-security-policy"]
    # The server is document too, which logs it.
    server = TestClient(owner.app, base_url=fake.ADDRESS, cookies=owner.cookies)
    with pytest.raises(RuntimeError, match="a defect"):
        server.get("/")


def test_bearer_token_while_the_platform_is_unavailable_is_a_503(
    visitor: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.unavailable = True
    answer = visitor.get(DASHBOARD, headers=JSON | {"authorization": "Bearer access-1"})
    assert answer.status_code == 503


def test_home_shows_figures_validations_and_approvable_recommendations(owner: TestClient) -> None:
    text = owner.get("/").text
    assert "$120,431" in text
    assert "$18,514 a month" in text
    assert "Performance agent objects:</b> p95 would pass 10 s" in text
    assert 'action="/recommendations/rec_1/approve"' in text
    assert 'action="/recommendations/rec_2/approve"' not in text
    assert text.index("vllm-prod-1 to spot") < text.index("vllm-prod-2 to spot")


def test_home_shows_an_idle_shutdown_without_latency_and_quality(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.recommendations = [fake.idle_shutdown("rec_3")]
    text = owner.get("/").text
    assert "Shut down 1 idle instance in us-east-1" in text
    assert "<dt>p95 latency</dt><dd>\N{EN DASH}</dd>" in text
    assert "<dt>Quality</dt><dd>\N{EN DASH}</dd>" in text
    assert 'action="/recommendations/rec_3/approve"' in text


def test_home_offers_no_approval_before_every_validation(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    one = orchestrator.recommendations[0]
    orchestrator.recommendations = [one.model_copy(update={"validations": one.validations[:1]})]
    text = owner.get("/").text
    assert "Being checked by the application agent" in text
    assert "/approve" not in text
    assert owner.get(DASHBOARD, headers=JSON).json()["potential_savings"] == 0.0


def test_home_offers_no_approval_of_advice(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.recommendations = [fake.recommendation("rec_1").model_copy(update={"type": "commitment"})]
    page = owner.get("/").text
    assert "Advice for you to follow" in page
    assert "/recommendations/rec_1/approve" not in page


def test_home_shows_no_buttons_to_a_viewer(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.identity = fake.OWNER.model_copy(update={"role": "viewer"})
    owner.post("/login", data={"email": fake.OWNER.email, "password": fake.PASSWORD})
    text = owner.get("/").text
    assert "/approve" not in text
    assert "An approver decides" in text


def test_home_of_an_empty_infrastructure(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.recommendations = []
    orchestrator.infrastructure = orchestrator.infrastructure.model_copy(
        update={"status": "pending", "instances": [], "vllm_deployments": []}
    )
    text = owner.get("/").text
    assert "Nothing to decide" in text
    assert "No deployment is known yet" in text


def test_approve_redirects_to_the_optimization(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = owner.post("/recommendations/rec_1/approve")
    assert (answer.status_code, answer.headers["location"]) == (303, "/optimizations/opt_1")
    assert orchestrator.calls[-1] == "POST /recommendations/rec_1/approve"


def test_approve_refused_shows_the_reason(owner: TestClient) -> None:
    answer = owner.post("/recommendations/rec_2/approve")
    assert answer.status_code == 409
    assert "The performance agent objects" in answer.text


def test_reject_without_reason_is_refused(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    assert owner.post("/recommendations/rec_1/reject", data={"reason": "  "}).status_code == 422
    assert "POST /recommendations/rec_1/reject" not in orchestrator.calls
    answer = owner.post("/recommendations/rec_1/reject", data={"reason": "not this week"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_reject_with_an_overlong_reason_is_refused(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    answer = owner.post("/recommendations/rec_1/reject", data={"reason": "x" * 201})
    assert answer.status_code == 422
    assert "Reason may have at most 200 characters." in answer.text
    assert "POST /recommendations/rec_1/reject" not in orchestrator.calls


def test_optimization_in_progress_shows_completed_and_planned_steps(
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


def test_completed_optimization_compares_prediction_and_measurement(
    owner: TestClient, orchestrator: fake.Orchestrator
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "completed", 7, result=fake.success())]
    text = owner.get("/optimizations/opt_1").text
    for figure in ("$18,514", "$18,420", "46.0% cheaper", "7.41 s", "7.2 s", "97.1%", "96.7%", "at least 94.1%"):
        assert figure in text
    assert "planned" not in text


def test_unknown_optimization_is_an_error_page(owner: TestClient) -> None:
    answer = owner.get("/optimizations/opt_9")
    assert answer.status_code == 404
    assert "Not found" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/", "/optimizations/opt_1", "/audit", "/settings", "/settings/users", "/settings/keys", "/settings/account"],
)
def test_pages_have_no_inline_code_and_no_dead_link(
    owner: TestClient, orchestrator: fake.Orchestrator, path: str
) -> None:
    orchestrator.optimizations = [fake.optimization("opt_1", "completed", 7, result=fake.success())]
    answer = owner.get(path)
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", answer.text)
    links = set(re.findall(r'(?:href|src)="([^"]+)"', answer.text))
    assert {link: owner.get(link).status_code for link in links} == dict.fromkeys(links, 200)
