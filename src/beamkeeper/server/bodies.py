"""Large request bodies: read as JSON straight into their models, in a thread and before any transaction.

FastAPI parses a body in the event loop, by Python's own parser, and validates the result after dependencies have
begun their work: for a thousand files that held up every other request for a tenth of a second, and the database's
write lock with them (measured; see the explanation on performance).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

REF = "#/components/schemas/{model}"
ModelT = TypeVar("ModelT", bound=BaseModel)


async def _raw(request: Request) -> bytes:
    return await request.body()


def large(model: type[BaseModel]) -> Any:
    """Return the dependency that gives a request's body as this model.

    A route names who is calling before it: nobody's body is not read.
    """

    def parse(content: Annotated[bytes, Depends(_raw)]) -> BaseModel:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            faults = [
                {**fault, "loc": ("body", *fault["loc"])}
                for fault in error.errors(include_url=False, include_context=False, include_input=False)
            ]
            raise RequestValidationError(faults) from error

    return Depends(parse)


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
