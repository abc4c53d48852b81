"""The images of an environment: our own, built from `compose/Dockerfile`, and those of the engines.

Our own are tagged with a digest of what they are built from: an image with the right tag is the right image.
"""

import hashlib
import os
from collections.abc import Callable

from testbed import images, paths, standins
from testbed.docker import docker
from testbed.environment import Environment, SetupError
from testbed.fingerprint import source_files, version
from testbed.parts import Part, programs, variable_name

DOCKERFILE = paths.ROOT / "compose" / "Dockerfile"
SERVICES = ("orchestrator", "cost-agent", "performance-agent", "resource-agent", "application-agent", "portal")
"""The six services, in the order that the contract fixes."""
HELPERS = ("runtime", "sandbox", "test")
PREFIX = "optiinfra/"
PREFIX_VARIABLE = "OPTIINFRA_IMAGE_PREFIX"
OFFICIAL = {
    "postgresql": "postgres:17",
    "clickhouse": "clickhouse/clickhouse-server:26.9",
    "redis": "redis:8",
    "qdrant": "qdrant/qdrant:v1.16.0",
    "localstack": "localstack/localstack:4.14.0",
}
STAND_INS = {
    "postgresql": f"{standins.PREFIX}postgres:17",
    "clickhouse": f"{standins.PREFIX}clickhouse-server:26.9",
    "redis": f"{standins.PREFIX}redis:8",
    "qdrant": f"{standins.PREFIX}qdrant:1.16",
    "localstack": f"{standins.PREFIX}localstack:4.14.0",
}
"""Images of the same engines for machines without an image registry (`invoke build-standins`)."""
PYTHON = "python:3.11-slim"
PULL_SECONDS = 900.0


def tag() -> str:
    """A digest of everything that our images are built from."""
    digest = hashlib.sha256()
    root = paths.ROOT
    others = [root / name for name in ("pyproject.toml", "constraints.txt", ".coveragerc", "compose/healthcheck.py")]
    for file in [*source_files(root), *others, DOCKERFILE]:
        digest.update(f"{file.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def image_of(environment: Environment, part: Part) -> str:
    """The image that a part runs."""
    if part.name in OFFICIAL:
        return engine_image(part)
    target = "test" if environment.settings.coverage and part.is_platform else part.program
    return f"{PREFIX}{target}:{tag()}"


def engine_image(part: Part) -> str:
    """What the part's variable names, else the official image; a stand-in if only that is on this machine."""
    if chosen := os.environ.get(f"OPTIINFRA_{variable_name(part.name)}_IMAGE"):
        return chosen
    return _present(OFFICIAL[part.name], STAND_INS[part.name])


def python_image() -> str:
    """What our images are built on: the variable's, else the official one, or a stand-in if only that is there."""
    return os.environ.get("OPTIINFRA_PYTHON_IMAGE") or _present(PYTHON, f"{standins.PREFIX}{PYTHON}")


def _present(official: str, stand_in: str) -> str:
    return stand_in if images.inspect(official) is None and images.inspect(stand_in) is not None else official


def build_all(say: Callable[[str], None]) -> None:
    """Build the six services and the helpers, with a line for each. Raises DockerError for the first that fails."""
    made = tag()
    arguments = {"BASE": python_image(), "REVISION": version(), "SOURCE_DIGEST": made}
    for target in (*SERVICES, *HELPERS):
        log = standins.LOGS / f"{target}.log"
        try:
            images.build(f"{PREFIX}{target}:{made}", paths.ROOT, DOCKERFILE, log=log, target=target, args=arguments)
        except images.ImageError:
            say(f"Building {target}... ✗")
            raise
        say(f"Building {target}... ✓")


def require(environment: Environment) -> None:
    """Raise SetupError unless every image of ours is on this machine, or can be pulled."""
    missing = sorted(
        {
            image
            for part in programs(environment.parts).values()
            if part.name not in OFFICIAL and images.inspect(image := image_of(environment, part)) is None
        }
    )
    prefix = os.environ.get(PREFIX_VARIABLE)
    for image in missing:
        if prefix is None:
            raise SetupError(f"image {image} is missing: build the images of this commit by `invoke build-all`")
        pulled = image.replace(PREFIX, prefix, 1).rpartition(":")[0] + f":{version()}"
        docker("pull", pulled, seconds=PULL_SECONDS)
        docker("tag", pulled, image)
