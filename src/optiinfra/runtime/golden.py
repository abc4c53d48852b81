"""Golden prompts: asking a deployment's engines questions whose answers are known."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError, field_validator

from optiinfra.api.runtimes import GoldenAnswer
from optiinfra.runtime.faults import faults

AT_ONCE = 16


class GoldenPromptError(Exception):
    """There are no usable golden prompts; the text names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """A conversation's `opening` (system messages), what the user says turn by turn, and what the last answer holds."""

    id: str
    opening: tuple[str, ...]
    turns: tuple[str, ...]
    expected: str


def _text(value: Any) -> str:
    # YAML reads a bare 750 as a number, 17:30 as a number of seconds, and No as false: none is what was meant.
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError(f"wanted text (in quotes), found {value!r}")


_Filled = Annotated[str, BeforeValidator(_text)]


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: _Filled


class _Entry(BaseModel):
    id: _Filled
    messages: list[_Message]
    expected: _Filled

    @field_validator("messages")
    @classmethod
    def _asks(cls, messages: list[_Message]) -> list[_Message]:
        if all(message.role != "user" for message in messages):
            raise ValueError("wanted at least one message of role user")
        return messages

    def said(self, role: str) -> tuple[str, ...]:
        return tuple(message.content for message in self.messages if message.role == role)


class Complete(Protocol):
    """Asks one engine: messages, sampling seed -> answer."""

    async def __call__(self, replica_id: str, messages: Sequence[dict[str, str]], seed: int) -> str: ...


def load(path: Path) -> list[GoldenPrompt]:
    """The prompts of a YAML file, or of all in a folder: `{prompts: [{id, messages: [{role, content}], expected}]}`.

    They come in an order that depends on their ids alone and mixes the files, so that any stretch of them holds short
    and long conversations alike.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    prompts = [prompt for file in files for prompt in _read(file)]
    if not prompts:
        raise GoldenPromptError(f"{path}: no golden prompts; wanted *.yaml with `prompts: [...]`")
    return sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.id.encode()).digest())


def pick(prompts: Sequence[GoldenPrompt], offset: int, count: int) -> list[tuple[GoldenPrompt, int]]:
    """`count` prompts from the `offset`-th on, round and round, each with its round's number as sampling seed."""
    return [(prompts[index % len(prompts)], index // len(prompts)) for index in range(offset, offset + count)]


async def ask(
    complete: Complete, replica_ids: Sequence[str], asked: Sequence[tuple[GoldenPrompt, int]]
) -> list[GoldenAnswer]:
    """Put each prompt to one of the replicas in turn, at most `AT_ONCE` at a time; raises what `complete` raises."""
    if not replica_ids:
        raise GoldenPromptError("golden prompts need at least one replica to ask")
    places = asyncio.Semaphore(AT_ONCE)

    async def converse(replica_id: str, prompt: GoldenPrompt, seed: int) -> GoldenAnswer:
        messages = [{"role": "system", "content": content} for content in prompt.opening]
        answer = ""
        async with places:
            for turn in prompt.turns:
                # The engine's own earlier answers stay in the conversation, as they do for users.
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
        raise GoldenPromptError(f"{file}: not golden prompts; wanted `prompts: [...]`")
    return [_prompt(f"{file}: prompt {number}", entry) for number, entry in enumerate(entries, 1)]


def _prompt(place: str, entry: Any) -> GoldenPrompt:
    try:
        found = _Entry.model_validate(entry)
    except ValidationError as error:
        name = f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else ""
        raise GoldenPromptError(f"{place}{name}: {faults(error)}") from error
    return GoldenPrompt(found.id, found.said("system"), found.said("user"), found.expected)
