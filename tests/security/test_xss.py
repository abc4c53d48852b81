"""Cross-site scripting: names and texts that others choose are shown by the portal's pages, and run no script."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from fixtures import aws
from fixtures.provision import create_roles, enrol_runtime
from optiinfra.api.recommendations import Recommendation
from testbed import chromium
from testbed.waiting import wait_until
from tests.helpers import cloud_state
from tests.helpers.accounts import PASSWORD
from tests.helpers.callers import bearer
from tests.helpers.customer import Customer
from tests.helpers.customers import end_changes
from tests.helpers.hostile_gateway import HostileGateway, Names, names
from tests.helpers.hostile_html import in_frames, packed, vulnerable_pages
from tests.helpers.private_platform import PrivatePlatform
from tests.helpers.runtime import connected_runtime, customer_without_fleet
from tests.helpers.scripted_agent import Task, draft, platform_for_scripted_agents, scripted_agents
from tests.helpers.template_injection import COMPUTED
from tests.helpers.tenants import external_id_of
from tests.helpers.watched_browser import Watched, visible_text, watched, without_space

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Response  # not needed to collect the tests

pytestmark = [pytest.mark.security, pytest.mark.slow]

IDLE_TYPE = "g5.xlarge"
DEPLOYMENTS = 2
"""With four names each that are shown: enough for all hostile texts."""
POLICY = {
    "default-src": "'none'",
    "style-src": "'self'",
    "script-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
"""No source but the portal itself, and nothing inline."""


PAGE, JSON = "text/html", "application/json"
SHOWN_BY = {JSON: "{", "text/plain": "# HELP", "text/event-stream": "infrastructure_discovered"}
"""Text to wait for in such a document. An event stream never ends, so it is the last event that must be shown."""


@dataclass
class Scene:
    """A customer of whom everything that anybody else chooses is hostile; `analysis` counts the agents' analyses."""

    customer: Customer
    mark: str
    hostile: list[str]
    named: list[Names]
    instances: list[tuple[str, str]]
    idle: str
    analysis: int = 0
    optimization_id: str = ""
    invitation: str = ""

    @property
    def all(self) -> str:
        """All hostile texts in one."""
        return " ".join(self.hostile)

    @property
    def invited(self) -> str:
        """The address of somebody whom the owner has invited."""
        return f"2{self.customer.seeded.email}"

    @property
    def unknown(self) -> str:
        """The id of something that the customer has not got, for which a program has asked."""
        return f"<img src=x onerror={self.mark}()>"

    def titles(self) -> list[str]:
        """The titles that the agent has given in its last analysis."""
        return [f"{text} {self.analysis}" for text in self.hostile]

    def analyze(self, _task: Task) -> dict[str, Any]:
        """The cost agent: hostile advice, and at first a change that can be made."""
        self.analysis += 1
        advice = [draft(title, explanation=f"{self.all} explained") for title in self.titles()]
        parameters = {
            "provider": "aws",
            "region": "us-east-1",
            "instance_ids": [self.idle],
            "idle_since": "2026-01-01T00:00:00Z",
            "hourly_cost": 1.0,
        }
        change = draft(
            f"{self.hostile[0]} shutdown",
            type="idle_shutdown",
            explanation=f"{self.all} explained",
            affected_resources=[self.idle],
            parameters=parameters,
            estimated_savings=100.0,
        )
        return {"drafts": [*advice, change] if self.analysis == 1 else advice, "summary": self.all}

    def assess(self, agent_type: str) -> Callable[[Task], dict[str, Any]]:
        """Another agent, which agrees with everything for hostile reasons."""

        def answer(task: Task) -> dict[str, Any]:
            answer = {"agent_type": agent_type, "reason": f"{self.all} by {agent_type}"}
            if task["kind"] == "validate":
                return answer | {"approved": True}
            return answer | {"decision": "pass", "observations": 100}

        return answer

    @property
    def home(self) -> list[str]:
        """What the dashboard must show."""
        return [
            self.customer.seeded.email,
            *self.titles(),
            f"{self.all} explained",
            f"{self.all} by performance",
            f"{self.all} by application",
            *(instance_type for _, instance_type in self.instances),
            *(text for one in self.named for text in (one.deployment, one.model, one.provider.upper(), one.region)),
        ]


