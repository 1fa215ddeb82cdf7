"""Request bodies: ordinary ones are read as JSON without guessing, large ones straight into their models.

FastAPI parses a body in the event loop, by Python's own parser, and validates the result after dependencies have
begun their work: for a thousand files that held up every other request for a tenth of a second, and the database's
write lock with them (measured; see the explanation on performance). So large ones are read in a thread and before
any transaction.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from beamkeeper.domain.arriving import Arriving, arriving
from beamkeeper.domain.arriving_body import read
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import NewFiles
from beamkeeper.domain.json_text import parse_json, read_keys, refuse_repeated
from beamkeeper.server.deps import context
from beamkeeper.server.reading import in_one_turn

REF = "#/components/schemas/{model}"
ModelT = TypeVar("ModelT", bound=BaseModel)

JSON_LIMIT = 8 * 1024 * 1024
"""The largest ordinary body: the largest metadata, with every character escaped."""


class StrictRequest(Request):
    """A request whose JSON is read without guessing."""

    async def json(self) -> Any:
        """Return the body's value, or why it cannot be taken."""
        content = await self.body()
        if len(content) > JSON_LIMIT:
            raise HTTPException(413, f"this request may have {JSON_LIMIT} bytes at most, and has {len(content)}")
        try:
            return parse_json(content)
        except InvalidError as error:  # the class is the one that the framework looks for
            reason, position = str(error.details["reason"]), error.details["position"]
            raise json.JSONDecodeError(reason, "", position if isinstance(position, int) else 0) from error


class StrictRoute(APIRoute):
    """A route with strict requests; one that only reads takes one turn of one thread."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, in_one_turn(endpoint), **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which gets a strict request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


async def _raw(request: Request) -> AsyncIterator[bytes]:
    with context(request).bulk:
        yield await request.body()


def large(model: type[BaseModel]) -> Any:
    """Return the dependency that gives a request's body as this model.

    A route names who is calling before it: nobody's body is not read.
    """

    def parse(content: Annotated[bytes, Depends(_raw)]) -> BaseModel:
        return parse_large(model, content)

    return Depends(parse)


def parse_large(model: type[ModelT], content: bytes) -> ModelT:
    """Return a body as its model, or refuse it."""
    try:
        found = model.model_validate_json(content)
    except ValidationError as error:
        _refuse_repeated(content)
        faults = [
            {**fault, "loc": ("body", *fault["loc"])}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise RequestValidationError(faults) from error
    keys = found.given_keys if isinstance(found, NewFiles) else None
    if keys is None or keys != read_keys(content):  # as many: then none of them stood twice
        _refuse_repeated(content)
    return found


def _refuse_repeated(content: bytes) -> None:
    try:
        refuse_repeated(content)
    except InvalidError as error:
        raise RequestValidationError([_invalid(error)]) from error


def _invalid(error: InvalidError) -> dict[str, Any]:
    """Return what the framework says of a body that is no JSON."""
    reason, position = str(error.details["reason"]), error.details["position"]
    return {"type": "json_invalid", "loc": ("body", position), "msg": "JSON decode error", "ctx": {"error": reason}}


def _arriving(request: Request, content: Annotated[bytes, Depends(_raw)]) -> Sequence[Arriving]:
    found = context(request).parser.read(content) or read(content)
    return arriving(parse_large(NewFiles, content).files) if found is None else found


Registering = Annotated[Sequence[Arriving], Depends(_arriving)]
"""A body of NewFiles as plain values. A route names who is calling before it: nobody's body is not read."""


def described(model: type[BaseModel]) -> dict[str, Any]:
    """Return what a route says in `openapi_extra`, so that its large body is in the document."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def document(app: FastAPI, models: Iterable[type[BaseModel]]) -> None:
    """Let the application's OpenAPI document define the models of its large bodies."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        found = plain()
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        for model in models:
            schema = model.model_json_schema(ref_template=REF)
            schemas.update({name: each for name, each in schema.pop("$defs", {}).items() if name not in schemas})
            schemas.setdefault(model.__name__, schema)
        return found

    app.openapi = openapi  # type: ignore[method-assign]
