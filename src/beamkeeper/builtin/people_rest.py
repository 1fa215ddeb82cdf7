"""People and proposals of a facility's REST service, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2
from pydantic import Field, model_validator

from beamkeeper.builtin import people_rows
from beamkeeper.builtin.oidc_http import is_safe
from beamkeeper.builtin.people_rows import ColumnOptions, Row
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.people import Person, Proposal, Refused
from beamkeeper.plugins.api import Options

MOST_PAGES = 10_000
LARGEST_PAGE = 256 * 1024 * 1024
"""No page has more bytes: a whole facility at once has some tens of millions."""


class RestOptions(ColumnOptions):
    """Which service, and where in its answers the list is."""

    url: str = Field(pattern=r"^https?://")
    items: str = ""
    """The key of the list in the answer, dotted; the answer itself is the list where empty."""
    next: str = ""
    """The key of the next page's URL in the answer, dotted; there is one page where empty."""
    token_file: Path | None = None
    """A private file with a bearer token; it is sent over TLS only, or to this machine."""
    ca_file: Path | None = None
    timeout_s: float = Field(default=60.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _tells_no_token(self) -> Self:
        if self.token_file is not None and not is_safe(self.url):
            raise ValueError("url: it is http://, where everybody on the way could read the token: use https://")
        return self


class RestDirectory:
    """People of a REST service."""

    options: ClassVar[type[Options]] = RestOptions
    summary: ClassVar[str] = "People of a REST service, with a mapping of its fields."

    def __init__(self, options: RestOptions) -> None:
        self._options = options

    def people(self) -> Iterator[Person | Refused]:
        """Yield everybody."""
        return people_rows.people(rows(self._options), self._options)


class RestProposals:
    """Proposals of a REST service, with a list `people`, or one entry for each of them."""

    options: ClassVar[type[Options]] = RestOptions
    summary: ClassVar[str] = "Proposals of a REST service, with a mapping of its fields."

    def __init__(self, options: RestOptions) -> None:
        self._options = options

    def proposals(self) -> Iterator[Proposal | Refused]:
        """Yield every proposal."""
        return people_rows.proposals(rows(self._options), self._options)


def rows(options: RestOptions) -> Iterator[Row]:
    """Yield the entries of all pages; a page of another host is not asked for, since it would get the token."""
    url: httpx2.URL = httpx2.URL(options.url)
    verify: Any = True if options.ca_file is None else str(options.ca_file)
    headers = {"Authorization": f"Bearer {_token(options.token_file)}"} if options.token_file else {}
    with httpx2.Client(
        timeout=options.timeout_s, verify=verify, headers=headers, trust_env=False, follow_redirects=False
    ) as http:
        asked: set[httpx2.URL] = set()
        for _ in range(MOST_PAGES):
            if url in asked:
                raise UnavailableError(f"{url} comes again after other pages: the list leads back to itself")
            asked.add(url)
            page = _page(http, url)
            found = _at(page, options.items)
            if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
                raise UnavailableError(f'{url} gives no list of objects at "{options.items}"')
            yield from found
            following = _at(page, options.next) if options.next else None
            if not following:
                return
            before, url = url, url.join(str(following))
            if (url.scheme, url.host, url.port) != (before.scheme, before.host, before.port):
                raise UnavailableError(f"{before} sends us on to another host, {url.host}: nobody is taken over")
    raise UnavailableError(f"{options.url} has no end: more than {MOST_PAGES} pages")


def _page(http: httpx2.Client, url: httpx2.URL) -> object:
    try:
        with http.stream("GET", url) as response:
            response.raise_for_status()  # one that leads elsewhere is an error too
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > LARGEST_PAGE:
                    raise UnavailableError(f"{url} does not come to an end: a page may have {LARGEST_PAGE} bytes")
        return json.loads(bytes(body))
    except (httpx2.HTTPError, ValueError, RecursionError) as error:
        raise UnavailableError(f"{url} does not give what was asked for ({error or type(error).__name__})") from error


def _at(value: object, key: str) -> object:
    for part in key.split(".") if key else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _token(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"cannot read {path} ({error.strerror}): it has the token of the service") from error
