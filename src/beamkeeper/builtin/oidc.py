"""People whom an OpenID Connect provider vouches for: by a code that a browser brings, or by a device code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import quote, urlencode

from pydantic import AfterValidator, Field, StringConstraints

from beamkeeper.builtin.oidc_http import Answer, Kept, Wire, is_safe
from beamkeeper.builtin.oidc_tokens import Algorithm, Expected, UnknownKeyError, keys_of, library, verified
from beamkeeper.domain.errors import (
    DmError,
    InvalidError,
    NotAuthenticatedError,
    SettingsError,
    UnavailableError,
)
from beamkeeper.domain.identities import Begun, CreatedAs, IdentityAnswer, LoginKind, NewIdentityLogin, Proven, Waiting
from beamkeeper.domain.people import Finding
from beamkeeper.plugins.api import Options

CODE_LIFETIME_S = 600.0
"""So long may somebody take to log in at the provider."""
LONGEST_LIFETIME_S = 1800.0
KEPT_S = 3600.0
"""What a provider says of itself is asked for again after this long; its keys also when a new one shows up."""
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def _url(value: str) -> str:
    if not is_safe(value) or "#" in value:
        raise ValueError("it should be https://HOST/PATH; plain http is for this machine alone")
    return value


Url = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_url)]


class OidcOptions(Options):
    """Which provider, as whom we are known there, and what becomes of people whom we do not know."""

    title: str = ""
    """What people call it; the issuer where empty."""
    issuer: Url
    """Exactly as it says itself, with or without a slash at the end."""
    client_id: str = Field(min_length=1)
    client_secret_file: Path | None = None
    """A private file with the client's secret; none for a public client."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    redirect_uris: tuple[Url, ...] = ()
    """Where browsers may be sent back to: those of the portal."""
    username_claim: str = "preferred_username"
    """What becomes the username of an account that is made."""
    create: bool = False
    """Whether somebody whom we do not know gets an account."""
    created_as: CreatedAs = CreatedAs.NOBODY
    """What such an account may do: nothing, or see the station."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "PS256", "ES256")
    """Which signatures are believed."""
    ca_file: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long one answer of the provider may take."""
    device_interval_s: float = Field(default=5.0, ge=0.05, le=60)
    """Between two questions whether somebody is done, where the provider does not say."""


