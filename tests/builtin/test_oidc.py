"""Tokens that must be refused: an issuer of ours signs them, and everything but one thing is right."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from beamkeeper.builtin.oidc import OidcOptions, OidcProvider
from beamkeeper.domain.errors import NotAuthenticatedError, UnavailableError
from beamkeeper.domain.identities import IdentityAnswer, LoginKind, NewIdentityLogin, Proven
from beamkeeper.testing.forger import Forger, forger

KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "one"})
CURVE = ECKey.generate_key("P-256", {"kid": "two"})

Claims = dict[str, Any]


@pytest.fixture
def issuer() -> Iterator[Forger]:
    with forger() as made:
        made.documents["/keys"] = {
            "keys": [{"kty": "unheard of"}, KEY.as_dict(private=False), CURVE.as_dict(private=False)]
        }
        yield made


def provider(issuer: Forger, **options: object) -> OidcProvider:
    return OidcProvider(OidcOptions.model_validate(issuer.options(**options)))


def finish(issuer: Forger, by: OidcProvider, sign: Callable[[Claims], str]) -> object:
    """Log in, with a token that `sign` makes of claims which are all right."""
    begun = by.begin(NewIdentityLogin(kind=LoginKind.CODE, redirect_uri=f"{issuer.issuer}/back"))
    query = parse_qs(urlsplit(begun.url).query)
    now = int(time.time())
    claims = {
        "iss": issuer.issuer,
        "aud": "beamkeeper",
        "sub": "ada",
        "exp": now + 300,
        "iat": now,
        "nonce": query["nonce"][0],
    }
    issuer.token = lambda: sign(claims)
    answer = IdentityAnswer.model_validate({"secret": "any", "code": "any", "state": query["state"][0]})
    return by.finish(LoginKind.CODE, begun.secrets, answer)


def signed(claims: Mapping[str, Any], key: Any = KEY, alg: str = "RS256", kid: str | None = "one") -> str:
    header = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    return jwt.encode(header, dict(claims), key, algorithms=[alg])


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unsigned(claims: Claims) -> str:
    return f"{b64(json.dumps({'alg': 'none', 'kid': 'one'}).encode())}.{b64(json.dumps(claims).encode())}."


def by_public_key(claims: Claims) -> str:
    """Sign by HMAC with what everybody knows, in the hope that it is taken for a secret."""
    text = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'one'}).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(hmac.digest(KEY.as_pem(private=False), text.encode(), 'sha256'))}"


FORGED: Mapping[str, Callable[[Claims], str]] = {
    "another key": lambda claims: signed(claims, OTHER),
    "a key of another kind": lambda claims: signed(claims, CURVE, "ES256", "one"),
    "no key of that name": lambda claims: signed(claims, OTHER, kid="three"),
    "algorithm none": unsigned,
    "the public key as a secret": by_public_key,
    "an algorithm that is not allowed": lambda claims: signed(claims, KEY, "RS512"),
    "changed afterwards": lambda claims: signed(claims)[:-8] + "AAAAAAAA",
    "no token": lambda claims: "",
    "another audience": lambda claims: signed({**claims, "aud": "other"}),
    "several audiences and no party": lambda claims: signed({**claims, "aud": ["beamkeeper", "other"]}),
    "given to another": lambda claims: signed({**claims, "azp": "other"}),
    "no audience": lambda claims: signed({k: v for k, v in claims.items() if k != "aud"}),
    "another issuer": lambda claims: signed({**claims, "iss": "https://other.example.org"}),
    "expired": lambda claims: signed({**claims, "exp": claims["iat"] - 120, "iat": claims["iat"] - 420}),
    "no end": lambda claims: signed({k: v for k, v in claims.items() if k != "exp"}),
    "an end that is no number": lambda claims: signed({**claims, "exp": "tomorrow"}),
    "an end that is never": lambda claims: signed({**claims, "exp": float("nan")}),
    "of tomorrow": lambda claims: signed({**claims, "iat": claims["iat"] + 3600, "exp": claims["exp"] + 7200}),
    "not before tomorrow": lambda claims: signed({**claims, "nbf": claims["iat"] + 3600}),
    "another nonce": lambda claims: signed({**claims, "nonce": "of another login"}),
    "no nonce": lambda claims: signed({k: v for k, v in claims.items() if k != "nonce"}),
    "nobody": lambda claims: signed({**claims, "sub": ""}),
    "a number for somebody": lambda claims: signed({**claims, "sub": 1}),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_token_lets_nobody_in(issuer: Forger, how: str) -> None:
    with pytest.raises(NotAuthenticatedError, match="refused"):
        finish(issuer, provider(issuer), FORGED[how])


@pytest.mark.parametrize(
    "sign",
    [
        signed,
        lambda claims: signed(claims, CURVE, "ES256", "two"),
        lambda claims: signed(claims, kid=None),
        lambda claims: signed({**claims, "aud": ["beamkeeper", "other"], "azp": "beamkeeper"}),
        lambda claims: signed({**claims, "exp": claims["iat"] - 30}),
    ],
    ids=["RS256", "ES256", "one key fits", "several audiences", "within the leeway"],
)
def test_a_genuine_token_lets_its_subject_in(issuer: Forger, sign: Callable[[Claims], str]) -> None:
    proven = finish(issuer, provider(issuer), sign)
    assert isinstance(proven, Proven)
    assert (proven.issuer, proven.subject) == (issuer.issuer, "ada")


def test_a_token_of_one_login_does_not_end_another(issuer: Forger) -> None:
    tokens: list[str] = []

    def once(claims: Claims) -> str:
        tokens.append(signed(claims))
        return tokens[0]

    by = provider(issuer)
    assert isinstance(finish(issuer, by, once), Proven)
    with pytest.raises(NotAuthenticatedError, match="another login"):
        finish(issuer, by, once)


def test_what_a_provider_says_of_itself_is_asked_once(issuer: Forger) -> None:
    by = provider(issuer)
    for _ in range(3):
        finish(issuer, by, signed)
    for _ in range(3):
        with pytest.raises(NotAuthenticatedError):
            finish(issuer, by, FORGED["no key of that name"])
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"], "and no token makes us ask all the time"


@pytest.mark.parametrize(
    "lie",
    [
        {"issuer": "https://other.example.org"},
        {"jwks_uri": "http://idp.example.org/keys"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
        {"filling": "x" * 1_000_001},
    ],
)
def test_a_provider_that_cannot_be_trusted_is_unavailable(issuer: Forger, lie: Mapping[str, object]) -> None:
    path = "/.well-known/openid-configuration"
    issuer.documents[path] = {**issuer.documents[path], **lie}
    with pytest.raises(UnavailableError):
        finish(issuer, provider(issuer), signed)
