"""Stand-in images: which are built again, and which are left as they are. The engine is a fake."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed import paths, standins
from testbed.images import Image, ImageError
from testbed.standins import LABEL, PROVEN, STAND_INS, RunningPython, StandIn, UnavailableError


@dataclass
class FakeBuilder:
    """Images by tag, and the tags that were built, in their order."""

    images: dict[str, Image] = field(default_factory=dict)
    built: list[str] = field(default_factory=list)
    arguments: list[dict[str, str]] = field(default_factory=list)
    failing: str = ""

    def inspect(self, tag: str) -> Image | None:
        return self.images.get(tag)

    def build(
        self, tag: str, context: Path, dockerfile: Path, *, log: Path, args: dict[str, str], labels: dict[str, str]
    ) -> None:
        assert dockerfile.is_file()
        if tag == self.failing:
            raise ImageError(f"{tag} fails")
        self.built.append(tag)
        self.arguments.append(args)
        self.images[tag] = Image(f"id of {tag}", labels, 0)


@dataclass
class FakeSource:
    """A source whose identity a test chooses; an empty one is missing on this machine."""

    text: str = "1"

    def identity(self) -> str:
        if not self.text:
            raise UnavailableError("there is none")
        return self.text

    def add_to(self, context: Path) -> None:
        (context / "added").touch()


def chain(source: FakeSource) -> tuple[StandIn, ...]:
    """A base, an image on it, and one that depends on neither."""
    return (
        StandIn("base:1", "debian", base=None, source=source),
        StandIn("redis:8", "redis", base="base:1"),
        StandIn("other:1", "qdrant", base=None, packages=("starlette",)),
    )


TAGS = ["optiinfra-standins/base:1", "optiinfra-standins/redis:8", "optiinfra-standins/other:1"]
BUILT = [f"Building stand-in {name}... ✓ (0 s)" for name in ("base:1", "redis:8", "other:1")]
UP_TO_DATE = [f"Stand-in {name} is up to date ✓" for name in ("base:1", "redis:8", "other:1")]


def run(builder: FakeBuilder, source: FakeSource) -> list[str]:
    """Build the chain; the lines without the closing sentences, which every run has."""
    lines: list[str] = []
    standins.build_all(lines.append, builder, chain(source))
    assert lines[-2:] == list(PROVEN)
    return lines[:-2]


def test_build_all_builds_bases_first_and_only_once() -> None:
    builder, source = FakeBuilder(), FakeSource()
    assert run(builder, source) == BUILT
    assert builder.built == TAGS
    assert builder.arguments == [{}, {"BASE": TAGS[0]}, {}]
    assert run(builder, source) == UP_TO_DATE
    assert builder.built == TAGS


def test_build_all_with_a_changed_source_builds_it_and_what_depends_on_it() -> None:
    builder, source = FakeBuilder(), FakeSource()
    run(builder, source)
    source.text = "2"
    assert run(builder, source) == [*BUILT[:2], UP_TO_DATE[2]]
    assert builder.built == [*TAGS, *TAGS[:2]]


def test_build_all_with_a_changed_version_builds_the_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, source = FakeBuilder(), FakeSource()
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for version, expected in (("1.0", BUILT), ("1.0", UP_TO_DATE), ("1.1", [*UP_TO_DATE[:2], BUILT[2]])):
        (tmp_path / "constraints.txt").write_text(f"starlette=={version}\nuvicorn=={version}\n")
        assert run(builder, source) == expected


def test_build_all_leaves_an_image_that_it_did_not_build() -> None:
    builder, source = FakeBuilder(), FakeSource()
    # A label that it has from its base does not make it ours.
    builder.images[TAGS[0]] = Image("foreign", {LABEL: "debian:1 0123"}, 0)
    left = f"Leaving {TAGS[0]} as it is: it was built by something else"
    assert run(builder, source) == [left, *BUILT[1:]]
    assert run(builder, source) == [left, *UP_TO_DATE[1:]]
    builder.images[TAGS[0]] = Image("another", {}, 0)
    assert run(builder, source) == [left, BUILT[1], UP_TO_DATE[2]]
    assert builder.images[TAGS[0]].id == "another"


def test_build_all_without_a_source_skips_the_image_and_what_depends_on_it() -> None:
    builder = FakeBuilder()
    assert run(builder, FakeSource("")) == [
        "Skipping stand-in base:1: there is none",
        "Skipping stand-in redis:8: its base base:1 is missing",
        BUILT[2],
    ]
    assert builder.built == TAGS[2:]


def test_build_all_with_a_failing_build_stops_there() -> None:
    builder, lines = FakeBuilder(failing=TAGS[1]), list[str]()
    with pytest.raises(ImageError, match=f"^{TAGS[1]} fails$"):
        standins.build_all(lines.append, builder, chain(FakeSource()))
    assert lines == [BUILT[0], "Building stand-in redis:8... ✗"]


def test_stand_ins_are_those_of_the_compose_file_and_their_bases() -> None:
    assert [each.tag.removeprefix("optiinfra-standins/") for each in STAND_INS] == [
        "debian:trixie-slim",
        "python:3.11-slim",
        "python:3.13-slim",
        "postgres:17",
        "redis:8",
        "clickhouse-server:26.9",
        "qdrant:1.16",
        "localstack:4.14.0",
    ]
    for number, each in enumerate(STAND_INS):
        assert each.base is None or each.base in [before.name for before in STAND_INS[:number]]
        assert len(list(standins.pinned(each.packages))) == len(each.packages)


def test_pinned_without_a_version_names_the_package() -> None:
    with pytest.raises(ValueError, match=r"^constraints\.txt has no version of lost-package,"):
        list(standins.pinned(("starlette", "lost-package")))


def test_running_python_of_another_version_or_of_the_system_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    with pytest.raises(UnavailableError, match=r"which is not 3\.11$"):
        RunningPython().identity()
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    with pytest.raises(UnavailableError, match=r"belongs to the system$"):
        RunningPython().identity()
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    assert RunningPython().identity().startswith("/opt/python ")


def test_label_of_an_image_is_its_name_and_key() -> None:
    builder = FakeBuilder()
    run(builder, FakeSource())
    labels = [builder.images[tag].labels[LABEL].split() for tag in TAGS]
    assert [name for name, _key in labels] == ["base:1", "redis:8", "other:1"]
    assert len({key for _name, key in labels}) == 3
