"""Golden prompts: asking a deployment's engines questions whose answers are known."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from optiinfra.api.runtimes import GoldenAnswer

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

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(converse(replica_ids[number % len(replica_ids)], prompt, seed))
            for number, (prompt, seed) in enumerate(asked)
        ]
    return [task.result() for task in tasks]


def _read(file: Path) -> list[GoldenPrompt]:
    try:
        entries = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return [_prompt(entry) for entry in entries["prompts"]]
    except OSError as error:
        raise GoldenPromptError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise GoldenPromptError(f"{file}: not golden prompts: {type(error).__name__}: {error}") from error


def _prompt(entry: dict[str, Any]) -> GoldenPrompt:
    said = [(message["role"], message["content"]) for message in entry["messages"]]
    return GoldenPrompt(
        entry["id"],
        tuple(content for role, content in said if role == "system"),
        tuple(content for role, content in said if role == "user"),
        entry["expected"],
    )
