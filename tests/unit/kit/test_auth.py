from typing import Any

from starlette.testclient import TestClient

from optiinfra.kit.bodies import ORDINARY_BYTES
from tests.unit.kit.service import problem_detail


def test_request_without_valid_credential_answers_401_only(client: TestClient) -> None:
    wrong: dict[str, Any] = {"headers": {"Authorization": "Bearer wrong"}}
    for answer in (
        client.get("/nothing", **wrong),
        client.patch("/notes", **wrong),
        client.put("/notes/a", content=b"{", **wrong),
        client.put("/notes/a", content=b" " * (ORDINARY_BYTES + 1), **wrong),
    ):
        assert "Authorization: Bearer" in problem_detail(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