class OidcProvider:
    """One provider, as the settings describe it."""

    options: ClassVar[type[Options]] = OidcOptions
    summary: ClassVar[str] = "People of an OpenID Connect provider, by authorization code with PKCE or device code."

    def __init__(self, options: OidcOptions) -> None:
        library()
        self._options = options
        self._secret = None if options.client_secret_file is None else _secret(options.client_secret_file)
        self._wire = Wire(timeout_s=options.timeout_s, ca_file=options.ca_file)
        self._discovery, self._jwks = Kept(seconds=KEPT_S), Kept(seconds=KEPT_S)
        self.issuer = options.issuer
        self.title = options.title or options.issuer
        self.creates = options.create
        self.created_as = options.created_as

    def begin(self, wanted: NewIdentityLogin) -> Begun:
        """Begin a login, and say where the person goes."""
        if wanted.kind is LoginKind.DEVICE:
            return self._begin_device()
        if wanted.redirect_uri is None or wanted.redirect_uri not in self._options.redirect_uris:
            raise InvalidError("redirect_uri: it is none of redirect_uris in the settings of this provider")
        kept = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(kept["verifier"].encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._options.client_id,
            "redirect_uri": wanted.redirect_uri,
            "scope": " ".join(self._options.scopes),
            "state": kept["state"],
            "nonce": kept["nonce"],
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        url = self._endpoint("authorization_endpoint")
        return Begun(
            url=f"{url}{'&' if '?' in url else '?'}{urlencode(query)}",
            secrets={**kept, "redirect_uri": wanted.redirect_uri},
            lifetime_s=CODE_LIFETIME_S,
        )

    def finish(self, kind: LoginKind, kept: Mapping[str, str], answer: IdentityAnswer) -> Proven | Waiting:
        """Say who proved to be whom, by the secrets of the beginning."""
        if kind is LoginKind.DEVICE:
            return self._finish_device(kept)
        state = "" if answer.state is None else answer.state.get_secret_value()
        if answer.code is None or not hmac.compare_digest(state.encode(), kept["state"].encode()):
            raise NotAuthenticatedError("what the browser came back with is of another login: begin another one")
        needs_issuer = self._about().get("authorization_response_iss_parameter_supported") is True
        if answer.iss != self.issuer and (needs_issuer or answer.iss is not None):
            raise NotAuthenticatedError("the browser comes from another provider: begin another login")
        form = {
            "grant_type": "authorization_code",
            "code": answer.code.get_secret_value(),
            "redirect_uri": kept["redirect_uri"],
            "code_verifier": kept["verifier"],
        }
        tokens = self._ask("token_endpoint", form)
        if tokens.is_error:
            raise _refused(tokens)
        return self._proven(tokens, nonce=kept["nonce"])

    def findings(self) -> Iterator[Finding]:
        """Try the provider: what it says of itself, and its keys."""
        try:
            about = self._about()
            flows = "codes and devices" if about.get("device_authorization_endpoint") else "codes, not devices"
            yield Finding(step=f"ask {self.issuer}", is_good=True, words=f"it says what it is, and takes {flows}")
            count = len(keys_of(self._keys(is_stale=False)))
            yield Finding(step="read its keys", is_good=count > 0, words=f"it has {count} keys that we can use")
        except DmError as error:
            yield Finding(step=f"ask {self.issuer}", is_good=False, words=error.message)

    def _begin_device(self) -> Begun:
        scope = {"scope": " ".join(self._options.scopes)}
        begun = self._ask("device_authorization_endpoint", scope)
        url = begun.text("verification_uri_complete") or begun.text("verification_uri")
        if begun.is_error or not begun.text("device_code") or not is_safe(url):
            raise UnavailableError(
                f"{self.title} begins no login for a device: {begun.text('error')[:100] or 'no code'}"
            )
        return Begun(
            url=url,
            secrets={"device_code": begun.text("device_code")},
            lifetime_s=min(LONGEST_LIFETIME_S, max(1.0, _number(begun, "expires_in", CODE_LIFETIME_S))),
            interval_s=max(0.05, _number(begun, "interval", self._options.device_interval_s)),
            user_code=begun.text("user_code"),
        )

    def _finish_device(self, kept: Mapping[str, str]) -> Proven | Waiting:
        tokens = self._ask("token_endpoint", {"grant_type": DEVICE_GRANT, "device_code": kept["device_code"]})
        if tokens.is_error and tokens.text("error") in ("authorization_pending", "slow_down"):
            return Waiting(is_asked_too_often=tokens.text("error") == "slow_down")
        if tokens.is_error:
            raise _refused(tokens)
        return self._proven(tokens, nonce=None)

    def _proven(self, tokens: Answer, *, nonce: str | None) -> Proven:
        options = self._options
        expected = Expected(self.issuer, options.client_id, options.algorithms, nonce, time.time())
        try:
            claims = verified(tokens.text("id_token"), keys_of(self._keys(is_stale=False)), expected)
        except UnknownKeyError:
            try:
                claims = verified(tokens.text("id_token"), keys_of(self._keys(is_stale=True)), expected)
            except UnknownKeyError as error:
                raise NotAuthenticatedError(
                    "the identity provider's token is refused (no key of the provider has signed it)"
                ) from error
        said = self._more(claims, tokens.text("access_token")) if self.creates else claims
        return Proven(
            issuer=self.issuer,
            subject=str(claims["sub"]),
            username=_text(said, options.username_claim),
            full_name=_text(said, "name"),
            email=_text(said, "email") if said.get("email_verified") is True else "",
        )

    def _more(self, claims: Mapping[str, Any], access_token: str) -> Mapping[str, Any]:
        """Return the claims, with those that the provider tells only who asks; of the same person."""
        url = self._about().get("userinfo_endpoint")
        if self._options.username_claim in claims or not url or not access_token:
            return claims
        told = self._wire.get(self._endpoint("userinfo_endpoint"), token=access_token).values
        if told.get("sub") != claims["sub"]:
            raise NotAuthenticatedError("the identity provider tells of somebody else: begin another login")
        return {**told, **claims}

    def _about(self) -> Mapping[str, Any]:
        about = self._discovery.get(self._wire, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if about.get("issuer") != self.issuer:
            raise UnavailableError(
                f'{self.issuer} says that it is "{str(about.get("issuer"))[:200]}": correct the setting'
            )
        return about

    def _keys(self, *, is_stale: bool) -> Mapping[str, Any]:
        return self._jwks.get(self._wire, self._endpoint("jwks_uri"), is_stale=is_stale)

    def _endpoint(self, name: str) -> str:
        url = self._about().get(name)
        if not isinstance(url, str) or not is_safe(url):
            raise UnavailableError(f"{self.title} has no {name} that can be trusted")
        return url

    def _ask(self, endpoint: str, form: Mapping[str, str]) -> Answer:
        """Send a form as the client that we are there."""
        url, known = self._endpoint(endpoint), self._options.client_id
        if self._secret is None:
            return self._wire.post(url, {**form, "client_id": known})
        methods = self._about().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if isinstance(methods, list) and "client_secret_basic" not in methods:
            return self._wire.post(url, {**form, "client_id": known, "client_secret": self._secret})
        # RFC 6749, 2.3.1: both are encoded as in forms before they become a user and a password.
        return self._wire.post(url, form, auth=(quote(known, safe=""), quote(self._secret, safe="")))


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
            found = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path} ({type(error).__name__}): it has the client's secret") from error
    if not found:
        raise SettingsError(f"{path} is empty: it has the client's secret in its first line")
    return found


def _refused(tokens: Answer) -> NotAuthenticatedError:
    said = tokens.text("error")[:100]
    return NotAuthenticatedError(f"the identity provider refuses this login ({said}): begin another one")


def _number(answer: Answer, key: str, otherwise: float) -> float:
    value = answer.values.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _text(claims: Mapping[str, Any], key: str) -> str:
    value = claims.get(key)
    return value[:2000] if isinstance(value, str) else ""
