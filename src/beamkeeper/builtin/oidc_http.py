"""Questions to an OpenID Connect provider: over TLS, with limits of time and size, and what it says of itself kept."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from beamkeeper.domain.errors import UnavailableError

LARGEST = 1_000_000
"""No answer of a provider is larger."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
ERRORS = range(400, 500)


def is_safe(url: str) -> bool:
    """Whether nobody on the way can read and change what goes there: TLS, or the machine itself."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider answers: an object, and whether it is an error."""

    is_error: bool
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a text of the answer; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""


class Wire:
    """Asks one provider, and never goes where it sends us on to."""

    def __init__(self, *, timeout_s: float, ca_file: Path | None) -> None:
        self._timeout_s = timeout_s
        self._trust = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))

    def _open(self) -> httpx2.Client:
        """Return a connection of its own for a question: they are rare, and none waits for another."""
        return httpx2.Client(timeout=self._timeout_s, verify=self._trust, trust_env=False, follow_redirects=False)

    def get(self, url: str, *, token: str | None = None) -> Answer:
        """Ask for an object; an error of the provider's is a fault here."""
        answer = self._ask("GET", url, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        if answer.is_error:
            raise UnavailableError(f"{url} answers with an error: {answer.text('error')[:100] or 'no reason given'}")
        return answer

    def post(self, url: str, form: Mapping[str, str], *, auth: tuple[str, str] | None = None) -> Answer:
        """Send a form; an error of the provider's is an answer."""
        return self._ask("POST", url, data=dict(form), **({} if auth is None else {"auth": auth}))

    def _ask(self, method: str, url: str, **options: Any) -> Answer:
        ends = time.monotonic() + self._timeout_s
        try:
            with self._open() as http, http.stream(method, url, **options) as response:
                body = bytearray()
                for part in response.iter_bytes():
                    body += part
                    if len(body) > LARGEST or time.monotonic() > ends:
                        raise UnavailableError(f"{url} does not come to an end")
                status = response.status_code
            values = json.loads(bytes(body))
        except (httpx2.HTTPError, ValueError, RecursionError) as error:
            raise UnavailableError(f"{url} does not answer as a provider does ({type(error).__name__})") from error
        if not isinstance(values, dict) or (status != httpx2.codes.OK and status not in ERRORS):
            raise UnavailableError(f"{url} answers with status {status}")
        return Answer(status != httpx2.codes.OK, values)


class Kept:
    """One document of a provider, asked for again when it is old."""

    def __init__(self, *, seconds: float, least_s: float = 60.0) -> None:
        self._seconds = seconds
        self._least_s = least_s
        self._lock = threading.Lock()
        self._held: tuple[float, Mapping[str, Any]] | None = None

    def get(self, wire: Wire, url: str, *, is_stale: bool = False) -> Mapping[str, Any]:
        """Return the document; one that is said to be stale is asked for again, and not more than once a minute."""
        with self._lock:
            held = self._held
        now = time.monotonic()
        if held is not None and now - held[0] < (self._least_s if is_stale else self._seconds):
            return held[1]
        values = wire.get(url).values
        with self._lock:
            self._held = (now, values)
        return values
