"""One request as the pages take it: who looks, at what, with which form; and the answers that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from beamkeeper.client import Client
from beamkeeper.domain.errors import InvalidError, NotAuthenticatedError, NotFoundError
from beamkeeper.domain.users import Action, Caller, Target, may
from beamkeeper.portal.sessions import Kept

if TYPE_CHECKING:
    from beamkeeper.portal.app import Portal

Page = Callable[["Visit"], Response]
"""What draws a page, or does what a form asks for; runs in a thread."""

LONGEST_NUMBER = 12
"""So many digits has a number of an address or a form at most: Python itself refuses to read very long ones."""

ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


class Form(dict[str, str]):
    """The fields of a form; a field that was left empty counts as not given."""

    def __init__(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__((key, value.strip()) for key, value in pairs if value.strip())
        self._pairs = pairs

    def all(self, key: str) -> list[str]:
        """Return every value of a field that may be given several times."""
        return [value for name, value in self._pairs if name == key and value]

    def raw(self, key: str) -> str:
        """Return a field as it was typed, as passwords are."""
        return next((value for name, value in self._pairs if name == key), "")

    def some(self, *keys: str) -> dict[str, str]:
        """Return those of these fields that were filled in."""
        return {key: self[key] for key in keys if key in self}


@dataclass
class Visit:
    """A request, and who sent it."""

    portal: Portal
    request: Request
    kept: Kept | None = None
    form: Form = field(default_factory=Form)

    @property
    def query(self) -> QueryParams:
        """What stands behind the question mark of the address."""
        return self.request.query_params

    @property
    def path(self) -> str:
        """The address without what stands behind the question mark."""
        return self.request.url.path

    @property
    def address(self) -> str:
        """Where the browser is."""
        return self.request.client.host if self.request.client else ""

    def stranger(self) -> Client:
        """Return a client of who is not logged in."""
        return self.portal.clients.new(None, address=self.address)

    @property
    def form_token(self) -> str:
        """What every form of this session carries."""
        return self.kept.form_token if self.kept else ""

    @cached_property
    def token(self) -> str:
        """The token of who is logged in."""
        if self.kept is None:
            raise NotAuthenticatedError("this page is for those who are logged in")
        return self.kept.token

    @cached_property
    def caller(self) -> Caller:
        """Who is logged in, with the roles that they have."""
        return self.portal.clients.caller(self.token)

    @cached_property
    def client(self) -> Client:
        """The client of who is logged in, at this deployment's own station."""
        return self.portal.clients.of(self.token, address=self.address)

    def at(self, station: str) -> Client:
        """Return the client of who is logged in, at a station of the site."""
        return self.portal.clients.of(self.token, station, address=self.address)

    def may(self, action: Action, target: Target) -> bool:
        """Whether something is worth offering: the API would allow it."""
        return may(self.caller, action, target)

    def uid(self, name: str = "uid") -> UUID:
        """Return the uid that the address names."""
        try:
            return UUID(self.request.path_params[name])
        except ValueError as error:
            raise NotFoundError("there is no such page: the address has a wrong identifier") from error

    def form_uid(self, name: str) -> UUID:
        """Return the uid that a field of the form has."""
        try:
            return UUID(self.form.get(name, ""))
        except ValueError as error:
            raise InvalidError(f"{name} is no identifier") from error

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        return HTMLResponse(self.portal.render(template, self, **values), status)

    def go(self, path: str, **query: str) -> Response:
        """Return the way to another page, after a form did what it should."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)

    def with_query(self, **changes: str | None) -> str:
        """Return the address of this page with something else behind the question mark."""
        return address(self.path, {**self.query, **changes})

    def page_size(self, default: int, most: int) -> int:
        """Return how many rows of a list are asked for at once.

        A page and its JSON are the same rows of the list, as many as the address says; a CSV is all of it, read and
        sent on part by part.
        """
        return most if self.path.endswith(".csv") else self.number("limit", default, most)

    def number(self, name: str, default: int, most: int) -> int:
        """Return a whole number of the address, between one and `most`."""
        text = self.query.get(name, "") or str(default)
        number = whole(text)
        if number is None or not 1 <= number <= most:
            raise InvalidError(f'"{text[:20]}" is no {name}: give a whole number from 1 to {most}')
        return number


def whole(text: str) -> int | None:
    """Return the whole number that a text is; None where it is none, or longer than any that pages have."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER else None


def choice(text: str, of: type[ChoiceT], what: str) -> ChoiceT:
    """Return which of some words a text is."""
    try:
        return of(text)
    except ValueError as error:
        raise InvalidError(f'"{text[:40]}" is no {what}: use {", ".join(of)}') from error


def address(path: str, query: Mapping[str, str | None]) -> str:
    """Return an address; what is None or empty is left out."""
    given = {key: value for key, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def sentence(error: ValidationError) -> str:
    """Return what is wrong with a form, naming its fields."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = " ".join(str(part) for part in fault["loc"] if isinstance(part, str)).replace("_", " ")
        faults.append(f"{where}: {fault['msg']}" if where else str(fault["msg"]))
    return "; ".join(faults)