@pytest.fixture(scope="module")
def hostile_platform(environment: dict[str, Any]) -> Iterator[PrivatePlatform]:
    changed = {"IDLE_OBSERVATION_SECONDS": "0", "IDLE_POLL_SECONDS": "0.1"}
    with platform_for_scripted_agents(environment, "xss", **changed) as platform:
        yield platform


@contextmanager
def hostile_customer(platform: PrivatePlatform) -> Iterator[Scene]:
    """Hostile texts wherever one can come in: from users, clouds, runtimes, engines and agents."""
    mark = f"xss{uuid.uuid4().hex[:8]}"
    hostile = packed(mark)
    with ExitStack() as stack:
        new_agent = stack.enter_context(scripted_agents(platform, heartbeat_seconds=1.0))
        # A user's address may have no angle brackets and no parentheses, but this suffices to leave an attribute.
        email = f"'/type=image/src=x/onerror={mark}`1`/'@example.com"
        customer = stack.enter_context(customer_without_fleet(platform.document, email=email, company_name=hostile[0]))
        client = cloud_state.ec2(customer.seeded.clouds[0])
        tags = {"Name": hostile[0], "owner": hostile[1]}
        types = hostile[-DEPLOYMENTS:]
        instances = [(aws.start_instances(client, text, 1, "on-demand", tags)[0], text) for text in types]
        (idle,) = aws.start_instances(client, IDLE_TYPE, 1, "on-demand", tags)
        named = [names(hostile, 4 * number) for number in range(DEPLOYMENTS)]
        scene = Scene(customer, mark, hostile, named, instances, idle)
        gateway = HostileGateway(platform.document["host_address"], named, instances)
        stack.enter_context(gateway.serving())
        create_roles(platform.document, customer.seeded, external_id_of(customer))
        enrol(platform, customer, gateway)
        stack.callback(end_changes, customer)
        customer.onboard()
        new_agent("cost", scene.analyze).register(
            hostname=hostile[1], version=hostile[2], capabilities=["analyze", *hostile]
        )
        for agent_type in ("performance", "application"):
            new_agent(agent_type, scene.assess(agent_type))
        body = {"email": scene.invited, "role": "viewer"}
        scene.invitation = customer.post(f"/customers/{customer.id}/users", body)["invitation_token"]
        key = customer.post(f"/customers/{customer.id}/api-keys", {"name": hostile[0], "scope": "read"})["api_key"]
        refused = customer.http.get(f"/optimizations/{quote(scene.unknown, safe='')}", headers=bearer(key))
        assert refused.status_code == 404
        with connected_runtime(customer, hostname=hostile[1], version=hostile[2]):
            pass
        wait_until(
            customer.infrastructure,
            "the deployments",
            20,
            accept=lambda found: len(found.vllm_deployments) == DEPLOYMENTS,
        )
        yield scene


def enrol(platform: PrivatePlatform, customer: Customer, gateway: HostileGateway) -> None:
    """Have the platform's runtime serve the customer with this gateway."""
    token = customer.post(f"/customers/{customer.id}/agent-install-command")["agent_token"]
    enrol_runtime(platform.document, customer.id, token, gateway.url)


def reject(scene: Scene, recommendation: Recommendation) -> None:
    scene.customer.post(f"/recommendations/{recommendation.id}/reject", {"reason": scene.hostile[0]})


def check_payloads_run(browser: Watched) -> None:
    """Each payload is noticed in a page that does not escape it."""
    page = browser.open("/login")
    pages = dict(vulnerable_pages(browser.mark))
    page.set_content(in_frames(pages.items()))

    def unnoticed() -> list[str]:
        page.wait_for_timeout(50)  # what is noticed arrives while the browser is asked for something
        return [name for name in pages if not any(text.endswith(f" {name}") for text in browser.noticed)]

    wait_until(unnoticed, "all payloads to run", 10, accept=lambda names: not names)
    page.close()
    browser.noticed.clear()


