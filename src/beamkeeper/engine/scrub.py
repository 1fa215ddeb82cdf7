"""Scrubs: replicas are read again, those looked at longest ago first; what is found is told, and never mended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.inspections import InHand, NewFinding
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import DmError, UnavailableError
from beamkeeper.domain.inspections import FindingKind, InspectionKind, InspectionState, most_findings
from beamkeeper.domain.ledger import ReplicaQuery, StoredReplica
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.domain.storage import CheckItem, CheckOutcome
from beamkeeper.engine.asking import Asked, Services, asked_of, batches
from beamkeeper.engine.problems import Tell
from beamkeeper.engine.worker import Loop, Report

PAGE = 200
BATCH_S = 2.0
"""About so long a batch takes at the rate that was asked for."""

LEAST_BATCH, MOST_BATCH = 8_000_000, 1_000_000_000
PAUSE_S = 0.5

_KINDS = {
    CheckOutcome.DIFFERENT: FindingKind.DIFFERENT,
    CheckOutcome.MISSING: FindingKind.MISSING,
    CheckOutcome.UNREADABLE: FindingKind.UNREADABLE,
}
_COUNTED = ("files", "bytes", "matched", "different", "missing", "unreadable")


class _EndedError(Exception):
    """The scrub is over before its end."""


class ScrubLoop(Loop):
    """Takes the oldest scrub that has not ended, a page of replicas at a time."""

    rest_s = 0.1
    quiet_s = 4.0

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        client: Client,
        owner: UUID,
        *,
        patience_s: float,
        report: Report,
        tell: Tell,
    ) -> None:
        super().__init__("scrub", report=report, idle_s=1.0)
        self._database = database
        self._owner = owner
        self._tell = tell
        self._services = Services(client, patience_s=patience_s, stop=lambda: self.is_stopping)
        self._unlisten = database.listen(self.wake, Topic.INSPECTIONS)

    def step(self) -> bool:
        """Read one page of replicas."""
        with self._database.write() as tx:
            work = tx.inspections.claim(InspectionKind.SCRUB, self._owner)
        if work is None:
            return False
        if work.is_stop_requested:
            self._end(work, InspectionState.STOPPED, "it was stopped")
            return True
        try:
            self._page(work)
        except _EndedError:
            return True
        except UnavailableError as error:
            if self.is_stopping:
                return False
            with self._database.write() as tx:
                tx.inspections.say(work.uid, self._owner, f"waits: {error.message}")
            raise
        except DmError as error:
            self._end(work, InspectionState.FAILED, error.message)
            raise
        return True

    def _page(self, work: InHand) -> None:
        query = ReplicaQuery(
            experiment_uid=work.experiment_uid,
            checked_before=work.created_at - timedelta(seconds=_number(work.options, "older_than_s")),
            after=work.place,
            limit=PAGE,
        )
        page = self._services.patiently(lambda: self._services.client.files.replicas(query))
        counts = {name: int(_number(work.counts, name)) for name in _COUNTED}
        rate = _number(work.options, "rate_bytes_s")
        by_uid = {one.replica.uid: one for one in page.items}
        asked = [asked_of(one) for one in page.items if one.checksums or one.link_target_b64 is not None]
        size = int(min(MOST_BATCH, max(LEAST_BATCH, rate * BATCH_S)))
        for part in batches(asked, size=size):
            began = time.monotonic()
            findings = self._read(work, part, by_uid, counts)
            self._keep(work, counts, work.place, findings)
            self._check_cap(work, counts)
            total = sum(one.item.size for one in part)
            self._pause(work, total / rate - (time.monotonic() - began))
        self._keep(work, counts, page.next, [])
        if page.next is None:
            self._end(work, InspectionState.DONE, _sentence(counts))

    def _read(
        self, work: InHand, part: Sequence[Asked], by_uid: dict[UUID, StoredReplica], counts: dict[str, int]
    ) -> list[NewFinding]:
        """Read replicas; those that are not as they should be a second time, since a single read can lie."""
        first, second = self._services.read(part, on_behalf_of=work.started_by)
        counts["files"] += len(part)
        counts["bytes"] += sum(one.item.size for one in part)
        counts["matched"] += len(part) - len(second)
        findings = []
        for replica_uid in second:
            finding = _finding(by_uid[replica_uid], first[replica_uid], second[replica_uid])
            findings.append(finding)
            counts[str(finding.kind) if finding.is_confirmed else "matched"] += 1
        if confirmed := [finding for finding in findings if finding.is_confirmed]:
            self._warn(f"{len(confirmed)} copies in the storage are not as they should be: `dm scrub` lists them")
        return findings

    def _keep(self, work: InHand, counts: dict[str, int], place: str | None, found: Sequence[NewFinding]) -> None:
        with self._database.write() as tx:
            tx.inspections.progress(work.uid, self._owner, dict(counts), place, found)
            tx.inspections.say(work.uid, self._owner, "")

    def _check_cap(self, work: InHand, counts: dict[str, int]) -> None:
        bad = sum(counts[name] for name in ("different", "missing", "unreadable"))
        if bad > most_findings(counts["files"]):
            why = f"{bad} of {counts['files']} copies are not as they should be: is all of the storage mounted?"
            self._end(work, InspectionState.STOPPED, why)
            self._warn(f"a scrub has stopped by itself: {why}")
            raise _EndedError

    def _pause(self, work: InHand, seconds: float) -> None:
        """Keep to the rate; whoever asks for the end need not wait for it."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if self._stopping.wait(min(left, PAUSE_S)):
                raise _EndedError
            with self._database.read() as tx:
                scrub = tx.inspections.find(InspectionKind.SCRUB, work.uid)
            if scrub is None or scrub.stop_requested_at is not None:
                raise _EndedError

    def _end(self, work: InHand, state: InspectionState, message: str) -> None:
        with self._database.write() as tx:
            tx.inspections.end(work.uid, self._owner, state, message)
        self._database.tell(Topic.INSPECTIONS)

    def _warn(self, message: str) -> None:
        self._tell(Problem(kind=ProblemKind.COPIES_DAMAGED, message=message, at=datetime.now(UTC)))

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()


def _number(document: Metadata, name: str) -> float:
    value = document.get(name, 0)
    return float(value) if isinstance(value, int | float | str) else 0.0


def _finding(one: StoredReplica, first: CheckItem, second: CheckItem) -> NewFinding:
    is_confirmed = second.outcome is not CheckOutcome.MATCH
    last = second if is_confirmed else first
    return NewFinding(
        kind=_KINDS[last.outcome],
        experiment_uid=one.experiment_uid,
        path=one.relpath,
        message=last.message if is_confirmed else f"{last.message}; read a second time, it was right",
        number=one.number,
        version_uid=one.replica.version_uid,
        replica_uid=one.replica.uid,
        size=last.size,
        is_confirmed=is_confirmed,
    )


def _sentence(counts: dict[str, int]) -> str:
    bad = [f"{counts[name]} {name}" for name in ("different", "missing", "unreadable") if counts[name]]
    return f"{counts['files']} copies read" + (f": {', '.join(bad)}" if bad else ", all as they should be")
