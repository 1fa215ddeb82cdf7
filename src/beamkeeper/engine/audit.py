"""Audits: the names that the catalogue has before and after are compared with those that stand in the storage.

The names go by ranges, so that nothing is held in memory as a whole. Of each range the catalogue is asked first,
then the storage, and of whatever does not match the catalogue again: what came or went meanwhile is no finding.
Of a file that seems lost the storage is asked once more by its name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.base import new_uid
from beamkeeper.db.inspections import InHand, NewFinding
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import DmError, UnavailableError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import PRESENT, REGISTER_LIMIT, File, FileQuery
from beamkeeper.domain.inspections import FindingKind, InspectionKind, InspectionState, most_findings
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.domain.storage import LISTING_LIMIT, CheckMode, CheckOutcome, ListedEntry, NewCheckItem, NewListing
from beamkeeper.engine.asking import Asked, Services, asked_item
from beamkeeper.engine.problems import Tell
from beamkeeper.engine.worker import Loop, Report

NAMES = f"{Tree.DATA}/*"
"""`data/` is ours: only what we have put there should be in it. The other trees are people's."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to go on: the catalogue's cursor, and the path that it comes after."""

    cursor: str | None = None
    after_b64: str | None = None

    @classmethod
    def of(cls, text: str | None) -> Self:
        return cls(**json.loads(text)) if text else cls()

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class _Counts:
    """What was compared and found so far."""

    catalogued: int = 0
    listed: int = 0
    dark: int = 0
    lost: int = 0
    confirmed: int = 0
    limit: int = 0
    found: list[NewFinding] = field(default_factory=list)

    @classmethod
    def of(cls, document: Metadata) -> Self:
        counts = cls()
        for name, value in document.items():
            setattr(counts, name, value)
        return counts

    def document(self) -> Metadata:
        names = ("catalogued", "listed", "dark", "lost", "confirmed", "limit")
        return {name: getattr(self, name) for name in names}

    def add(self, finding: NewFinding) -> None:
        if finding.kind is FindingKind.DARK:
            self.dark += 1
        else:
            self.lost += 1
        if self.dark + self.lost <= self.limit + 1:
            self.found.append(finding)

    @property
    def is_too_much(self) -> bool:
        return self.dark + self.lost > self.limit


class AuditLoop(Loop):
    """Takes the oldest audit that has not ended, a range of names at a time."""

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
        super().__init__("audit", report=report, idle_s=1.0)
        self._database = database
        self._client = client
        self._owner = owner
        self._tell = tell
        self._services = Services(client, patience_s=patience_s, stop=lambda: self.is_stopping)
        self._unlisten = database.listen(self.wake, Topic.INSPECTIONS)

    def step(self) -> bool:
        """Compare one range of names."""
        with self._database.write() as tx:
            work = tx.inspections.claim(InspectionKind.AUDIT, self._owner)
        if work is None:
            return False
        if work.is_stop_requested:
            self._end(work, InspectionState.STOPPED, "it was stopped: it confirms nothing")
            return True
        try:
            self._range(work)
        except DmError as error:
            if self.is_stopping and isinstance(error, UnavailableError):
                return False
            self._end(work, InspectionState.FAILED, error.message)
            raise
        return True

    def _range(self, work: InHand) -> None:
        uid = work.experiment_uid
        if uid is None:
            raise UnavailableError(f"audit {work.uid} is of no experiment")
        counts, place = _Counts.of(work.counts), _Place.of(work.place)
        if not counts.limit:
            counts.limit = most_findings(self._services.patiently(lambda: self._client.files.summary(uid)).files)
        query = FileQuery(experiment_uid=uid, glob=NAMES, after=place.cursor, limit=REGISTER_LIMIT)
        page = self._services.patiently(lambda: self._client.files.page(query))
        upto_b64 = page.items[-1].path_b64 if page.next is not None else None
        expected = {bytes(file.relpath): file for file in page.items}
        counts.catalogued += len(expected)
        for listed in self._listed(uid, place.after_b64, upto_b64):
            counts.listed += len(listed)
            unknown = [entry for entry in listed if expected.pop(bytes(entry.relpath), None) is None]
            self._add_dark(uid, unknown, counts)
            if counts.is_too_much:
                break
        else:
            self._add_lost(uid, expected.values(), counts)
        with self._database.write() as tx:
            place = _Place(page.next, upto_b64)
            tx.inspections.progress(work.uid, self._owner, counts.document(), str(place), counts.found)
        if counts.is_too_much:
            self._stop_by_itself(work, counts)
        elif page.next is None:
            self._finish(work, counts)

    def _listed(self, uid: UUID, after_b64: str | None, upto_b64: str | None) -> Iterator[tuple[ListedEntry, ...]]:
        """Yield the names that stand in the storage, in a range."""
        while True:
            new = NewListing(
                uid=new_uid(), experiment_uid=uid, after_b64=after_b64, upto_b64=upto_b64, limit=LISTING_LIMIT
            )
            page = self._services.list_names(new)
            yield page.items
            if page.is_end:
                return
            after_b64 = page.items[-1].path_b64

    def _add_dark(self, uid: UUID, unknown: Collection[ListedEntry], counts: _Counts) -> None:
        paths = [bytes(entry.relpath) for entry in unknown]
        known = {bytes(file.relpath) for file in self._lookup(uid, paths)}
        for entry in unknown:
            if bytes(entry.relpath) not in known:
                why = f"a {entry.kind} that the catalogue does not know"
                counts.add(NewFinding(FindingKind.DARK, uid, entry.relpath, why, size=entry.size))

    def _add_lost(self, uid: UUID, missed: Collection[File], counts: _Counts) -> None:
        """Take in what the catalogue had and the listing did not, if both still say so."""
        versions = {file.version_uid for file in missed}
        now = self._lookup(uid, [bytes(file.relpath) for file in missed])
        there = {file.uid: file for file in now if file.version_uid in versions and file.deleted_at is None}
        with self._database.read() as tx:
            area_uid = tx.experiments.get(uid).storage_area_uid
        asked = [Asked(file.uid, uid, area_uid, _item(file)) for file in there.values()]
        found = self._services.look(asked, CheckMode.STAT)
        missing = [there[file_uid] for file_uid, item in found.items() if item.outcome is CheckOutcome.MISSING]
        for file in self._expected(uid, missing, area_uid):
            why = "it is catalogued, and not in the storage"
            finding = NewFinding(FindingKind.LOST, uid, file.relpath, why)
            counts.add(replace(finding, number=file.version, version_uid=file.version_uid, size=file.size))

    def _expected(self, uid: UUID, missing: Sequence[File], area_uid: UUID) -> Sequence[File]:
        """Return those of files whose copies should be in an area: others were dropped there, and are elsewhere."""
        paths = [bytes(file.relpath) for file in missing]
        proofs = self._services.patiently(lambda: self._client.files.proofs(uid, paths)) if paths else ()
        is_meant = {
            proof.file.version_uid
            for proof in proofs
            for one in proof.replicas
            if one.replica.storage_area_uid == area_uid and one.replica.state in PRESENT
        }
        return [file for file in missing if file.version_uid in is_meant]

    def _lookup(self, uid: UUID, paths: Collection[bytes]) -> Collection[File]:
        return self._services.patiently(lambda: self._client.files.lookup(uid, paths)) if paths else ()

    def _stop_by_itself(self, work: InHand, counts: _Counts) -> None:
        why = (
            f"more than {counts.limit} names do not match ({counts.dark} dark, {counts.lost} lost so far): "
            f"is all of the storage mounted? nothing was concluded from it"
        )
        self._end(work, InspectionState.STOPPED, why)
        self._warn(ProblemKind.AUDIT_STOPPED, f"an audit has stopped by itself: {why}")

    def _finish(self, work: InHand, counts: _Counts) -> None:
        with self._database.write() as tx:
            counts.confirmed = tx.inspections.confirm(work.uid, self._owner)
            tx.inspections.progress(work.uid, self._owner, counts.document(), None)
            message = f"{counts.catalogued} catalogued, {counts.listed} in the storage: "
            message += (
                f"{counts.dark} dark, {counts.lost} lost, {counts.confirmed} of them found by the audit before too"
            )
            tx.inspections.end(work.uid, self._owner, InspectionState.DONE, message)
        self._database.tell(Topic.INSPECTIONS)
        if counts.confirmed:
            what = f"{counts.confirmed} names do not match in two audits, one after the other: `dm audit` lists them"
            self._warn(ProblemKind.NAMES_DIFFER, what)

    def _end(self, work: InHand, state: InspectionState, message: str) -> None:
        with self._database.write() as tx:
            tx.inspections.end(work.uid, self._owner, state, message)
        self._database.tell(Topic.INSPECTIONS)

    def _warn(self, kind: ProblemKind, message: str) -> None:
        self._tell(Problem(kind=kind, message=message, at=datetime.now(UTC)))

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()


def _item(file: File) -> NewCheckItem:
    return asked_item(
        file.path_b64,
        file.version_uid,
        number=file.version,
        kind=file.kind,
        size=file.size,
        checksums=file.checksums,
        link_target_b64=file.link_target_b64,
    )
