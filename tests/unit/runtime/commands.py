"""Commands as the platform delivers them."""

from typing import Any

from optiinfra.api.runtimes import Command, CommandKind


def command(kind: CommandKind, key: str = "key", **payload: Any) -> Command:
    """A command for the deployment `chat`."""
    return Command(command_id="cmd_1", idempotency_key=key, kind=kind, payload={"deployment": "chat"} | payload)
