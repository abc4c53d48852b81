"""The page of the audit log."""

import html
import re

import pytest
from starlette.testclient import TestClient

from optiinfra.api.accounts import Role
from optiinfra.portal.views import UNKNOWN
from tests.unit.portal import fake
from tests.unit.portal.administration import audit_entry
from tests.unit.portal.conftest import SignIn


def rows(page: str) -> list[list[str]]:
    """The text of each cell of the page's table."""
    body = page.partition("<tbody>")[2]
    cells = (re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL))
    return [[" ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in cells]


def test_audit_page_says_who_did_what_about_what_from_where(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.administration.audit_entries = [
        audit_entry(1),
        audit_entry(2, action="DELETE /users", target={"customer_id": "cust_1", "user_id": "user_2"}, status=403),
        audit_entry(3, actor_kind="api_key", actor="key_1", target={"optimization_id": "<s>opt</s>"}, status=503),
        audit_entry(4, actor_kind="anonymous", actor="", address="", status=401),
    ]
    page = owner.get("/audit").text
    assert rows(page) == [
        [
            "02 Nov 2026 09:30:00 UTC",
            "Not signed in",
            "PATCH /customers/{customer_id}/preferences",
            UNKNOWN,
            UNKNOWN,
            "Refused 401",
            "trace4",
        ],
        [
            "02 Nov 2026 09:30:00 UTC",
            "<i>nightly report</i> API key",
            "PATCH /customers/{customer_id}/preferences",
            "Optimization <s>opt</s>",
            "203.0.113.7",
            "Failed 503",
            "trace3",
        ],
        [
            "02 Nov 2026 09:30:00 UTC",
            "ops@acme.example User",
            "DELETE /users",
            "User <b>lee</b>@acme.example",
            "203.0.113.7",
            "Refused 403",
            "trace2",
        ],
        [
            "02 Nov 2026 09:30:00 UTC",
            "ops@acme.example User",
            "PATCH /customers/{customer_id}/preferences",
            UNKNOWN,
            "203.0.113.7",
            "Done 200",
            "trace1",
        ],
    ]
    assert not re.search(r"<(b|i|s)>", page)
    assert "Older entries" not in page
    assert "Newest entries" not in page


def test_audit_page_links_older_entries_until_the_first(owner: TestClient, orchestrator: fake.Orchestrator) -> None:
    orchestrator.administration.audit_entries = [audit_entry(seq) for seq in range(1, 102)]
    path, seen = "/audit", []
    while path:
        page = owner.get(path).text
        seen.append([row[-1] for row in rows(page)])
        assert ("Newest entries" in page) is (path != "/audit")
        path = next(iter(re.findall(r'href="(/audit\?before=\d+)"', page)), "")
    assert list(map(len, seen)) == [50, 50, 1]
    assert [trace for traces in seen for trace in traces] == [f"trace{seq}" for seq in range(101, 0, -1)]


def test_audit_page_without_entries_says_so(owner: TestClient) -> None:
    assert "Nothing has happened yet." in owner.get("/audit").text
    assert "There are no older entries." in owner.get("/audit?before=1").text


@pytest.mark.parametrize("role", ["approver", "viewer"])
def test_audit_page_shows_those_who_may_not_see_users_ids(
    signed_in: SignIn, orchestrator: fake.Orchestrator, role: Role
) -> None:
    browser = signed_in(role)
    orchestrator.administration.audit_entries = [audit_entry(1)]
    orchestrator.calls.clear()
    page = browser.get("/audit")
    assert page.status_code == 200
    assert rows(page.text)[0][1] == "user_1 User"
    assert orchestrator.calls == ["GET /customers/cust_1/audit-log"], "what is refused would be recorded"
    assert 'href="/audit"' in browser.get("/").text
