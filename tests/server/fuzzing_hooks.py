"""What is done to each case that schemathesis makes: the program imports this by `SCHEMATHESIS_HOOKS`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis

SHORTLY = 0.01
LONGEST = 60.0
"""A minute of waiting for news that nobody makes tells no more than a hundredth of a second, and there are hundreds."""


def waits_shortly(query: dict[str, Any]) -> None:
    """Let a request for news wait shortly where it may wait at all; what may not be asked for stays as it is."""
    with suppress(KeyError, TypeError, ValueError):
        if 0 < float(query["wait"]) <= LONGEST:
            query["wait"] = SHORTLY


def before_call(context: schemathesis.HookContext, case: Any, kwargs: Any) -> None:
    """Change the case before it is sent."""
    if isinstance(case.query, dict):
        waits_shortly(case.query)


schemathesis.hook(before_call)  # no decorator: checks of types run where schemathesis is not installed