def check_policy_works(browser: Watched) -> None:
    """The policy stops what a page would run without escaping, and that is noticed."""
    page = browser.open("/login")
    page.evaluate("(html) => { document.body.innerHTML = html }", f"<img src=x onerror={browser.mark}()>")

    def noticed() -> list[str]:
        page.wait_for_timeout(50)
        return browser.noticed

    wait_until(noticed, "the violation to be noticed", 10)
    assert browser.noticed == ["violation of script-src-attr by inline"]
    assert browser.elements_made_by_texts(page) == [f'img onerror="{browser.mark}()"'] * 2  # an event handler, the mark
    page.close()
    browser.noticed.clear()


def check(browser: Watched, page: "Page", shown: list[str]) -> None:
    """The page shows these texts, and nothing was made of them."""
    assert browser.noticed == [], page.url
    # What a text had made would have run by now.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert browser.noticed == [], page.url
    assert browser.elements_made_by_texts(page) == [], page.url
    text = visible_text(page)
    assert [one for one in shown if without_space(one) not in text] == [], f"{page.url} shows {text}"
    assert COMPUTED not in text


def wait_for(browser: Watched, shown: "Locator") -> None:
    """Wait until a page shows something by itself, or a text has made something of it, which `check` then tells."""

    def seen() -> bool:
        shown.page.wait_for_timeout(50)
        return bool(browser.noticed) or shown.is_visible()

    wait_until(seen, f"the page to show {shown}", 20)


def check_headers(answer: "Response | None") -> None:
    assert answer is not None
    directives = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    assert {name: sources for name, _, sources in directives} == POLICY, answer.url
    assert answer.headers["x-content-type-options"] == "nosniff"


def join(browser: Watched, scene: Scene) -> None:
    """Accept the invitation by the form, which takes the code from the link; the sign-in form has the address."""
    page = browser.open(f"/join#{scene.invitation}")
    code = wait_until(lambda: page.input_value("[name=token]"), "the code in the form", 10)
    assert (code, page.url) == (scene.invitation, f"{browser.origin}/join")
    for code in (scene.hostile[0], scene.invitation):
        check(browser, page, [])
        page.fill("[name=token]", code)
        page.fill("[name=password]", PASSWORD)
        page.fill("[name=repeated]", PASSWORD)
        page.click("button")
        page.get_by_role("alert").or_(page.locator("[name=email]")).wait_for()
    check(browser, page, [])
    assert page.url == f"{browser.origin}/login"
    assert page.input_value("[name=email]") == scene.invited
    page.close()


def sign_in(browser: Watched, scene: Scene) -> "Page":
    """Sign in by the form, which shows again what it was given; the dashboard afterwards."""
    page = browser.open("/login")
    check_headers(page.goto(f"{browser.origin}/login?next={quote(scene.all)}"))
    for password in ("a wrong password", PASSWORD):
        check(browser, page, [])
        assert page.input_value("[name=next]") == scene.all
        page.fill("[name=email]", scene.customer.seeded.email)
        page.fill("[name=password]", password)
        page.click("button")
    page.wait_for_url(f"{browser.origin}/")
    check(browser, page, scene.home)
    return page


def walk(browser: Watched, scene: Scene, *, documents: bool) -> None:
    """Open every page that the portal has, and every other document if asked to; those in `visits` are all."""
    title, reason = f"{scene.hostile[0]} shutdown", f"{scene.all} by performance"
    dashboard = f"/portal/customers/{scene.customer.id}/dashboard"
    visits: dict[str, tuple[str, str, list[str]]] = {
        "/": ("/", PAGE, scene.home),
        "/join": (f"/join#{quote(scene.all)}", PAGE, []),
        "/audit": ("/audit", PAGE, [scene.customer.seeded.email, scene.hostile[0], scene.unknown]),
        "/login": (f"/login?next=/optimizations/{quote(scene.all, safe='')}", PAGE, []),  # leads on: signed in already
        "/optimizations/{optimization_id}": (f"/optimizations/{scene.optimization_id}", PAGE, [title, reason]),
        "/settings": ("/settings", PAGE, [scene.customer.seeded.email]),
        "/settings/account": ("/settings/account", PAGE, [scene.customer.seeded.email]),
        "/settings/keys": ("/settings/keys", PAGE, scene.hostile[:1]),
        "/settings/users": ("/settings/users", PAGE, [scene.customer.seeded.email, scene.invited]),
        "/portal/customers/{customer_id}/dashboard": (dashboard, JSON, [title, reason]),
        "/events": ("/events?after=0", "text/event-stream", ["infrastructure_discovered"]),
        "/api/health": ("/api/health", JSON, []),
        "/health": ("/health", JSON, []),
        "/ready": ("/ready", JSON, []),
        "/openapi.json": ("/openapi.json", JSON, []),
        "/metrics": ("/metrics", "text/plain", []),
    }
    routes = browser.context.request.get(f"{browser.origin}/openapi.json").json()["paths"]
    assert visits.keys() >= {path for path, operations in routes.items() if "get" in operations}, "pages not visited"
    tab = browser.context.new_page()
    for path, media_type, shown in visits.values():
        if documents or media_type == PAGE:
            visit(browser, tab, path, media_type, shown)
    tab.close()


