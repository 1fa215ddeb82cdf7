"""The one table from error class to HTTP status, and how an error looks on the wire."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from beamkeeper.domain import errors

logger = logging.getLogger(__name__)

STATUS: dict[type[errors.DmError], int] = {
    errors.DmError: 500,
    errors.InvalidError: 422,
    errors.SettingsError: 500,
    errors.TooLargeError: 413,
    errors.UnsafeValueError: 422,
    errors.NotAuthenticatedError: 401,
    errors.TooManyAttemptsError: 429,
    errors.NotPermittedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.AlreadyExistsError: 409,
    errors.OverlapError: 409,
    errors.GoneError: 410,
    errors.UnavailableError: 503,
    errors.CollisionError: 503,
    errors.MirrorBehindError: 503,
    errors.FileError: 500,
    errors.SourceError: 422,
    errors.DestinationError: 507,
    errors.InternalError: 500,
}

_CODE_OF_STATUS = {
    401: "not_authenticated",
    403: "not_permitted",
    404: "not_found",
    413: "too_large",
    503: "unavailable",
}


def answer(error: errors.DmError) -> JSONResponse:
    """Return an error as every service answers it: a stable code, one sentence, and the facts as data."""
    status = STATUS[type(error)]
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 429:
        headers["Retry-After"] = str(error.details.get("retry_after_s", 1))
    if status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(
        {"code": error.code, "message": error.message, "details": _plain(error.details)}, status, headers
    )


def _plain(details: object) -> object:
    if isinstance(details, dict):
        return {str(key): _plain(value) for key, value in details.items()}
    if isinstance(details, list | tuple):
        return [_plain(value) for value in details]
    return details if isinstance(details, str | int | float | bool | None) else str(details)


def _validation(error: RequestValidationError) -> errors.InvalidError:
    faults = error.errors()
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or "the request"
    text = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":  # where it stands is a number of characters, and the reason is beside it
        where, text = f"character {where} of the JSON", str(first.get("ctx", {}).get("error", text))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return errors.InvalidError(
        f"{where}: {text}{more}",
        errors=[{"where": [str(part) for part in fault["loc"]], "message": str(fault["msg"])} for fault in faults[:20]],
    )


class Failed(Protocol):
    """Remembers a fault of our own."""

    def append(self, message: str) -> None:
        """Remember it."""
        ...


def install(app: FastAPI, failed: Failed, refused: Callable[[Request, errors.DmError | None], None]) -> None:
    """Answer every error in the one form.

    `failed` collects faults of our own for the status page; `refused` is told of every request that was in vain.
    """

    @app.exception_handler(errors.DmError)
    def known(request: Request, error: errors.DmError) -> JSONResponse:
        if STATUS[type(error)] >= 500:
            failed.append(error.message)
            logger.warning("request failed", extra={"path": request.url.path, "code": error.code, "why": error.message})
        refused(request, error)
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(_validation(error))

    @app.exception_handler(HTTPException)
    def framework(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODE_OF_STATUS.get(error.status_code, "invalid")
        return JSONResponse(
            {"code": code, "message": f"{error.detail}: {request.method} {request.url.path}", "details": {}},
            error.status_code,
            error.headers,
        )

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        failed.append(f"{type(error).__name__} on {request.method} {request.url.path}")
        logger.error("unforeseen error", extra={"path": request.url.path}, exc_info=error)
        refused(request, None)
        return answer(
            errors.InternalError("the service has met an error of its own: tell its operator, the log has it")
        )
