"""What an ID token says, once everything that could be wrong with it has been looked at."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from beamkeeper.domain.errors import NotAuthenticatedError, SettingsError

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Signatures that only the provider can make. Never `none`, and never one by a secret that we hold, too."""

KEY_TYPES: Mapping[str, str] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
LEEWAY_S = 60
"""So far may the provider's clock be from ours."""
LONGEST_SUBJECT = 255
LATEST_S = 1e11
"""No token has a time beyond: the year 5138."""


class UnknownKeyError(Exception):
    """The token is signed by a key that we have not seen: the provider may have a new one."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say."""

    issuer: str
    client_id: str
    algorithms: Sequence[str]
    nonce: str | None
    now: float


def library() -> Any:
    """Return joserfc, which is an extra."""
    try:
        from joserfc import errors, jwk, jwt  # noqa: F401 - what is used of it
    except ImportError as error:
        raise SettingsError(
            "OpenID Connect needs joserfc, which is not installed: pip install 'beamkeeper[oidc]'"
        ) from error
    import joserfc

    return joserfc


def keys_of(document: Mapping[str, Any]) -> list[RSAKey | ECKey | OKPKey]:
    """Return the keys of a provider that can prove a signature; what we cannot read is no key of ours."""
    joserfc = library()
    found = []
    entries = document.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        if (
            not isinstance(entry, dict)
            or entry.get("use", "sig") != "sig"
            or entry.get("kty") not in {"RSA", "EC", "OKP"}
        ):
            continue
        try:
            found.append(joserfc.jwk.import_key(entry))
        except (joserfc.errors.JoseError, ValueError, TypeError, KeyError):
            continue
    return found


def verified(token: str, keys: Sequence[Any], expected: Expected) -> Mapping[str, Any]:
    """Return the claims of a token that is genuine, for us, of this login, and holds now; refuse any other."""
    joserfc = library()

    def choose(signed: Any) -> Any:
        header = signed.headers()
        kid, kind = header.get("kid"), KEY_TYPES.get(str(header.get("alg"))[:2])
        fitting = [key for key in keys if key.key_type == kind and kid in (None, key.kid)]
        if len(fitting) != 1:
            raise UnknownKeyError
        return fitting[0]

    try:
        claims: Mapping[str, Any] = joserfc.jwt.decode(token, choose, algorithms=list(expected.algorithms)).claims
    except (joserfc.errors.JoseError, ValueError, TypeError, KeyError) as error:
        raise _refused(f"its signature does not hold: {type(error).__name__}") from error
    if wrong := _wrong(claims, expected):
        raise _refused(wrong)
    return claims


def _wrong(claims: Mapping[str, Any], expected: Expected) -> str:
    """Return what of the claims is not as it must be; empty where all is."""
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    subject, party = claims.get("sub"), claims.get("azp")
    if claims.get("iss") != expected.issuer:
        return "it is of another issuer"
    if expected.client_id not in audiences or (len(audiences) > 1 and party is None):
        return "it is for another client"
    if party is not None and party != expected.client_id:
        return "it was given to another client"
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        return "it says of nobody who they are"
    return _wrong_time(claims, expected.now) or _wrong_nonce(claims, expected.nonce)


def _wrong_time(claims: Mapping[str, Any], now: float) -> str:
    times = {name: claims.get(name, 0 if name == "nbf" else None) for name in ("exp", "iat", "nbf")}
    for name, value in times.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < LATEST_S:  # as is true of NaN, too
            return f"it has no time {name}"
    if times["exp"] + LEEWAY_S <= now:
        return "it has expired"
    if max(times["iat"], times["nbf"]) - LEEWAY_S > now:
        return "it does not hold yet"
    return ""


def _wrong_nonce(claims: Mapping[str, Any], nonce: str | None) -> str:
    if nonce is None:
        return ""
    given = claims.get("nonce")
    is_right = isinstance(given, str) and hmac.compare_digest(given.encode(), nonce.encode())
    return "" if is_right else "it is of another login"


def _refused(why: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(f"the identity provider's token is refused ({why}): begin another login")
