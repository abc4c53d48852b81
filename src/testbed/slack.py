"""`invoke notify-slack`: tell a channel that CI failed, with the failed tests and a link to the run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import requests

WEBHOOK = "SLACK_WEBHOOK_URL"
CHANNEL = "#eng-alerts"
MOST_TESTS = 20
ANSWER_SECONDS = 10.0


class NotificationError(Exception):
    """The message was not accepted; the text says why, without the webhook, which is a secret."""


def failed_tests(folder: Path) -> list[str]:
    """The tests that failed or could not be run, from every JUnit file below a folder."""
    found: set[str] = set()
    for file in sorted(folder.rglob("*.xml")):
        for case in ElementTree.parse(file).iter("testcase"):  # noqa: S314  (our own)
            if case.find("failure") is not None or case.find("error") is not None:
                found.add(f"{case.get('classname')}::{case.get('name')}")
    return sorted(found)


def message(verdict: str, failed: list[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """The message for a verdict, such as `failure`. `variables` are those of a GitHub job."""
    repository, run = variables.get("GITHUB_REPOSITORY", ""), variables.get("GITHUB_RUN_ID", "")
    link = f"{variables.get('GITHUB_SERVER_URL', '')}/{repository}/actions/runs/{run}"
    trigger = f"{variables.get('GITHUB_EVENT_NAME', '?')} of {variables.get('GITHUB_REF_NAME', '?')}"
    shown = [f"• `{each}`" for each in failed[:MOST_TESTS]]
    if more := failed[MOST_TESTS:]:
        shown.append(f"and {len(more)} more")
    lines = [
        f"*E2E Tests: {verdict}* ({trigger}, commit {variables.get('GITHUB_SHA', '?')[:12]})",
        *(shown or ["no test failed: a job ended before its tests, or after them"]),
        f"<{link}|the run>",
    ]
    return {"channel": CHANNEL, "text": "\n".join(lines)}


def notify(verdict: str, folder: Path, variables: Mapping[str, str] = os.environ) -> str:
    """Send the message. Without a webhook, as in a fork, its text is an annotation for GitHub, which this returns.

    Raises NotificationError.
    """
    sent = message(verdict, failed_tests(folder), variables)
    webhook = variables.get(WEBHOOK)
    if not webhook:
        text = sent["text"].replace("%", "%25").replace("\n", "%0A")
        return f"::warning title=Slack is not notified, as {WEBHOOK} is not set::{text}"
    try:
        answer = requests.post(webhook, json=sent, timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        raise NotificationError(f"Slack did not answer: {type(error).__name__}") from None
    if not answer.ok:
        raise NotificationError(f"Slack answered {answer.status_code}: {answer.text[:200]}")
    return f"{CHANNEL} was notified"
