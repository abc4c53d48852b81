"""`invoke build-standins`: images that stand for the official ones on machines without an image registry.

They are made from Debian's packages, from PyPI and from the embedded engines, and have tags of their own. A label of
each holds its name and a key of everything that it is made from: an image with the right key is up to date.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed import images, paths
from testbed.images import Image, ImageError
from testbed.waiting import stretched

PREFIX = "optiinfra-standins/"
LABEL = "com.optiinfra.standin"
FOLDER = paths.ROOT / "compose" / "standins"
LOGS = paths.ROOT / "reports" / "builds"
ROOTFS_SECONDS = 600.0
MIRROR_SECONDS = 60.0
AUTHORITIES = Path("/usr/local/share/ca-certificates")
COPIED_PYTHON = (3, 11)
PROVEN = (
    "Stand-ins prove the wiring of the Compose environment: health checks, DNS, entry points, variables and volumes.",
    "They prove nothing about the official images, whose programs, versions and defaults are others.",
)


class UnavailableError(Exception):
    """This machine has nothing to make the image from; the text says what is missing."""


class Source(Protocol):
    """What an image is made from besides files of the checkout."""

    def identity(self) -> str:
        """A text that changes with it. Raises UnavailableError when this machine does not have it."""

    def add_to(self, context: Path) -> None:
        """Write it to the context of a build."""


class Builder(Protocol):
    """The part of `testbed.images` that building stand-ins needs."""

    def inspect(self, tag: str) -> Image | None:
        """The image of this tag, or None."""

    def build(
        self, tag: str, context: Path, dockerfile: Path, *, log: Path, args: dict[str, str], labels: dict[str, str]
    ) -> None:
        """Build an image. Raises ImageError when that fails."""


class Rootfs:
    """A small Debian, from the mirror of this machine and with its additional certificate authorities."""

    def identity(self) -> str:
        authorities = [file.read_text() for file in sorted(AUTHORITIES.glob("*.crt"))]
        return "\n".join([self._mirror(), *authorities])

    def add_to(self, context: Path) -> None:
        command = [str(context / "make-rootfs"), self._mirror(), str(context / "rootfs.tar")]
        _output(command, "the root file system", stretched(ROOTFS_SECONDS))

    def _mirror(self) -> str:
        return _output([str(FOLDER / "debian-mirror")], "the mirror", stretched(MIRROR_SECONDS)).strip()


class RunningPython:
    """The Python that runs this, if it has the wanted version and a folder of its own."""

    def identity(self) -> str:
        wanted = ".".join(map(str, COPIED_PYTHON))
        if sys.version_info[:2] != COPIED_PYTHON:
            raise UnavailableError(f"it is a copy of the Python that runs this command, which is not {wanted}")
        if sys.base_prefix == "/usr":
            raise UnavailableError(f"the Python {wanted} that runs this command belongs to the system")
        return f"{sys.base_prefix} {sys.version}"

    def add_to(self, context: Path) -> None:
        folder, name = Path(sys.base_prefix), "python{}.{}".format(*COPIED_PYTHON)
        with tarfile.open(context / "python.tar", "w") as archive:
            for member in (folder / "bin" / name, folder / "lib" / name, folder / "include" / name):
                archive.add(member, str(member.relative_to(folder)), filter=_needed)
            for library in sorted((folder / "lib").glob("libpython*.so*")):
                archive.add(library, str(library.relative_to(folder)))


def _needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what the official image does not have, and whose owner or packages are of this machine."""
    if re.search(r"/(__pycache__|site-packages/.*|python[\d.]+/test|config-[^/]+|[^/]+\.a)$", member.name):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


