"""The kiosk: how the station does, for the screen in the hutch; no titles, no names, and no login of a person."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING

from starlette.responses import Response

from beamkeeper.domain.errors import DmError, NotPermittedError
from beamkeeper.domain.wipes import NO_ANSWER, Reason, Verdict
from beamkeeper.portal.live import LOOKED_AT_S
from beamkeeper.portal.routes import PageRoute
from beamkeeper.portal.visits import Visit

if TYPE_CHECKING:
    from beamkeeper.portal.app import Portal

LASTS_S = 366 * 86_400
VERDICT_S = 2.0
UNKNOWN = Verdict(is_safe=None)
WORDS: Mapping[str, str] = {
    Reason.TOO_YOUNG: "files are too young",
    Reason.ON_ITS_WAY: "files are on their way",
    Reason.GROWING: "files still grow",
    Reason.QUARANTINED: "files could not be delivered",
    Reason.NEVER_SEEN: "files were never seen",
    Reason.HELD: "somebody holds files",
    Reason.OPEN: "files are open",
    Reason.CHANGED: "files have changed since they were copied",
    Reason.SUSPECT: "a copy is damaged",
    Reason.NOT_VERIFIED: "copies were not read back lately",
    Reason.NOT_IN_STORAGE: "copies are missing",
    NO_ANSWER: "the storage, the catalogue or the site does not answer",
}
"""What keeps the disk from being wiped; other reasons are in a word what their names say."""


class Verdicts:
    """What the acquisition service says of wiping; asked now and then for all screens."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at = 0.0
        self._last = UNKNOWN

    def read(self, portal: Portal) -> Verdict:
        """Return it; without an answer nothing is known."""
        with self._lock:
            if time.monotonic() - self._at > VERDICT_S or self._at == 0.0:
                self._at = time.monotonic()
                try:
                    with portal.clients.of_service() as client:
                        self._last = client.wipes.verdict()
                except DmError:
                    self._last = Verdict(is_safe=None, reasons=(NO_ANSWER,))
            return self._last


def why(verdict: Verdict) -> str:
    """Return why nobody may wipe, in words that name nothing and nobody."""
    reasons = [WORDS.get(reason, reason.replace("-", " ")) for reason in verdict.reasons]
    if verdict.is_safe is None:
        return ", ".join(reasons) or "it is being looked at, or nothing was taken yet"
    return ", ".join(reasons) or "no file is there"


def _pass(visit: Visit) -> str:
    """Return what a screen's cookie has: it takes the station's key to make it, and it tells nothing of that."""
    return hmac.new(visit.portal.clients.service_key().encode(), b"kiosk", hashlib.sha256).hexdigest()


def _is_kiosk(visit: Visit) -> bool:
    return hmac.compare_digest(visit.request.cookies.get(_cookie(visit), "").encode(), _pass(visit).encode())


def _cookie(visit: Visit) -> str:
    return f"{visit.portal.cookie}-kiosk"


def show(visit: Visit) -> Response:
    """Show how the station does; ask for the station's key where this screen has not shown it yet."""
    if not _is_kiosk(visit):
        return visit.page("kiosk/key.html", message="")
    return _drawn(visit, "kiosk/show.html")


def part(visit: Visit) -> Response:
    """Return what changes of the page."""
    if not _is_kiosk(visit):
        raise NotPermittedError("this screen is no kiosk any more: load the page again")
    return _drawn(visit, "kiosk/part.html")


def _drawn(visit: Visit, template: str) -> Response:
    visit.portal.lookout.look_once(LOOKED_AT_S)
    verdict = visit.portal.verdicts.read(visit.portal)
    return visit.page(template, sight=visit.portal.lookout.sight, verdict=verdict, why=why(verdict))


def begin(visit: Visit) -> Response:
    """Make this screen a kiosk, for who knows the station's key."""
    given = visit.form.raw("key").strip()
    if not hmac.compare_digest(given.encode(), visit.portal.clients.service_key().encode()):
        return visit.page("kiosk/key.html", 401, message="This is not the key of this station.")
    answer = visit.go("/kiosk")
    answer.set_cookie(
        _cookie(visit),
        _pass(visit),
        max_age=LASTS_S,
        path="/",
        secure=visit.portal.is_secure,
        httponly=True,
        samesite="lax",
    )
    return answer


ROUTES = (
    PageRoute("/kiosk", show, is_public=True),
    PageRoute("/kiosk", begin, "POST", is_public=True),
    PageRoute("/kiosk/part", part, is_public=True),
)
