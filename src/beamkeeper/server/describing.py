"""What the OpenAPI document of a service says of refusals: which statuses a route has, and how they look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from beamkeeper.server.deps import presented
from beamkeeper.server.errors import STATUS

SCHEME = "session"
BODILESS = frozenset({"GET", "HEAD"})
FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
"""Schemas that FastAPI adds: our refusals have another form."""

ALSO: dict[str, tuple[int, ...]] = {
    "POST /sessions": (401, 429),
    "POST /stations/join": (401,),
    "GET /events": (410,),
    "POST /identity-providers/{name}/logins": (429,),
    "POST /identity-providers/{name}/sessions": (401,),
    "PUT /puts/{uid}/files/{path_b64}": (507,),
    "POST /experiments": (507,),
}
"""Statuses of single routes, beside those that follow from what a route is."""


class RefusedRequest(BaseModel):
    """Why a request was refused: a stable code, one sentence for people, and the same facts for programs."""

    code: str
    message: str
    details: dict[str, Any]


def document(app: FastAPI, routers: Iterable[APIRouter], prefix: str) -> None:
    """Let the application's document name every refusal of each route, and who has to be logged in for which."""
    plain = app.openapi
    known = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]

    def openapi() -> dict[str, Any]:
        found = plain()
        for route in known:
            for verb in (route.methods or ()) if route.include_in_schema else ():
                _describe(found["paths"][prefix + route.path_format][verb.lower()], route, verb)
        parts = found.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        for name in FRAMEWORKS_OWN:
            schemas.pop(name, None)
        schemas[RefusedRequest.__name__] = RefusedRequest.model_json_schema()
        parts["responses"] = _refusals()
        said = "A session's token, or an API key."
        parts["securitySchemes"] = {SCHEME: {"type": "http", "scheme": "bearer", "description": said}}
        return found

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(operation: dict[str, Any], route: APIRoute, verb: str) -> None:
    if _is_of_somebody(route.dependant):
        operation["security"] = [{SCHEME: []}]
    operation["responses"].pop("422", None)
    for status in _statuses(route, verb, has_body="requestBody" in operation):
        code = next(error.code for error, its in STATUS.items() if its == status)
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{code}"}


def _statuses(route: APIRoute, verb: str, *, has_body: bool) -> Sequence[int]:
    is_of_somebody = _is_of_somebody(route.dependant)
    found = {503, *ALSO.get(f"{verb} {route.path_format}", ())}
    if is_of_somebody:
        found |= {401, 403, 422}  # that may be of the header Beamkeeper-Mirror alone
    if has_body or any(dependant.path_params or dependant.query_params for dependant in _all(route.dependant)):
        found |= {404, 409, 422}  # of an experiment that is deleted nothing is shown either
    if verb not in BODILESS:
        found |= {409, 413}
    return sorted(found)


def _refusals() -> dict[str, Any]:
    """Return every refusal by the name that the document gives it: its first code."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{RefusedRequest.__name__}"}}}
    codes: dict[int, list[str]] = {}
    for error, status in STATUS.items():
        if status != 500:  # our own faults are no part of what is promised
            codes.setdefault(status, []).append(error.code)
    return {
        of[0]: {"description": f"Refused; the code is {' or '.join(of)}.", "content": content} for of in codes.values()
    }


def _is_of_somebody(dependant: Dependant) -> bool:
    return any(one.call is presented for one in _all(dependant))


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for one in dependant.dependencies:
        yield from _all(one)
