"""Golden prompts: questions with known answers, put to a deployment's engines."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError, field_validator

from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.runtime.validation_errors import describe

MAX_CONCURRENT_PROMPTS = 16


class GoldenPromptError(Exception):
    """No usable golden prompts; the text names the file and the problem."""


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """System messages (`opening`), the user's message of each turn, and text that the last answer must contain."""

    id: str
    opening: tuple[str, ...]
    turns: tuple[str, ...]
    expected: str


def _text(value: Any) -> str:
    # Without quotes YAML reads 750 as a number, 17:30 as a number of seconds, and No as false.
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"expected text (in quotes), found {value!r}")


_NonEmptyText = Annotated[str, BeforeValidator(_text)]


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: _NonEmptyText


class _Entry(BaseModel):
    id: _NonEmptyText
    messages: list[_Message]
    expected: _NonEmptyText

    @field_validator("messages")
    @classmethod
    def _has_user_message(cls, messages: list[_Message]) -> list[_Message]:
        if all(message.role != "user" for message in messages):
            raise ValueError("expected at least one message of role user")
        return messages

    def contents(self, role: str) -> tuple[str, ...]:
        return tuple(message.content for message in self.messages if message.role == role)


class Complete(Protocol):
    """Asks one engine: messages, sampling seed -> answer."""

    async def __call__(self, replica_id: str, messages: Sequence[dict[str, str]], seed: int) -> str: ...


def load(path: Path) -> list[GoldenPrompt]:
    """The prompts of a YAML file, or of all in a folder: `{prompts: [{id, messages: [{role, content}], expected}]}`.

    They are ordered by a hash of their ids, which mixes the files, so that short and long conversations alternate.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    prompts = [prompt for file in files for prompt in _read(file)]
    if not prompts:
        raise GoldenPromptError(f"{path}: no golden prompts; expected *.yaml with `prompts: [...]`")
    return sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.id.encode()).digest())


def pick(prompts: Sequence[GoldenPrompt], offset: int, count: int) -> list[tuple[GoldenPrompt, int]]:
    """`count` prompts from the `offset`-th on, cyclically, each with the number of the cycle as sampling seed."""
    return [(prompts[index % len(prompts)], index // len(prompts)) for index in range(offset, offset + count)]


async def ask(
    complete: Complete, replica_ids: Sequence[str], asked: Sequence[tuple[GoldenPrompt, int]]
) -> list[GoldenAnswer]:
    """Send the prompts to the replicas round-robin, at most `MAX_CONCURRENT_PROMPTS` at once.

    Raises what `complete` raises.
    """
    if not replica_ids:
        raise GoldenPromptError("golden prompts need at least one replica to ask")
    slots = asyncio.Semaphore(MAX_CONCURRENT_PROMPTS)

    async def converse(replica_id: str, prompt: GoldenPrompt, seed: int) -> GoldenAnswer:
        messages = [{"role": "system", "content": content} for content in prompt.opening]
        answer = ""
        async with slots:
            for turn in prompt.turns:
                # The engine's earlier answers stay in the conversation, as in a chat.
                messages.append({"role": "user", "content": turn})
                answer = await complete(replica_id, messages, seed)
                messages.append({"role": "assistant", "content": answer})
        return GoldenAnswer(prompt_id=prompt.id, turns=len(prompt.turns), expected=prompt.expected, answer=answer)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(converse(replica_ids[number % len(replica_ids)], prompt, seed))
                for number, (prompt, seed) in enumerate(asked)
            ]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


def _read(file: Path) -> list[GoldenPrompt]:
    try:
        document = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise GoldenPromptError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise GoldenPromptError(f"{file}: not YAML: {error}") from error
    entries = document.get("prompts") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise GoldenPromptError(f"{file}: not golden prompts; expected `prompts: [...]`")
    return [_prompt(f"{file}: prompt {number}", entry) for number, entry in enumerate(entries, 1)]


def _prompt(place: str, entry: Any) -> GoldenPrompt:
    try:
        found = _Entry.model_validate(entry)
    except ValidationError as error:
        name = f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        raise GoldenPromptError(f"{place}{name}: {describe(error)}") from error
    return GoldenPrompt(found.id, found.contents("system"), found.contents("user"), found.expected)
