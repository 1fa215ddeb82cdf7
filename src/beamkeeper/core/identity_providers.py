"""Who vouches for people, by the names of the settings, and not too many questions at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from beamkeeper.domain.errors import NotFoundError, UnavailableError
from beamkeeper.domain.identities import (
    Begun,
    IdentityAnswer,
    NewIdentityLogin,
    OpenLogin,
    Proven,
    ProviderInfo,
    Waiting,
)
from beamkeeper.domain.people import Finding
from beamkeeper.plugins.people import IdentityProvider

AT_ONCE = 8
"""So many logins may wait for a slow provider; the rest of the service goes on."""


class IdentityProviders:
    """The providers of the settings. Whatever asks one is slow, so called with no transaction open."""

    def __init__(self, plugins: Mapping[str, IdentityProvider] | None = None, *, at_once: int = AT_ONCE) -> None:
        self._plugins = dict(plugins or {})
        self._slots = threading.BoundedSemaphore(at_once)

    def infos(self) -> Sequence[ProviderInfo]:
        """Return which there are."""
        return [ProviderInfo(name=name, title=p.title, issuer=p.issuer) for name, p in self._plugins.items()]

    def get(self, name: str) -> IdentityProvider:
        """Return a provider."""
        try:
            return self._plugins[name]
        except KeyError:
            names = ", ".join(self._plugins) or "none"
            raise NotFoundError(f'there is no identity provider "{name[:64]}": there are {names}') from None

    def begin(self, name: str, wanted: NewIdentityLogin) -> Begun:
        """Begin a login."""
        provider = self.get(name)
        with self._slot():
            return provider.begin(wanted)

    def finish(self, login: OpenLogin, answer: IdentityAnswer) -> Proven | Waiting:
        """Say who proved to be whom, or that nobody has yet."""
        provider = self.get(login.provider)
        with self._slot():
            return provider.finish(login.kind, login.secrets, answer)

    def findings(self) -> Iterator[tuple[str, Finding]]:
        """Try each of them, and say step by step how that went."""
        with self._slot():
            for name, plugin in self._plugins.items():
                for finding in plugin.findings():
                    yield name, finding

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("too many logins wait for a provider that is slow: try again in a moment")
        try:
            yield
        finally:
            self._slots.release()
