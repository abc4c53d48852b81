"""Slack: what a message says, how it is sent, and what happens without a webhook."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed import slack

JOB = {
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "optiinfra/optiinfra",
    "GITHUB_RUN_ID": "42",
    "GITHUB_EVENT_NAME": "schedule",
    "GITHUB_REF_NAME": "main",
    "GITHUB_SHA": "0123456789abcdef",
}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    for job, name, child in (("e2e", "test_spot", "<failure/>"), ("unit", "test_cost", "<error/>"), ("x", "ok", "")):
        folder = tmp_path / job
        folder.mkdir()
        case = f'<testcase classname="tests.{job}" name="{name}">{child}</testcase>'
        (folder / "test-results.xml").write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    return tmp_path


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A local server in Slack's place: its address, and the messages that it got."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"invalid_token" if status != 200 else b"ok")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/services/secret", received
        finally:
            server.shutdown()
            thread.join()


def test_notify_sends_verdict_failed_tests_and_link(reports: Path) -> None:
    with webhook() as (url, received):
        assert slack.notify("failure", reports, {**JOB, "SLACK_WEBHOOK_URL": url}) == "#eng-alerts was notified"
    (sent,) = received
    assert sent["channel"] == "#eng-alerts"
    assert sent["text"].splitlines() == [
        "*E2E Tests: failure* (schedule of main, commit 0123456789ab)",
        "• `tests.e2e::test_spot`",
        "• `tests.unit::test_cost`",
        "<https://github.example/optiinfra/optiinfra/actions/runs/42|the run>",
    ]


def test_notify_without_a_webhook_returns_an_annotation(reports: Path) -> None:
    shown = slack.notify("failure", reports, JOB)
    assert shown.startswith("::warning title=Slack is not notified")
    assert "tests.e2e::test_spot" in shown
    assert "\n" not in shown


def test_notify_that_slack_refuses_fails_without_the_webhook(reports: Path) -> None:
    with webhook(403) as (url, _), pytest.raises(slack.NotificationError) as refused:
        slack.notify("failure", reports, {**JOB, "SLACK_WEBHOOK_URL": url})
    assert str(refused.value) == "Slack answered 403: invalid_token"


def test_notify_that_nobody_answers_fails_without_the_webhook(reports: Path) -> None:
    with pytest.raises(slack.NotificationError) as refused:
        slack.notify("failure", reports, {**JOB, "SLACK_WEBHOOK_URL": "http://127.0.0.1:9/services/secret"})
    assert "secret" not in str(refused.value)


def test_message_of_many_failures_names_some_and_counts_the_rest() -> None:
    text = slack.message("failure", [f"tests.a::test_{number}" for number in range(25)], JOB)["text"]
    assert text.count("•") == 20
    assert "and 5 more" in text


def test_message_without_failed_tests_says_so() -> None:
    assert "no test failed" in slack.message("failure", [], JOB)["text"]
