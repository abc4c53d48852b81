"""Golden prompts: loading, picking and asking them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from optiinfra.runtime import golden
from optiinfra.runtime.gateway import GatewayError
from optiinfra.runtime.golden import GoldenPrompt, GoldenPromptError

PROMPTS = [GoldenPrompt(f"p{number}", (), ("hello?",), "yes") for number in range(3)]
pytestmark = pytest.mark.anyio


async def test_pick_cycles_through_the_prompts_with_another_seed_each_cycle() -> None:
    picked = [(prompt.id, seed) for prompt, seed in golden.pick(PROMPTS, 2, 5)]
    assert picked == [("p2", 0), ("p0", 1), ("p1", 1), ("p2", 1), ("p0", 2)]


async def test_ask_sends_turns_one_by_one_with_the_replicas_answers_between() -> None:
    asked: list[tuple[str, list[tuple[str, str]], int]] = []

    async def complete(replica_id: str, messages: Sequence[dict[str, str]], seed: int) -> str:
        asked.append((replica_id, [(message["role"], message["content"]) for message in messages], seed))
        return f"answer {len(asked)}"

    prompt = GoldenPrompt("p", ("be brief",), ("first", "second"), "42")
    (answer,) = await golden.ask(complete, ["r1"], [(prompt, 7)])
    assert asked[0] == ("r1", [("system", "be brief"), ("user", "first")], 7)
    assert asked[1][1] == [("system", "be brief"), ("user", "first"), ("assistant", "answer 1"), ("user", "second")]
    assert (answer.prompt_id, answer.turns, answer.expected, answer.answer) == ("p", 2, "42", "answer 2")


async def test_ask_spreads_prompts_over_the_replicas() -> None:
    asked: list[str] = []

    async def complete(replica_id: str, messages: Sequence[dict[str, str]], seed: int) -> str:
        asked.append(replica_id)
        return "yes"

    async def unavailable(replica_id: str, messages: Sequence[dict[str, str]], seed: int) -> str:
        raise GatewayError("unavailable")

    await golden.ask(complete, ["r1", "r2"], golden.pick(PROMPTS, 0, 4))
    assert sorted(asked) == ["r1", "r1", "r2", "r2"]
    with pytest.raises(GoldenPromptError, match="at least one replica"):
        await golden.ask(complete, [], golden.pick(PROMPTS, 0, 1))
    with pytest.raises(GatewayError, match="unavailable"):
        await golden.ask(unavailable, ["r1"], golden.pick(PROMPTS, 0, 4))


async def test_load_folder_mixes_the_prompts_of_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        entries = "\n".join(
            f'  - {{id: {name}{number}, messages: [{{role: user, content: "q"}}], expected: "1"}}'
            for number in range(20)
        )
        (tmp_path / f"{name}.yaml").write_text(f"prompts:\n{entries}\n")
    ids = [prompt.id for prompt in golden.load(tmp_path)]
    assert len(set(ids)) == 40
    assert {name[0] for name in ids[:10]} == {"a", "b"}
    assert ids == [prompt.id for prompt in golden.load(tmp_path)]


@pytest.mark.parametrize(
    "text",
    [
        b"prompts: [{id: x}]",
        b"[",
        b"prompts: []",
        b"prompts: 5",
        b"prompts: {a: 1}",
        b"prompts: [x]",
        b"",
        b"prompts: [{id: caf\xe9}]",
        b"prompts: [{id: 2026-13-45}]",
    ],
)
async def test_load_invalid_file_is_an_error_with_its_name(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text)
    with pytest.raises(GoldenPromptError, match=r"wrong\.yaml"):
        golden.load(path)


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ('{id: 1, messages: [{role: user, content: "q"}], expected: "1"}', r"\(1\): id: .*in quotes.* found 1"),
        ('{id: p, messages: [{role: user, content: "q"}], expected: 750}', r"\(p\): expected: .*found 750"),
        ('{id: p, messages: [{role: user, content: "q"}], expected: ""}', r"\(p\): expected: .*found ''"),
        (
            '{id: p, messages: [{role: user, content: No}], expected: "1"}',
            r"\(p\): messages\.0\.content: .*found False",
        ),
        ('{id: p, messages: [{role: usr, content: "q"}], expected: "1"}', r"\(p\): messages\.0\.role: "),
        ('{id: p, messages: [{role: system, content: "q"}], expected: "1"}', r"\(p\): messages: .*role user"),
        ('{id: p, messages: [], expected: "1"}', r"\(p\): messages: .*role user"),
    ],
)
async def test_load_invalid_prompt_is_an_error_with_its_id(tmp_path: Path, entry: str, wrong: str) -> None:
    (tmp_path / "wrong.yaml").write_text(f"prompts:\n  - {entry}\n")
    with pytest.raises(GoldenPromptError, match=r"wrong\.yaml: prompt 1 " + wrong):
        golden.load(tmp_path)
