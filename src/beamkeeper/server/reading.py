"""Routes that only read, each in one turn of one thread: who is calling, the transaction, and the work.

As three dependencies of the framework they took four turns of threads and two connections of the database: a
millisecond or two of each request. Who names no session is refused before anything is looked at; a request that makes
no sense is refused before it is asked whether its session holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import Depends

from beamkeeper.server.deps import (
    AcquisitionTx,
    AnyTx,
    CatalogTx,
    Presented,
    ProcessingTx,
    StorageTx,
    Who,
    presented,
)

READ = (AnyTx, StorageTx, CatalogTx, ProcessingTx, AcquisitionTx)
_GIVEN = "presented"
"""The name of the parameter that stands for who is calling and the transaction."""


def in_one_turn(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return a route that asks for a transaction to read and for who is calling as one that gets both at once."""
    if inspect.iscoroutinefunction(endpoint) or inspect.isgeneratorfunction(endpoint):
        return endpoint
    signature = inspect.signature(endpoint, eval_str=True)
    who = [name for name, each in signature.parameters.items() if each.annotation == Who]
    tx = [name for name, each in signature.parameters.items() if each.annotation in READ]
    if len(who) != 1 or len(tx) != 1:
        return endpoint

    @wraps(endpoint)
    def route(**given: Any) -> Any:
        come: Presented = given.pop(_GIVEN)
        with come.opened() as (given[who[0]], given[tx[0]]):
            return endpoint(**given)

    rest = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
        if name not in (*who, *tx)
    ]
    asked = Annotated[Presented, Depends(presented)]
    more = inspect.Parameter(_GIVEN, inspect.Parameter.KEYWORD_ONLY, annotation=asked)
    route.__signature__ = signature.replace(parameters=[more, *rest])  # type: ignore[attr-defined]
    return route
