"""A customer who asks for more than its share: bursts of streams, sign-ins, analyses and onboardings."""

import asyncio
import os
import random
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from optiinfra.api.events import SUBPROTOCOL, bearer_subprotocol

ANALYSES, SIGN_INS, ONBOARDINGS, STREAMS = 40, 250, 25, 200
_ANSWER_SECONDS = 60

Answers = dict[str, Counter[int]]
"""How often each kind of request was answered with each status."""


@dataclass(frozen=True)
class Sender:
    """Whose bursts they are, and where they go."""

    url: str
    customer_id: str
    token: str


def send_burst(sender: Sender) -> Answers:
    """All streams at once, then all else at once, while the accepted streams stay open.

    For a process of its own: it is the machine of somebody else, which must not slow down what is measured here.
    """
    os.nice(19)
    return asyncio.run(_send(sender))


async def _send(sender: Sender) -> Answers:
    answers: Answers = {kind: Counter() for kind in ("stream", "sign-in", "analysis", "onboarding")}
    async with httpx.AsyncClient(
        base_url=sender.url,
        timeout=_ANSWER_SECONDS,
        limits=httpx.Limits(max_connections=None),
    ) as http:

        async def post(kind: str, path: str, body: dict[str, Any], token: str | None = None) -> None:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answers[kind][(await http.post(path, json=body, headers=headers)).status_code] += 1

        customer = f"/customers/{sender.customer_id}"

        streams = await asyncio.gather(*(_open_stream(sender, answers["stream"]) for _ in range(STREAMS)))
        await asyncio.gather(
            *(post("sign-in", "/auth/login", _nobody()) for _ in range(SIGN_INS)),
            *(post("analysis", f"{customer}/analyze", {"agent_type": "cost"}, sender.token) for _ in range(ANALYSES)),
            *(post("onboarding", f"{customer}/onboard", _account(), sender.token) for _ in range(ONBOARDINGS)),
        )
        await asyncio.gather(*(stream.close() for stream in streams if stream is not None))
    return answers


async def _open_stream(sender: Sender, answers: Counter[int]) -> ClientConnection | None:
    address = f"{sender.url.replace('http', 'ws', 1)}/ws/customers/{sender.customer_id}"
    offered = [Subprotocol(each) for each in (SUBPROTOCOL, bearer_subprotocol(sender.token))]
    try:
        opened = await connect(address, subprotocols=offered, open_timeout=_ANSWER_SECONDS)
    except InvalidStatus as refused:
        answers[refused.response.status_code] += 1
        return None
    answers[101] += 1
    return opened


def _nobody() -> dict[str, str]:
    """The body of a sign-in as somebody else each time, so that no lockout spares the platform the hashing."""
    return {"username": f"nobody-{uuid.uuid4().hex}@example.com", "password": "a wrong password of 30 letters"}


def _account() -> dict[str, str]:
    """The body of an onboarding of a new account."""
    role = f"arn:aws:iam::{random.randrange(10**11, 10**12)}:role/optiinfra"
    return {"cloud_provider": "aws", "region": "us-east-1", "iam_role_arn": role}
