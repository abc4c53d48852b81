"""`invoke demo`: signing in with the printed login leads to a recommendation that can be approved."""

import json
import os
import re
from collections.abc import Iterator

import httpx
import pytest

from testbed.waiting import stretched
from tests.helpers.own_environment import OwnEnvironment


@pytest.fixture
def own() -> Iterator[OwnEnvironment]:
    environment = OwnEnvironment(f"demo-{os.getpid()}")
    yield environment
    environment.clean()


def test_demo_login_shows_a_recommendation_to_approve(own: OwnEnvironment) -> None:
    done = own.invoke("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    printed = dict(re.findall(r"^(Portal|Login|Password): +(\S+)$", done.stdout, re.MULTILINE))
    assert printed["Portal"] == json.loads(own.invoke("status", "--json").stdout)["urls"]["portal"]

    with httpx.Client(base_url=printed["Portal"], timeout=stretched(30), follow_redirects=True) as browser:
        browser.get("/")
        form = {"email": printed["Login"], "password": printed["Password"]}
        page = browser.post("/login", data=form, headers={"Origin": printed["Portal"]})

    assert page.status_code == 200
    assert re.findall(r"Move (\S+) to spot instances", page.text) == ["vllm-prod-1", "vllm-prod-2"]
    assert page.text.count("Approve</button>") == 1
