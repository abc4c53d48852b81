from starlette.testclient import TestClient


def test_document_lists_errors_and_credentials_of_each_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    answers = {
        f"{method} {path}": set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert answers["post /open"] == {"201", "413", "422", "5XX"}
    assert answers["put /notes/{note_id}"] == {"200", "401", "403", "404", "409", "413", "422", "5XX"}
    assert answers["get /notes"] == {"200", "401", "403", "422", "5XX"}
    assert answers["delete /notes/{note_id}"] == {"204", "401", "403", "404", "5XX"}
    assert "content" not in document["paths"]["/notes/{note_id}"]["delete"]["responses"]["204"]
    assert "security" not in document["paths"]["/open"]["post"]
    assert document["paths"]["/notes"]["get"]["security"] == [{"bearer": []}]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    content = document["paths"]["/notes"]["get"]["responses"]["401"]["content"]
    assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
