"""The production guard: services and tests connect only to loopback, and never use credentials that could be real.

It checks the caller's environment variables, the addresses that names resolve to, and the engine that Docker's own
configuration selects. It never reads `~/.aws`. It cannot be turned off.
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
# Long-lived (AKIA) and temporary (ASIA) access key ids of AWS, also inside a URL or a list.
KEY_ID = re.compile(r"(?<![A-Za-z0-9])(AKIA|ASIA)[A-Za-z0-9]{4,}")
KEY_VARIABLES = ("AWS_", "OPTIINFRA_")
# Variables that make an SDK read credentials from files, or request them with a machine's or container's identity.
PROFILE = re.compile(
    r"AWS_PROFILE|AWS_DEFAULT_PROFILE|AWS_CONFIG\w*|AWS_SHARED_CREDENTIALS_FILE"
    r"|AWS_WEB_IDENTITY_TOKEN_FILE|AWS_ROLE_ARN|AWS_CONTAINER_CREDENTIALS_\w+"
    r"|GOOGLE_APPLICATION_CREDENTIALS|CLOUDSDK_(CONFIG|AUTH_\w+|API_ENDPOINT_OVERRIDES_\w+)|GCE_METADATA_\w+"
)
ADDRESS = re.compile(r"OPTIINFRA_\w+_URL|AWS_ENDPOINT_URL\w*|AWS_(?!IGNORE_)\w+_ENDPOINT")
# Variables by which libpq connects to another server than the one in the URL.
LIBPQ = re.compile(r"PGHOST|PGHOSTADDR|PGSERVICE|PGSERVICEFILE|PGSYSCONFDIR")
PROXY = re.compile(r"\w+_PROXY", re.IGNORECASE)
NO_PROXY = ("no_proxy", "NO_PROXY")
# Query parameters from which clients of PostgreSQL and Redis take further hosts.
HOST_PARAMETERS = ("host", "hostaddr")
LOCAL_DOCKER = ("unix://", "npipe://")


class Refused(Exception):  # noqa: N818  (a decision, not a failure)
    """The command could reach a real service. The message has a line for each reason."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("refused: this could reach a real service:\n" + "\n".join(f"  {line}" for line in reasons))


def check_caller(backend: str | None = None) -> None:
    """Raise Refused when the environment variables of this process could lead to a real service.

    `backend` is the one given on the command line, if any. Docker's variables are checked for compose only.
    """
    chosen = backend or os.environ.get("OPTIINFRA_BACKEND")
    reasons = [*credential_reasons(os.environ), *address_reasons(os.environ), *redirection_reasons(os.environ)]
    if chosen == "compose":
        reasons += docker_reasons(os.environ)
    if reasons:
        raise Refused(reasons)


def check_urls(urls: Mapping[str, str], source: str, remedy: str) -> None:
    """Raise Refused when the address of a part is not on loopback. `source` is the file that holds the addresses."""
    found = ((name, not_loopback(url)) for name, url in urls.items())
    reasons = [f"{source}: the address of {name} {why}; {remedy}" for name, why in found if why]
    if reasons:
        raise Refused(reasons)


def credential_reasons(variables: Mapping[str, str]) -> list[str]:
    """A reason for each variable that holds or leads to a possibly real credential. Reasons contain no secret."""
    reasons = []
    for name, value in sorted(variables.items()):
        if PROFILE.fullmatch(name) and value:
            reasons.append(f"{name} is set and leads to real credentials; the mock cloud needs none: unset {name}")
        elif name.startswith(KEY_VARIABLES) and (key := KEY_ID.search(value)):
            what = f"{name} holds what looks like a real AWS key ({key[1]}...)"
            reasons.append(f"{what}; the mock cloud needs none: unset {name}")
    return reasons


def address_reasons(variables: Mapping[str, str]) -> list[str]:
    """A reason for each variable whose address is not on loopback."""
    found = ((name, not_loopback(value)) for name, value in sorted(variables.items()) if ADDRESS.fullmatch(name))
    remedy = "the environment sets the addresses of its services, all on 127.0.0.1"
    return [f"{name} {why}; {remedy}: unset {name}" for name, why in found if why]


