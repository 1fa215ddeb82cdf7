"""One service over HTTP: the session's token, errors decoded by code, retries of what may be asked twice."""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter

import beamkeeper
from beamkeeper.domain.errors import (
    DmError,
    InternalError,
    MirrorBehindError,
    NotAuthenticatedError,
    SettingsError,
    UnavailableError,
    error_classes,
)
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.status import HEARD_HEADER

MIRROR_HEADER = "Beamkeeper-Mirror"
TRIES = 4
"""How often a request is sent that is safe to send again."""

SILENT_S = 15
"""Where the network swallows everything, and nobody says so, a connection counts as broken after so long."""

_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_S // 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000),
)
"""The kernel asks whether the other side is there, also while an answer is waited for that takes long to make."""

ModelT = TypeVar("ModelT")
_CLASSES = error_classes()


class Credentials:
    """The token of a session and the newest change of identities seen; shared by the services of one client.

    `renew` logs in again and returns a new token; None where only the person can.
    """

    def __init__(self, token: str | None = None, renew: Callable[[], str | None] | None = None) -> None:
        self.token = token
        self.renew = renew
        self.mirror = ""
        self.on_behalf_of = ""
        """The address of whom a portal asks for, by which failed logins are counted and changes recorded."""

    def saw(self, mirror: str) -> None:
        """Remember the newest change of identities: other services are told to wait until they know of it."""
        if not self.mirror or Cursor.parse(mirror) > Cursor.parse(self.mirror):
            self.mirror = mirror

    def headers(self) -> dict[str, str]:
        """Return the headers that say who asks and what it has seen."""
        found = {}
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        if self.mirror:
            found[MIRROR_HEADER] = self.mirror
        if self.on_behalf_of:
            found["X-Forwarded-For"] = self.on_behalf_of
        return found


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, so that it can be sent again."""

    method: str
    path: str
    payload: bytes | None
    kind: str
    query: Mapping[str, str]
    timeout_s: float | None


class Http:
    """Requests to one service.

    Every request that this client makes may be sent again: creations carry a uid or a name that makes the
    second a conflict or the same answer. So a lost answer is asked for again, a few times with growing pauses.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        ca: str | None = None,
        timeout_s: float = 30.0,
        tries: int = TRIES,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.credentials = credentials
        self.timeout_s = timeout_s
        self.heard_at: datetime | None = None
        """As a station said last: when it had heard of its site, and so from when it is what it tells of it."""
        self._tries = tries
        self._http = httpx2.Client(
            base_url=self.url,
            timeout=httpx2.Timeout(timeout_s, connect=5.0),
            headers={"User-Agent": f"beamkeeper/{beamkeeper.__version__}"},
            transport=transport
            or httpx2.HTTPTransport(verify=trust(self.url, ca), trust_env=False, socket_options=_ALIVE),
            trust_env=False,
        )

    def get(self, path: str, model: type[ModelT] | Any, *, query: object = None, timeout_s: float | None = None) -> Any:
        """Ask for a thing and return it as `model`."""
        return self.call("GET", path, model, query=query, timeout_s=timeout_s)

    def call(
        self,
        method: str,
        path: str,
        model: type[ModelT] | Any = None,
        *,
        body: BaseModel | Mapping[str, object] | bytes | None = None,
        content: bytes | None = None,
        query: object = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send a request and return its answer as `model` (None: no answer is wanted).

        Raises the error class that the service's code names; UnavailableError where it does not answer.
        """
        payload = content if content is not None else _json(body)
        kind = "application/octet-stream" if content is not None else "application/json"
        response = self._send(_Request(method, path, payload, kind, _query(query), timeout_s))
        if model is None:
            return None
        try:
            return TypeAdapter(model).validate_json(response.content)
        except ValueError as error:
            raise InternalError(
                f"{self.url} gave an answer to {method} {path} that this client cannot read: "
                f"is it a Beamkeeper service of a like version ({beamkeeper.__version__})?"
            ) from error

    def content(self, path: str, *, query: object = None, timeout_s: float | None = None) -> bytes:
        """Ask for a thing whose answer is bytes."""
        request = _Request("GET", path, None, "application/json", _query(query), timeout_s)
        return bytes(self._send(request).content)

    @contextmanager
    def stream(self, path: str, *, query: object = None, begin: int = 0) -> Iterator[httpx2.Response]:
        """Give the answer to a GET from a byte on, its body still to be read; asked for once, and not again.

        Raises as `call` does; while the body is read, UnavailableError where the service goes away.
        """
        headers = {**self.credentials.headers(), "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        try:
            with self._http.stream("GET", path, headers=headers, params=_query(query) or None) as response:
                if not response.is_success:  # one that leads elsewhere has done nothing
                    raise decode(response.status_code, response.read(), self.url)
                yield response
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnavailableError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnavailableError(
                f"{self.url} shows a certificate that is not believed ({_reason(error)}): name the site's "
                f"certificate authority with `dm login --ca FILE`, BEAMKEEPER_CA, or for services tls.ca_file",
                url=self.url,
            )
        return UnavailableError(
            f"{self.url} does not answer ({str(error) or type(error).__name__}): is it up? "
            f"`dm status` tells, `dm up` starts it",
            url=self.url,
        )

    def _send(self, request: _Request) -> httpx2.Response:
        is_renewed = False
        for attempt in range(1, self._tries + 1):
            try:
                return self._once(request)
            except NotAuthenticatedError:
                renew = self.credentials.renew
                if is_renewed or renew is None or (token := renew()) is None:
                    raise
                self.credentials.token, is_renewed = token, True
            except UnavailableError as error:
                is_silent = isinstance(error.__cause__, httpx2.ConnectTimeout)  # it was tried for long enough
                if attempt == self._tries or is_silent or (isinstance(error, MirrorBehindError) and attempt > 1):
                    raise
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        raise UnavailableError(f"{self.url} did not answer {request.method} {request.path}")

    def _once(self, request: _Request) -> httpx2.Response:
        headers = self.credentials.headers()
        if request.payload is not None:
            headers["Content-Type"] = request.kind
        try:
            response = self._http.request(
                request.method,
                request.path,
                content=request.payload,
                headers=headers,
                params=request.query or None,  # for an empty one the address would be made anew
                timeout=httpx2.USE_CLIENT_DEFAULT if request.timeout_s is None else request.timeout_s,
            )
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise UnavailableError(
                f'"{self.url}" is no address of a service ({error}): use http://HOST:PORT'
            ) from error
        if not response.is_success:  # one that leads elsewhere has done nothing
            raise decode(response.status_code, response.content, self.url)
        if seen := response.headers.get(MIRROR_HEADER):
            self.credentials.saw(seen)
        if heard := response.headers.get(HEARD_HEADER):
            self.heard_at = datetime.fromisoformat(heard)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def trust(url: str, ca: str | None) -> ssl.SSLContext | bool:
    """Return whose certificates are believed: those of one authority where it is named, else of the system's.

    Where none is ever shown nobody's are: to read the system's takes 40 ms, for every connection that is made.
    """
    if not url.startswith("https://"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{ca} cannot be read as certificates of authorities ({error}): it should be PEM"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: Exception) -> str:
    return str(error).rpartition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (_ssl")[0]


def _json(body: BaseModel | Mapping[str, object] | bytes | None) -> bytes | None:
    if isinstance(body, bytes):  # JSON already
        return body
    if isinstance(body, BaseModel):
        return body.model_dump_json().encode()
    return None if body is None else json.dumps(body).encode()


def _query(query: object) -> dict[str, str]:
    if query is None:
        return {}
    values = query.model_dump(mode="json", exclude_none=True) if isinstance(query, BaseModel) else query
    if not isinstance(values, Mapping):
        raise TypeError(f"a query is a model or a mapping, not {type(query).__name__}")
    return {
        key: ("true" if value else "false") if isinstance(value, bool) else str(value)
        for key, value in values.items()
        if value is not None
    }


def decode(status: int, content: bytes, url: str) -> DmError:
    """Return the error that an answer carries, as the class that its code names."""
    try:
        body = json.loads(content)
        code, message = str(body["code"]), str(body["message"])
        details = {str(k): v for k, v in dict(body.get("details") or {}).items()}
    except (ValueError, KeyError, TypeError):
        text = f"{url} answered with status {status} and no message: is it a Beamkeeper service?"
        return UnavailableError(text) if status in (502, 503, 504) else InternalError(text)
    details.pop("message", None)
    return _CLASSES.get(code, DmError)(message, **details)
