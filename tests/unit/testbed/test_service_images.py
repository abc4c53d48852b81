"""Images: their tags, how those of engines are chosen, and what happens when one is missing."""

import pytest

from testbed import environment as environments
from testbed import images, service_images
from testbed.environment import Environment, Settings, SetupError
from testbed.images import Image, ImageError
from testbed.parts import find_part


@pytest.fixture
def made() -> Environment:
    return environments.create("boxes", Settings("compose"), None, "")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The docker commands, which succeed and have no output. There are no images."""
    monkeypatch.setattr(images, "inspect", lambda _tag: None)
    seen: list[tuple[str, ...]] = []

    def record(*arguments: str, **_: object) -> str:
        seen.append(arguments)
        return ""

    monkeypatch.setattr(service_images, "docker", record)
    return seen


@pytest.mark.parametrize(
    ("present", "variable", "expected"),
    [
        ({"redis:8", "optiinfra-standins/redis:8"}, None, "redis:8"),
        ({"optiinfra-standins/redis:8"}, None, "optiinfra-standins/redis:8"),
        (set(), None, "redis:8"),
        ({"redis:8"}, "valkey:9", "valkey:9"),
    ],
)
def test_engine_image_is_the_chosen_one_else_official_unless_only_the_stand_in_is_there(
    monkeypatch: pytest.MonkeyPatch, present: set[str], variable: str | None, expected: str
) -> None:
    monkeypatch.setattr(images, "inspect", lambda tag: Image("id", {}, 1) if tag in present else None)
    monkeypatch.delenv("OPTIINFRA_REDIS_IMAGE", raising=False)
    if variable is not None:
        monkeypatch.setenv("OPTIINFRA_REDIS_IMAGE", variable)
    assert service_images.engine_image(find_part("redis")) == expected


def test_build_all_builds_the_six_services_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    built: list[tuple[str, str]] = []
    monkeypatch.setattr(images, "inspect", lambda _tag: None)
    monkeypatch.setattr(images, "build", lambda tag, *_, target, **__: built.append((tag, target)))
    service_images.build_all(lines.append)
    assert lines == [
        *(f"Building {name}... ✓" for name in service_images.SERVICES),
        "Building runtime... ✓",
        "Building sandbox... ✓",
        "Building test... ✓",
    ]
    assert built[0] == (f"optiinfra/orchestrator:{service_images.tag()}", "orchestrator")


def test_build_all_that_fails_names_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImageError("no space left")

    monkeypatch.setattr(images, "inspect", lambda _tag: None)
    monkeypatch.setattr(images, "build", fail)
    lines: list[str] = []
    with pytest.raises(ImageError, match="no space left"):
        service_images.build_all(lines.append)
    assert lines == ["Building orchestrator... ✗"]


def test_require_without_the_images_of_this_commit_names_build_all(
    made: Environment, calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTIINFRA_IMAGE_PREFIX", raising=False)
    with pytest.raises(SetupError, match=r"image optiinfra/application-agent:\S+ is missing: .*`invoke build-all`"):
        service_images.require(made)
    assert calls == []


def test_require_with_a_prefix_pulls_the_images_of_this_commit(
    made: Environment, calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIINFRA_IMAGE_PREFIX", "registry.example/optiinfra/")
    monkeypatch.setattr(service_images, "version", lambda: "abc123")
    service_images.require(made)
    assert ("pull", "registry.example/optiinfra/portal:abc123") in calls
    assert ("tag", "registry.example/optiinfra/portal:abc123", f"optiinfra/portal:{service_images.tag()}") in calls
