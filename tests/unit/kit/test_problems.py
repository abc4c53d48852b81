"""Responses to invalid requests."""

import pytest
from starlette.testclient import TestClient

from tests.unit.kit.service import problem_detail


def test_unknown_path_and_wrong_method_answer_problem_details(client: TestClient) -> None:
    assert problem_detail(client.get("/nothing"), 404, "not_found") == "no such path: /nothing"
    detail = problem_detail(client.patch("/notes"), 405, "method_not_allowed")
    assert detail == "/notes allows GET, not PATCH"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "body"),
        (b"{", "body.1"),
        (b"\xff\xfe", "body.0"),
        (b"[" * 10_000, "body"),
        (b"9" * 5_000, "body"),
        (b'"text"', "body"),
        (b"{}", "body.text"),
        (b'{"text": 1}', "body.text"),
        (b'{"text": "  "}', "body.text"),
        (b'{"text": "a\\u0000b"}', "body.text"),
        (b'{"text": "\\ud800"}', "body.text"),
        (b'{"text": "a", "\\ud800": 1}', "body"),
        (b'{"text": "a", "unknown": 1}', "body.unknown"),
        (b'{"text": "a", "more": ' + b'{"a":' * 100 + b"1" + b"}" * 101, "body.more"),
    ],
)
def test_invalid_body_names_the_field(client: TestClient, body: bytes, where: str) -> None:
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert problem_detail(answer, 422, "invalid").startswith(f"{where}: ")


def test_invalid_body_reports_at_most_twenty_errors_and_a_thousand_characters(client: TestClient) -> None:
    few = client.post("/open", json={"text": "a", **dict.fromkeys(map(str, range(25)))})
    assert problem_detail(few, 422, "invalid").endswith("; body.19: Extra inputs are not permitted; and 5 more")
    assert len(few.json()["errors"]) == 20
    long = client.post("/open", json={"text": "a", "k" * 5_000: 1, "l" * 5_000: 1})
    assert problem_detail(long, 422, "invalid").endswith("k: ; and 1 more")
    assert [len(error["where"] + error["what"]) for error in long.json()["errors"]] == [1_000]


def test_path_of_a_missing_resource_is_shortened(client: TestClient) -> None:
    assert problem_detail(client.get("/" + "a" * 5_000), 404, "not_found") == "no such path: /" + "a" * 199


def test_body_of_other_content_type_is_invalid(client: TestClient) -> None:
    answer = client.post("/open", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert problem_detail(answer, 422, "invalid").startswith("body: ")


def test_unreadable_form_is_invalid(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    assert (
        problem_detail(client.post("/form", content=b"text=a", headers=headers), 422, "invalid")
        == "body: cannot be read"
    )


def test_free_json_replaces_characters_that_no_store_keeps(client: TestClient) -> None:
    body = b'{"text": "a", "more": {"\\u0000": ["\\ud800", {"b": "\\u0000"}]}}'
    answer = client.post("/open", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    assert answer.json()["more"] == {"\N{REPLACEMENT CHARACTER}": ["?", {"b": "\N{REPLACEMENT CHARACTER}"}]}