def visit(browser: Watched, tab: "Page", path: str, media_type: str, shown: list[str]) -> None:
    """Open a path; of a document that is no page the browser shows the text."""
    answer = tab.goto(browser.origin + path, wait_until="load" if media_type == PAGE else "commit")
    check_headers(answer)
    assert tab.evaluate("document.contentType") == media_type, path
    if media_type == PAGE:
        check(browser, tab, shown)
        return
    tab.get_by_text(SHOWN_BY[media_type]).first.wait_for()
    written = [json.dumps(text, ensure_ascii=False)[1:-1] for text in shown]
    check(browser, tab, written)


def create_credentials(browser: Watched, scene: Scene) -> None:
    """Invite somebody and create an API key by the forms, whose pages show once what was created for whom."""
    email, name = f"3{scene.customer.seeded.email}", scene.hostile[1]
    for path, field, value in (("/settings/users", "email", email), ("/settings/keys", "name", name)):
        page = browser.open(path)
        page.fill(f"[name={field}]", value)
        page.locator("form", has=page.locator(f"[name={field}]")).get_by_role("button").click()
        wait_for(browser, page.locator(".secret"))
        shown_once = without_space(page.inner_text(".shown-once"))
        assert without_space(value) in shown_once
        check(browser, page, [value])
        page.close()


def approve(browser: Watched, home: "Page", scene: Scene) -> "Page":
    """Approve the change on the dashboard; its page, once it has ended, which it has shown by itself."""
    card = home.locator("article").filter(has=home.get_by_role("button", name="Approve"))
    card.get_by_role("button", name="Approve").click()
    home.wait_for_url("**/optimizations/*")
    scene.optimization_id = home.url.rpartition("/")[2]
    wait_for(browser, home.locator("#state", has_text="Completed"))
    check(browser, home, [f"{scene.hostile[0]} shutdown", f"{scene.all} by performance"])
    return home


def test_hostile_names_shown_in_portal_run_no_script(hostile_platform: PrivatePlatform) -> None:
    portal = hostile_platform.document["urls"]["portal"]
    with hostile_customer(hostile_platform) as scene, chromium.launched() as program:
        assert len(scene.hostile) <= 4 * DEPLOYMENTS
        found = scene.customer.analyze("cost")
        reject(scene, found["region_advice"])
        with (
            watched(program, portal, scene.mark, bypass_csp=True) as without_policy,
            watched(program, portal, scene.mark, bypass_csp=False) as with_policy,
        ):
            check_payloads_run(without_policy)
            check_policy_works(with_policy)
            join(with_policy, scene)
            homes = [sign_in(without_policy, scene), sign_in(with_policy, scene)]
            approve(with_policy, homes[1], scene)
            homes[1].goto(f"{portal}/")
            create_credentials(with_policy, scene)
            walk(without_policy, scene, documents=True)
            walk(with_policy, scene, documents=False)
            scene.customer.analyze("cost")
            for browser, home in zip((without_policy, with_policy), homes, strict=True):
                wait_for(browser, home.get_by_text(scene.titles()[0]).first)
                check(browser, home, scene.home)
