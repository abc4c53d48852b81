"""Access tokens that nobody should accept."""

import base64
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.helpers.session_tokens import claims_of

FOREIGN_KEY = "a key that is as long as ours, but not ours"


def signed(environment: dict[str, Any], token: str, **changes: Any) -> str:
    """The token with changed claims, signed as the platform does; a claim that is None is left out."""
    return _encoded(environment["credentials"]["token_signing_key"], token, changes=changes)


def forgeries(environment: dict[str, Any], token: str) -> dict[str, str]:
    """Forged tokens by what is wrong with each, made from a valid one."""
    secrets = environment["credentials"]
    key = secrets["token_signing_key"]
    header, payload, signature = token.split(".")
    owner_of_another = _part(claims_of(token) | {"customer_id": "cust_000000000000000000000000"})
    forged = {
        "another customer under the same signature": f"{header}.{owner_of_another}.{signature}",
        "no signature": f"{header}.{payload}.",
        "part of the signature": f"{header}.{payload}.{signature[:-6]}",
        "another token's signature": f"{header}.{payload}.{signed(environment, token, exp=2**33).split('.')[2]}",
        "an expired end": signed(environment, token, exp=int(time.time()) - 1),
        "a start in the future": signed(environment, token, nbf=int(time.time()) + 600),
        "another audience": signed(environment, token, aud="agents"),
        "an unknown session": signed(environment, token, sid="session_000000000000000000000000"),
        "an unknown key id": _encoded(key, token, headers={"kid": "0123456789abcdef"}),
        "no key id": _encoded(key, token, headers={"kid": None}),
        "a path as its key id": _encoded(FOREIGN_KEY, token, headers={"kid": "../../dev/null"}),
        "a key of its own": _encoded(FOREIGN_KEY, token),
        "a key in its header": _encoded(FOREIGN_KEY, token, headers={"jwk": {"kty": "oct", "k": "YQ"}}),
        "an empty key": f"{header}.{payload}.{_empty_key_signature(header, payload)}",
        "HS512": _encoded(key, token, "HS512"),
        "HS384": _encoded(key, token, "HS384"),
        "RS256": _encoded(rsa.generate_private_key(65537, 2048), token, "RS256"),
        "ES256": _encoded(ec.generate_private_key(ec.SECP256R1()), token, "ES256"),
    }
    forged |= {f"no {claim}": signed(environment, token, **{claim: None}) for claim in ("exp", "sub", "aud", "sid")}
    for name in ("none", "None", "NONE"):
        unsigned = _part(jwt.get_unverified_header(token) | {"alg": name})
        forged[f"algorithm {name}"] = f"{unsigned}.{payload}."
        forged[f"algorithm {name} and a signature"] = f"{unsigned}.{payload}.{signature}"
    for name in ("enrolment_secret", "admin_token", "portal_session_key", "portal_secret"):
        forged[f"the {name} as its key"] = _encoded(secrets[name], token)
    return forged


def _encoded(
    key: Any,
    token: str,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
) -> str:
    claims = {name: value for name, value in (claims_of(token) | (changes or {})).items() if value is not None}
    merged = {"kid": jwt.get_unverified_header(token)["kid"]} | (headers or {})
    named = {name: value for name, value in merged.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers=named)


def _empty_key_signature(header: str, payload: str) -> str:
    """PyJWT refuses to sign with an empty key."""
    digest = hmac.digest(b"", f"{header}.{payload}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