@dataclass(frozen=True)
class StandIn:
    """An image: its name and tag, the folder of its Dockerfile, and what else it is made from.

    `base` is another stand-in, `files` are of the checkout, `packages` of PyPI in the versions of `constraints.txt`.
    """

    name: str
    folder: str
    base: str | None = "debian:trixie-slim"
    source: Source | None = None
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The tag under which it is built."""
        return PREFIX + self.name


_ENGINES = ("src/testbed/__init__.py", "src/testbed/engines/__init__.py", "src/testbed/engines/settings.py")
_HTTP_SERVER = ("anyio", "click", "h11", "idna", "starlette", "typing-extensions", "uvicorn")
STAND_INS = (
    StandIn("debian:trixie-slim", "debian", base=None, source=Rootfs()),
    StandIn("python:3.11-slim", "python-copied", source=RunningPython()),
    StandIn("python:3.13-slim", "python"),
    StandIn("postgres:17", "postgres"),
    StandIn("redis:8", "redis"),
    StandIn(
        "clickhouse-server:26.9",
        "clickhouse",
        base="python:3.13-slim",
        files=(*_ENGINES, "src/testbed/engines/clickhouse.py"),
        packages=("chdb-core",),
    ),
    StandIn(
        "qdrant:1.16",
        "qdrant",
        base="python:3.13-slim",
        files=(*_ENGINES, "src/testbed/engines/qdrant"),
        packages=("qdrant-edge-py", *_HTTP_SERVER),
    ),
    StandIn(
        "localstack:4.14.0", "localstack", base="python:3.13-slim", files=("compose/standins/localstack.lock.txt",)
    ),
)
"""In the order in which they are built: bases first."""


def build_all(
    say: Callable[[str], None], builder: Builder = images, stand_ins: tuple[StandIn, ...] = STAND_INS
) -> None:
    """Build what is missing or not up to date, with a line for each. Raises ImageError for the first that fails."""
    identities: dict[str, str] = {}
    for each in stand_ins:
        if each.base is not None and each.base not in identities:
            say(f"Skipping stand-in {each.name}: its base {each.base} is missing")
            continue
        try:
            identities[each.name] = _provide(each, identities.get(each.base or ""), say, builder)
        except UnavailableError as reason:
            say(f"Skipping stand-in {each.name}: {reason}")
    for line in PROVEN:
        say(line)


def _provide(each: StandIn, base: str | None, say: Callable[[str], None], builder: Builder) -> str:
    """Build one unless it is up to date. Returns what its dependents depend on: its key, its id if it is not ours."""
    found = builder.inspect(each.tag)
    if found is not None and not found.labels.get(LABEL, "").startswith(f"{each.name} "):
        say(f"Leaving {each.tag} as it is: it was built by something else")
        return found.id
    with tempfile.TemporaryDirectory(prefix="optiinfra-standin-") as folder:
        context = Path(folder)
        _copy_files(each, context)
        key = f"{each.name} {_digest(each, context, base)}"
        if found is not None and found.labels[LABEL] == key:
            say(f"Stand-in {each.name} is up to date ✓")
            return key
        began = time.monotonic()
        try:
            if each.source is not None:
                each.source.add_to(context)
            builder.build(
                each.tag,
                context,
                context / "Dockerfile",
                log=LOGS / f"standin-{each.name.replace(':', '-')}.log",
                args={} if each.base is None else {"BASE": PREFIX + each.base},
                labels={LABEL: key},
            )
        except ImageError:
            say(f"Building stand-in {each.name}... ✗")
            raise
        say(f"Building stand-in {each.name}... ✓ ({time.monotonic() - began:.0f} s)")
        return key


def _copy_files(each: StandIn, context: Path) -> None:
    """Copy the files of the checkout that an image is made from, at the same paths but those of its own folder."""
    shutil.copytree(FOLDER / each.folder, context, dirs_exist_ok=True)
    for name in each.files:
        source, copy = paths.ROOT / name, context / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy)
    if each.packages:
        (context / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned(each.packages)))


def pinned(packages: tuple[str, ...]) -> Iterator[str]:
    """The lines of `constraints.txt` for these packages. ValueError when one is missing."""
    lines = (paths.ROOT / "constraints.txt").read_text().splitlines()
    versions = {line.partition("==")[0]: line for line in lines}
    for package in packages:
        if package not in versions:
            raise ValueError(f"constraints.txt has no version of {package}, from which a stand-in image is made")
        yield versions[package]


def _digest(each: StandIn, context: Path, base: str | None) -> str:
    """A digest of everything that an image is made from."""
    parts = [base or "", each.source.identity() if each.source else ""]
    for file in sorted(path for path in context.rglob("*") if path.is_file()):
        parts += [str(file.relative_to(context)), oct(file.stat().st_mode & 0o111), file.read_text()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def _output(command: list[str], what: str, seconds: float) -> str:
    """What a script prints. ImageError when it fails or does not end in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{what} of the stand-ins took longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        raise ImageError(f"{what} of the stand-ins: {done.stderr[-3000:].strip()}")
    return done.stdout
