"""The production guard: services and tests run against loopback alone, and never with credentials that could be real.

It judges what the caller's environment variables say, where names resolve to, and which engine Docker's own files
choose; it never looks into ``~/.aws``. There is no way to turn it off.
"""

import hashlib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

EXIT_CODE = 2  # of invoke and of pytest
# AWS's long-lived (AKIA) and temporary (ASIA) key ids, also in the middle of an address or a list.
KEY_ID = re.compile(r"(?<![A-Za-z0-9])(AKIA|ASIA)[A-Za-z0-9]{4,}")
KEY_VARIABLES = ("AWS_", "OPTIINFRA_")
# What has an SDK look for credentials in a person's own files, or get some by a machine's or container's identity.
PROFILE = re.compile(
    r"AWS_PROFILE|AWS_DEFAULT_PROFILE|AWS_CONFIG\w*|AWS_SHARED_CREDENTIALS_FILE"
    r"|AWS_WEB_IDENTITY_TOKEN_FILE|AWS_ROLE_ARN|AWS_CONTAINER_CREDENTIALS_\w+"
)
ADDRESS = re.compile(r"OPTIINFRA_\w+_URL|AWS_ENDPOINT_URL\w*")
# What clients of PostgreSQL and Redis take a host from instead of, or besides, the address's own.
HOST_PARAMETERS = ("host", "hostaddr")
LOCAL_DOCKER = ("unix://", "npipe://")


class Refused(Exception):  # noqa: N818  (it is an answer, not a failure)
    """What was asked for could reach something real; the message has a line a reason."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("refused, for it could reach something real:\n" + "\n".join(f"  {line}" for line in reasons))


def check_caller(backend: str | None = None) -> None:
    """Refused when this process' own environment variables could lead to anything real.

    ``backend`` is the one chosen on the command line, if any: Docker's variables matter to compose alone.
    """
    chosen = backend or os.environ.get("OPTIINFRA_BACKEND")
    reasons = [*credential_reasons(os.environ), *address_reasons(os.environ)]
    if chosen == "compose":
        reasons += docker_reasons(os.environ)
    if reasons:
        raise Refused(reasons)


def check_urls(urls: Mapping[str, str], source: str, remedy: str) -> None:
    """Refused when an address of a part, by name, is not on loopback; ``source`` says where the addresses stand."""
    found = ((name, not_loopback(url)) for name, url in urls.items())
    reasons = [f"{source}: the address of {name} {why}; {remedy}" for name, why in found if why]
    if reasons:
        raise Refused(reasons)


def credential_reasons(variables: Mapping[str, str]) -> list[str]:
    """Why each variable that holds, or leads to, a credential that could be real is refused. Shows no secret."""
    reasons = []
    for name, value in sorted(variables.items()):
        if PROFILE.fullmatch(name) and value:
            reasons.append(f"{name} is set: it leads to real credentials, and the mock cloud needs none; unset {name}")
        elif name.startswith(KEY_VARIABLES) and (key := KEY_ID.search(value)):
            what = f"{name} holds what looks like a real AWS key ({key[1]}...)"
            reasons.append(f"{what}; the mock cloud needs none: unset {name}")
    return reasons


def address_reasons(variables: Mapping[str, str]) -> list[str]:
    """Why each variable that gives an address elsewhere than on loopback is refused."""
    found = ((name, not_loopback(value)) for name, value in sorted(variables.items()) if ADDRESS.fullmatch(name))
    remedy = "the environment gives its services their addresses, all on 127.0.0.1"
    return [f"{name} {why}; {remedy}: unset {name}" for name, why in found if why]


def docker_reasons(variables: Mapping[str, str]) -> list[str]:
    """Why Docker's variables, or its own files, are refused when they choose an engine on another machine."""
    reasons = []
    host, context = variables.get("DOCKER_HOST", ""), variables.get("DOCKER_CONTEXT", "")
    folder = Path(variables.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if why := _not_this_machine(host):
        reasons.append(
            f"DOCKER_HOST {why}; containers are started on this machine alone:"
            " unset DOCKER_HOST, or give a unix:// socket or a loopback address"
        )
    if context and (why := _remote_context(context, folder)):
        reasons.append(
            f"DOCKER_CONTEXT={context} {why}; containers are started on this machine alone:"
            " unset DOCKER_CONTEXT, or set it to default"
        )
    if not host and not context and (why := _remote_choice(folder / "config.json")):
        reasons.append(
            f"{folder / 'config.json'}: {why}; containers are started on this machine alone: run `docker context use"
            " default`"
        )
    return reasons


def _not_this_machine(host: str) -> str | None:
    return None if host.startswith(LOCAL_DOCKER) else not_loopback(host)


def _remote_choice(config: Path) -> str | None:
    """Why the context that Docker's configuration chooses, if any, could be another machine's."""
    if not config.exists():
        return None
    try:
        context = str(json.loads(config.read_text()).get("currentContext") or "default")
    except (OSError, ValueError, AttributeError) as error:
        return f"cannot be read ({error!r}), so nobody knows which engine it chooses"
    why = _remote_context(context, config.parent)
    return f"its currentContext {context!r} {why}" if why else None


def _remote_context(context: str, folder: Path) -> str | None:
    """Why a context of Docker's, kept under the digest of its name, could be another machine's."""
    if context == "default":
        return None
    meta = folder / "contexts" / "meta" / hashlib.sha256(context.encode()).hexdigest() / "meta.json"
    try:
        host = str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"could be an engine on another machine: {meta} does not say"
    return _not_this_machine(host)


def not_loopback(url: str) -> str | None:
    """Why an address may not be called, as the rest of a sentence; None when every host in it is on loopback.

    A name is judged by all addresses that it resolves to now. An empty value counts as unset.
    """
    if not url:
        return None
    try:
        found = hosts(url)
    except ValueError:
        found = []
    if not found:
        return "names no host that can be checked, as http://127.0.0.1:8001 would"
    return next((why for host in found if (why := _not_loopback_host(host))), None)


def hosts(url: str) -> list[str]:
    """Every host that a client could take out of an address, as it stands there; ValueError when it is malformed.

    PostgreSQL's addresses may list several, and may name some in their parameters.
    """
    # Parsers differ on where the host ends when there is one of these.
    if re.search(r"[\\\s\x00-\x1f]", url):
        raise ValueError("a backslash, a space or a control character")
    parts = urlsplit(url)
    listed = parts.netloc.rpartition("@")[2].split(",") if parts.netloc else []
    named = [urlsplit(f"//{each}").hostname or "" for each in listed]
    given = [value for key, value in parse_qsl(parts.query) if key.lower() in HOST_PARAMETERS]
    more = [urlsplit(f"//{each}").hostname or "" for value in given for each in value.split(",")]
    return [unquote(host) for host in [*named, *more]]


def _not_loopback_host(host: str) -> str | None:
    try:
        found = addresses(host)
    except (OSError, UnicodeError) as error:
        return f"names {host!r}, which cannot be resolved ({error})"
    elsewhere = [address for address in found if not is_loopback(address)]
    if not found or elsewhere:
        shown = ", ".join(elsewhere) or "no address"
        return f"leads to {shown}" + ("" if elsewhere == [host] else f" (by the name {host!r})") + ", not to loopback"
    return None


def addresses(host: str) -> list[str]:
    """Every address that a host stands for: itself, when it is one."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return sorted({str(entry[4][0]) for entry in found})


def is_loopback(address: str) -> bool:
    """Whether an IP address is on loopback, in either version or one within the other."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
