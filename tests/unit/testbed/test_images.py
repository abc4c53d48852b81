"""Building images: what a build gets of this machine, and what a failed one says. `docker` is a script."""

import json
import os
import time
from pathlib import Path

import pytest

from testbed import images
from testbed.docker import DockerError
from testbed.images import Image, ImageError


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script called `docker` in the first folder of the path. It does what a test writes into it."""
    script = tmp_path / "bin" / "docker"
    script.parent.mkdir()
    script.touch(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    for name in (*images.PROXIES, *map(str.upper, images.PROXIES)):
        monkeypatch.delenv(name, raising=False)
    return script


def build(folder: Path, seconds: float = 10) -> None:
    images.build(
        "example:1",
        folder,
        folder / "Dockerfile",
        log=folder / "logs" / "build.log",
        target="service",
        args={"BASE": "debian"},
        labels={"key": "7"},
        seconds=seconds,
    )


def test_build_gets_proxies_and_the_settings_of_pip(
    docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.touch()
    monkeypatch.setenv("PIP_CERT", str(authorities))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy.example")
    copy = 'case "$word" in id=pip.conf,src=*) cat "${word#*src=}" >pip.conf ;; esac'
    script = f'cd {tmp_path}; echo "$DOCKER_BUILDKIT" "$@"; for word; do {copy}; done'
    docker.write_text(f"#!/bin/sh\n{script}\n")
    build(tmp_path)
    words = (tmp_path / "logs" / "build.log").read_text().split()
    assert words[:8] == ["1", "build", "--progress", "plain", "--network", "host", "--tag", "example:1"]
    options = ["--target", "service", "--build-arg", "BASE=debian", "--label", "key=7", "--build-arg", "HTTPS_PROXY"]
    assert words[8:18] == ["--file", f"{tmp_path}/Dockerfile", *options]
    assert words[18:21] == ["--secret", f"id=ca.pem,src={authorities}", "--secret"]
    assert words[-1] == str(tmp_path)
    lines = (tmp_path / "pip.conf").read_text().splitlines()
    assert lines[0] == "[global]"
    assert {"index-url = https://index.example/simple", "cert = /run/secrets/ca.pem"} <= set(lines)
    assert not Path(words[21].removeprefix("id=pip.conf,src=")).exists()


def test_build_that_fails_shows_the_end_of_its_log(docker: Path, tmp_path: Path) -> None:
    docker.write_text("#!/bin/sh\nseq 100; echo no space left >&2; exit 3\n")
    with pytest.raises(ImageError) as raised:
        build(tmp_path)
    first, *lines = str(raised.value).splitlines()
    log = tmp_path / "logs" / "build.log"
    assert first == f"image example:1 was not built (exit code 3); the whole output is in {log}:"
    assert lines == [*(str(number) for number in range(82, 101)), "no space left"]


def test_build_that_takes_too_long_is_ended_with_its_processes(docker: Path, tmp_path: Path) -> None:
    docker.write_text(f"#!/bin/sh\nsleep 60 & echo $! >{tmp_path}/child; wait\n")
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"image example:1 was not built within \d+ s"):
        build(tmp_path, seconds=0.5)
    assert time.monotonic() - began < 30
    status = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_inspect_returns_the_image_or_none(docker: Path) -> None:
    described = {"Id": "sha256:7", "Config": {"Labels": None}, "Size": 12}
    docker.write_text(f"#!/bin/sh\necho '{json.dumps(described)}'\n")
    assert images.inspect("example:1") == Image("sha256:7", {}, 12)
    docker.write_text("#!/bin/sh\necho 'Error response from daemon: No such image: example:1' >&2; exit 1\n")
    assert images.inspect("example:1") is None


def test_inspect_without_an_engine_fails(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    with pytest.raises(DockerError, match=r"(?s)failed:.*Cannot connect to the Docker daemon"):
        images.inspect("example:1")
    monkeypatch.setenv("PATH", str(docker.parent.parent))
    with pytest.raises(DockerError, match=r"^docker is not installed"):
        images.inspect("example:1")


def test_pip_settings_leave_out_what_only_this_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*images.PIP_SETTINGS, "cert"):
        monkeypatch.delenv(f"PIP_{name.upper().replace('-', '_')}", raising=False)
    general, own = tmp_path / "general.conf", tmp_path / "own.conf"
    general.write_text(
        "[global]\nindex-url = https://a.example/simple\nfind-links = /wheels\nconstraint = /c.txt\ntimeout = 5\n"
    )
    own.write_text(
        "[global]\nindex-url = https://b.example/simple\n"
        "[install]\nextra-index-url =\n    file:///index\n    https://c.example/simple\n"
    )
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    assert images.pip_settings([general, own, tmp_path / "missing.conf"]) == {
        "index-url": "https://b.example/simple",
        "extra-index-url": "https://c.example/simple",
        "timeout": "9",
    }
