"""Reading later what was stored unverified: the oldest first, at a limited rate, and by itself.

Which replicas are to be read is in the catalogue, so nothing is lost with this process. What is found is in the
ledger, and told where it is bad; nothing is mended or deleted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, UnavailableError
from beamkeeper.domain.ledger import ReplicaQuery, StoredReplica
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.domain.storage import CheckOutcome
from beamkeeper.engine.asking import Asked, Services, asked_of, batches
from beamkeeper.engine.problems import Tell
from beamkeeper.engine.worker import Loop, Report

PAGE = 200
IDLE_S = 2.0
BATCH_S = 2.0
"""About so long a batch takes at the rate that is allowed."""

KNOWN_WITHIN_S = 60.0
"""By then a catalogue that has just started knows the station's key."""

LEAST_BATCH, MOST_BATCH = 8_000_000, 1_000_000_000


class DeferredLoop(Loop):
    """Reads replicas that were stored unread, until there are none."""

    quiet_s = 8.0

    def __init__(
        self,
        client: Client,
        *,
        rate_bytes_s: float,
        patience_s: float,
        report: Report,
        tell: Tell,
    ) -> None:
        super().__init__("deferred", report=report, idle_s=IDLE_S)
        self._client = client
        self._rate = rate_bytes_s
        self._tell = tell
        self._is_known = False
        self._known_by = time.monotonic() + KNOWN_WITHIN_S
        self._services = Services(client, patience_s=patience_s, stop=lambda: self.is_stopping)

    def step(self) -> bool:
        """Go once through what is to be read; a storage area that does not answer holds up no other."""
        away: dict[UUID, UnavailableError] = {}
        for page in self._pages():
            groups: defaultdict[tuple[UUID, UUID], list[Asked]] = defaultdict(list)
            for one in page:
                groups[one.replica.storage_area_uid, one.experiment_uid].append(asked_of(one))
            for (area_uid, _), asked in groups.items():
                if self.is_stopping:
                    return False
                try:
                    if area_uid not in away:
                        self._read(asked)
                except UnavailableError as error:
                    away[area_uid] = error
                except DmError as error:  # of this experiment alone, such as that it is gone
                    self.failed(error)
        if away:
            raise next(iter(away.values()))
        return False

    def _pages(self) -> Iterator[Sequence[StoredReplica]]:
        after: str | None = None
        while not self.is_stopping:
            try:
                page = self._client.files.replicas(ReplicaQuery(is_to_read=True, after=after, limit=PAGE))
            except NotAuthenticatedError:
                if self._is_known or time.monotonic() > self._known_by:
                    raise
                return  # the catalogue has just started, and has not heard of the station's key yet
            self._is_known = True
            yield page.items
            if (after := page.next) is None:
                return

    def _read(self, asked: Sequence[Asked]) -> None:
        """Read replicas of one storage area, no faster than is allowed."""
        size = int(min(MOST_BATCH, max(LEAST_BATCH, self._rate * BATCH_S)))
        for part in batches(asked, size=size):
            began = time.monotonic()
            _, second = self._services.read(part, on_behalf_of="")
            if bad := [item for item in second.values() if item.outcome is not CheckOutcome.MATCH]:
                why = f"{len(bad)} copies that were stored unverified are not as they should be: {bad[0].message}"
                self.warn(why)
                self._tell(Problem(kind=ProblemKind.COPIES_DAMAGED, message=why, at=datetime.now(UTC)))
            pause = sum(one.item.size for one in part) / self._rate - (time.monotonic() - began)
            if self._stopping.wait(max(0.0, pause)):
                return
