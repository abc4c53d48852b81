"""Building images with `docker build`, and looking at those that are there.

A build reaches the package index as the caller does: by the network, the proxies, and pip's configuration and
certificates of this machine. The latter two are secrets of the build, so that no image holds an address. A Dockerfile
asks for them:

    RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem pip install ...
"""

import configparser
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.docker import DockerError, docker
from testbed.environment import SetupError
from testbed.waiting import stretched

BUILD_SECONDS = 900.0
SHOWN_LINES = 20
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""What a build takes of pip's configuration. Others, such as `find-links`, may name folders of this machine."""
CERTIFICATES = "/run/secrets/ca.pem"


class ImageError(SetupError):
    """An image was not built. The text says why, with the end of the output."""


@dataclass(frozen=True)
class Image:
    """An image of this machine; `size` in bytes."""

    id: str
    labels: Mapping[str, str]
    size: int


def inspect(tag: str) -> Image | None:
    """The image of this tag, or None. DockerError when the engine does not answer."""
    try:
        answer = docker("image", "inspect", "--format", "{{json .}}", tag)
    except DockerError as error:
        if "no such image" in str(error).lower():
            return None
        raise
    found = json.loads(answer)
    return Image(found["Id"], found["Config"].get("Labels") or {}, found["Size"])


def build(
    tag: str,
    context: Path,
    dockerfile: Path,
    *,
    log: Path,
    target: str | None = None,
    args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    seconds: float = BUILD_SECONDS,
) -> None:
    """Build an image; `log` gets the output. ImageError, with its end, when that fails or does not end in time."""
    command = ["docker", "build", "--progress", "plain", "--network", "host", "--tag", tag, "--file", str(dockerfile)]
    if target is not None:
        command += ["--target", target]
    for option, values in (("--build-arg", args), ("--label", labels)):
        for name, value in (values or {}).items():
            command += [option, f"{name}={value}"]
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        if name in os.environ:
            command += ["--build-arg", name]  # docker takes the value from its environment
    log.parent.mkdir(parents=True, exist_ok=True)
    with _secrets() as options:
        failure = _run([*command, *options, str(context)], log, stretched(seconds))
    if failure:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])
        raise ImageError(f"image {tag} {failure}; the whole output is in {log}:\n{last}")


def _run(command: Sequence[str], log: Path, seconds: float) -> str:
    """Run a build. Returns why it failed, or nothing. It is ended with all its processes when it takes too long."""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"DOCKER_BUILDKIT": "1"},  # older engines know no secrets without it
            )
        except FileNotFoundError as error:
            raise ImageError("docker is not installed: `invoke verify-prerequisites --backend compose`") from error
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"was not built within {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "" if code == 0 else f"was not built (exit code {code})"


@contextlib.contextmanager
def _secrets() -> Iterator[list[str]]:
    """Options for the secrets of a build, whose files exist meanwhile."""
    settings = pip_settings()
    certificates = settings.pop("cert", None) or os.environ.get("SSL_CERT_FILE")
    with tempfile.TemporaryDirectory(prefix="optiinfra-build-") as folder:
        lines = [f"{name} = {value}" for name, value in settings.items()]
        options = []
        if certificates and Path(certificates).is_file():
            lines.append(f"cert = {CERTIFICATES}")
            options += ["--secret", f"id=ca.pem,src={certificates}"]
        file = Path(folder) / "pip.conf"
        file.write_text("\n".join(["[global]", *lines, ""]))
        yield [*options, "--secret", f"id=pip.conf,src={file}"]


def pip_settings(files: Sequence[Path] | None = None) -> dict[str, str]:
    """What pip of this machine is told about its index: PIP_SETTINGS and `cert`, without addresses of local files.

    `files` are its configuration files, of which later ones win; variables of the environment win over all of them.
    """
    parser = configparser.RawConfigParser(strict=False)
    parser.read(_pip_files() if files is None else files, encoding="utf-8")
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    for name in (*PIP_SETTINGS, "cert"):
        if value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
            found[name] = value
    for name in ("index-url", "extra-index-url"):
        found[name] = " ".join(url for url in found.get(name, "").split() if url.startswith(("https://", "http://")))
    return {name: " ".join(found[name].split()) for name in (*PIP_SETTINGS, "cert") if found.get(name)}


def _pip_files() -> list[Path]:
    """The configuration files of pip, of which later ones win."""
    chosen = os.environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    everywhere = [Path(each) / "pip" / "pip.conf" for each in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip" / "pip.conf"
    files = [*everywhere, Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", own, Path(sys.prefix) / "pip.conf"]
    return [*files, Path(chosen)] if chosen else files