def redirection_reasons(variables: Mapping[str, str]) -> list[str]:
    """A reason for each variable that leads connections to loopback elsewhere. A proxy must be off for loopback."""
    reasons = [
        f"{name} is set and overrides the address of PostgreSQL: unset {name}"
        for name, value in sorted(variables.items())
        if LIBPQ.fullmatch(name) and value
    ]
    direct = {host.strip() for name in NO_PROXY for host in variables.get(name, "").split(",")}
    for name, value in sorted(variables.items()):
        proxied = PROXY.fullmatch(name) and name not in NO_PROXY and value
        if proxied and not direct & {"*", "127.0.0.1"} and not_loopback(value):
            what = f"{name} sends requests for 127.0.0.1 to a proxy"
            reasons.append(f"{what}: unset {name}, or add 127.0.0.1,localhost to NO_PROXY")
    return reasons


def docker_reasons(variables: Mapping[str, str]) -> list[str]:
    """A reason for each variable or file of Docker that selects an engine on another machine."""
    reasons = []
    host, context = variables.get("DOCKER_HOST", ""), variables.get("DOCKER_CONTEXT", "")
    folder = Path(variables.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if why := _not_this_machine(host):
        reasons.append(
            f"DOCKER_HOST {why}; containers are started on this machine only:"
            " unset DOCKER_HOST, or give a unix:// socket or a loopback address"
        )
    if context and (why := _remote_context(context, folder)):
        reasons.append(
            f"DOCKER_CONTEXT={context} {why}; containers are started on this machine only:"
            " unset DOCKER_CONTEXT, or set it to default"
        )
    if not host and not context and (why := _remote_choice(folder / "config.json")):
        reasons.append(
            f"{folder / 'config.json'}: {why}; containers are started on this machine only: run `docker context use"
            " default`"
        )
    return reasons


def _not_this_machine(host: str) -> str | None:
    return None if host.startswith(LOCAL_DOCKER) else not_loopback(host)


def _remote_choice(config: Path) -> str | None:
    """Why the context that Docker's configuration selects, if any, could be on another machine."""
    if not config.exists():
        return None
    try:
        context = str(json.loads(config.read_text()).get("currentContext") or "default")
    except (OSError, ValueError, AttributeError) as error:
        return f"cannot be read ({error!r}), so the engine that it selects is unknown"
    why = _remote_context(context, config.parent)
    return f"its currentContext {context!r} {why}" if why else None


def _remote_context(context: str, folder: Path) -> str | None:
    """Why a Docker context, which is stored under the digest of its name, could be on another machine."""
    if context == "default":
        return None
    meta = folder / "contexts" / "meta" / hashlib.sha256(context.encode()).hexdigest() / "meta.json"
    try:
        host = str(json.loads(meta.read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"could be an engine on another machine: {meta} does not name its host"
    return _not_this_machine(host)


def not_loopback(url: str) -> str | None:
    """Why an address is refused, as the predicate of a sentence; None when all its hosts are on loopback.

    Every address that a name resolves to must be on loopback. An empty value counts as unset.
    """
    if not url:
        return None
    try:
        found = hosts(url)
    except ValueError:
        found = []
    if not found:
        return "has no host that can be checked, unlike http://127.0.0.1:8001"
    return next((why for host in found if (why := _not_loopback_host(host))), None)


def hosts(url: str) -> list[str]:
    """Every host that a client could read from a URL, unresolved. ValueError when the URL is malformed.

    A PostgreSQL URL may list several hosts, and may have more in its parameters.
    """
    # With one of these characters, parsers disagree on where the host ends.
    if re.search(r"[\\\s\x00-\x1f]", url):
        raise ValueError("the URL contains a backslash, a space or a control character")
    parts = urlsplit(url)
    listed = parts.netloc.rpartition("@")[2].split(",") if parts.netloc else []
    parameters = [value for key, value in parse_qsl(parts.query) if key.lower() in HOST_PARAMETERS]
    listed += [each for value in parameters for each in value.split(",")]
    return [unquote(urlsplit(f"//{each}").hostname or "") for each in listed]


def _not_loopback_host(host: str) -> str | None:
    try:
        found = addresses(host)
    except (OSError, UnicodeError) as error:
        return f"has host {host!r}, which cannot be resolved ({error})"
    elsewhere = [address for address in found if not is_loopback(address)]
    if not found or elsewhere:
        shown = ", ".join(elsewhere) or "no address"
        return f"leads to {shown}" + ("" if elsewhere == [host] else f" (resolved from {host!r})") + ", not to loopback"
    return None


def addresses(host: str) -> list[str]:
    """Every IP address that a host resolves to."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return sorted({str(entry[4][0]) for entry in found})


def is_loopback(address: str) -> bool:
    """Whether an IPv4, IPv6 or IPv4-mapped address is on loopback."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
