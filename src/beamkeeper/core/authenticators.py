"""Who checks passwords that are not kept here: one after the other, and not too many at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import SecretStr

from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.people import Finding
from beamkeeper.plugins.people import Authenticator

logger = logging.getLogger(__name__)

AT_ONCE = 8
"""So many logins may wait for a slow server; the rest of the service goes on."""


class Authenticators:
    """The authenticators of the settings, in their order."""

    def __init__(self, plugins: Mapping[str, Authenticator] | None = None, *, at_once: int = AT_ONCE) -> None:
        self._plugins = dict(plugins or {})
        self._slots = threading.BoundedSemaphore(at_once)

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        """Whether one of them takes this password; None is nobody, for whom each of them works as hard.

        Where none takes it and one could not tell, neither can we: UnavailableError.
        """
        fault: UnavailableError | None = None
        with self._slot():
            for name, plugin in self._plugins.items():
                try:
                    if plugin.is_right(username, password):
                        return True
                except UnavailableError as error:
                    fault = error
                except SettingsError as error:  # it names our files and accounts, and nobody is logged in yet
                    logger.error("an authenticator cannot do its part", extra={"plugin": name, "why": error.message})
                    fault = UnavailableError("an administrator sees why with `dm auth check`")
        if fault is not None:
            raise UnavailableError(f"nobody can log in at present: {fault.message}") from fault
        return False

    def findings(self, username: str | None) -> Iterator[tuple[str, Finding]]:
        """Try each of them, and say step by step how that went."""
        with self._slot():
            for name, plugin in self._plugins.items():
                for finding in plugin.findings(username):
                    yield name, finding

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._plugins:
            yield
            return
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("too many logins wait for a server that is slow: try again in a moment")
        try:
            yield
        finally:
            self._slots.release()
