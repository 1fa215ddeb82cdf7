"""The ledger's queries: adding verifications, replicas that are due for one, proofs, and counts by directory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, exists, func, insert, literal, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from beamkeeper.db.base import EPOCH, MICROSECOND, UtcMicroseconds
from beamkeeper.db.changes import changed
from beamkeeper.db.files.directories import directories
from beamkeeper.db.files.registering import checksums_of, newest
from beamkeeper.db.files.tables import FileRow, ReplicaRow, VerificationRow, VersionRow, to_file, to_replica
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.scope import is_within
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import PRESENT, FileKind, ReadFrom, ReplicaState
from beamkeeper.domain.ledger import (
    DirectoryPage,
    DirectoryQuery,
    FileProof,
    NewVerification,
    Recorded,
    ReplicaPage,
    ReplicaProof,
    ReplicaQuery,
    StoredReplica,
)
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.users import Reach

_IS_NEWEST = (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number)
_FROM_DEVICE = (ReadFrom.DEVICE, ReadFrom.OTHER_HOST)


class Ledger:
    """Queries on replicas and their verifications."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def experiments_of(self, replica_uids: Iterable[UUID]) -> Mapping[UUID, UUID]:
        """Return the experiment of each replica; NotFoundError where one is not known."""
        wanted = set(replica_uids)
        rows = self._session.execute(
            select(ReplicaRow.uid, FileRow.experiment_uid)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .join(FileRow, FileRow.id == VersionRow.file_id)
            .where(ReplicaRow.uid.in_(wanted))
        )
        found: dict[UUID, UUID] = dict(rows.all())
        if unknown := wanted - found.keys():
            first = min(unknown)
            raise NotFoundError(f"there is no replica {first}", uid=str(first))
        return found

    def record(self, new: Sequence[NewVerification], *, by: str) -> list[Recorded]:
        """Add rows to the ledger; replicas and their versions follow what was found last."""
        replicas = {
            row.uid: row
            for row in self._session.scalars(
                select(ReplicaRow)
                .where(ReplicaRow.uid.in_({item.replica_uid for item in new}))
                .order_by(ReplicaRow.id)
                .with_for_update()
            )
        }
        known = set(
            self._session.scalars(select(VerificationRow.uid).where(VerificationRow.uid.in_([i.uid for i in new])))
        )
        fresh = {item.uid: item for item in new if item.uid not in known}
        if fresh:
            rows = [_verification(item, replicas[item.replica_uid].id, by) for item in fresh.values()]
            self._session.execute(insert(VerificationRow), rows)
        for item in sorted(fresh.values(), key=lambda item: item.verified_at):
            _follow(replicas[item.replica_uid], item)
        self._session.flush()
        follow_versions(self._session, {replicas[item.replica_uid].version_id for item in fresh.values()})
        return [
            Recorded(
                uid=item.uid,
                replica_uid=item.replica_uid,
                state=ReplicaState(replicas[item.replica_uid].state),
            )
            for item in new
        ]

    def replicas(self, query: ReplicaQuery, reach: Reach) -> ReplicaPage:
        """Return a page of replicas, those looked at longest ago first, out of the experiments within reach."""
        wanted = (
            select(ReplicaRow, VersionRow, FileRow)
            .join(VersionRow, VersionRow.id == ReplicaRow.version_id)
            .join(FileRow, FileRow.id == VersionRow.file_id)
        )
        if query.experiment_uid is not None:
            wanted = wanted.where(FileRow.experiment_uid == query.experiment_uid)
        elif not reach.is_all:
            wanted = wanted.where(is_within(FileRow.experiment_uid, reach, self._now))
        if query.checked_before is not None:
            wanted = wanted.where(ReplicaRow.checked_at < query.checked_before)
        wanted = wanted.where(ReplicaRow.is_to_read if query.is_to_read else ReplicaRow.state.in_(sorted(PRESENT)))
        place, order = _paging(query)
        rows = self._session.execute(wanted.where(*place).order_by(*order).limit(query.limit + 1)).all()
        shown = rows[: query.limit]
        checksums = checksums_of(self._session, [version.id for _, version, _ in shown])
        items = tuple(
            StoredReplica(
                path_b64=to_b64(file.path),
                replica=to_replica(replica, version.uid),
                experiment_uid=file.experiment_uid,
                number=version.number,
                kind=FileKind.FILE if version.link_target is None else FileKind.LINK,
                size=version.size,
                checksums=checksums.get(version.id, ()),
                link_target_b64=version.link_target,
                checked_at=replica.checked_at if replica.checked_at > EPOCH else None,
            )
            for replica, version, file in shown
        )
        last = shown[-1][0] if len(rows) > query.limit else None
        return ReplicaPage(items=items, next=None if last is None else _cursor(last))

    def proofs(self, experiment_uid: UUID, paths: Iterable[bytes]) -> list[FileProof]:
        """Return what proves the newest versions at these paths, hidden files too."""
        rows = newest(self._session, experiment_uid, set(map(bytes, paths)))
        ids = [version.id for _, version in rows]
        checksums = checksums_of(self._session, ids)
        replicas: defaultdict[int, list[ReplicaRow]] = defaultdict(list)
        for replica in self._session.scalars(
            select(ReplicaRow).where(ReplicaRow.version_id.in_(ids)).order_by(ReplicaRow.id)
        ):
            replicas[replica.version_id].append(replica)
        read_at = device_read_at(self._session, [replica.id for found in replicas.values() for replica in found])
        return [
            FileProof(
                file=to_file(file, version, checksums),
                replicas=tuple(
                    ReplicaProof(replica=to_replica(replica, version.uid), device_read_at=read_at.get(replica.id))
                    for replica in replicas[version.id]
                ),
            )
            for file, version in rows
        ]

    def directories(self, experiment_uid: UUID, query: DirectoryQuery) -> DirectoryPage:
        """Return what is stored by directory, in the order of directories."""
        return directories(self._session, experiment_uid, query)


def device_read_at(session: Session, replica_ids: Sequence[int]) -> Mapping[int, datetime]:
    """Return when right bytes were last read from devices; what was found bad or dropped since counts anew."""
    bad = aliased(VerificationRow)
    is_before = (bad.replica_id == VerificationRow.replica_id) & (bad.verified_at >= VerificationRow.verified_at)
    wanted = (
        select(VerificationRow.replica_id, func.max(VerificationRow.verified_at))
        .where(
            VerificationRow.replica_id.in_(replica_ids),
            VerificationRow.is_match,
            VerificationRow.read_from.in_(_FROM_DEVICE),
            ~exists().where(is_before, bad.is_match.is_(False)),
        )
        .group_by(VerificationRow.replica_id)
    )
    found: dict[int, datetime] = dict(session.execute(wanted).all())
    return found


def follow_versions(session: Session, version_ids: set[int]) -> None:
    """Say of versions what their replicas show: whether one is verified, or those that were read are all bad."""
    of_version = (ReplicaRow.version_id == VersionRow.id) & (ReplicaRow.state == ReplicaState.VERIFIED)
    is_bad = (ReplicaRow.version_id == VersionRow.id) & (ReplicaRow.state == ReplicaState.SUSPECT)
    if version_ids:
        held = select(VersionRow.file_id).where(VersionRow.id.in_(version_ids))
        changed(session, Kind.FILES, session.scalars(held))
        session.execute(
            update(VersionRow)
            .where(VersionRow.id.in_(version_ids))
            .values(
                is_verified=exists().where(of_version),
                is_suspect=exists().where(is_bad) & ~exists().where(of_version),
                verified_at=select(func.max(ReplicaRow.verified_at)).where(of_version).scalar_subquery(),
            )
            .execution_options(synchronize_session=False)
        )


def _verification(item: NewVerification, replica_id: int, by: str) -> dict[str, Any]:
    return {
        "uid": item.uid,
        "replica_id": replica_id,
        "verified_at": item.verified_at,
        "is_match": item.is_match,
        "read_from": item.read_from,
        "algorithm": item.checksum.algorithm if item.checksum else None,
        "value": item.checksum.value if item.checksum else None,
        "by": by,
        "message": item.message,
    }


def _follow(row: ReplicaRow, item: NewVerification) -> None:
    """Bring a replica to what was found; an older finding that comes late changes nothing of it, nor if it is gone."""
    if item.verified_at < row.checked_at or row.state not in PRESENT:
        return
    row.checked_at, row.is_to_read = item.verified_at, False
    row.state = ReplicaState.VERIFIED if item.is_match else ReplicaState.SUSPECT
    if item.is_match:
        row.verified_at = item.verified_at


def _cursor(last: ReplicaRow) -> str:
    return to_cursor((last.checked_at - EPOCH) // MICROSECOND, last.uid.hex)


def _paging(query: ReplicaQuery) -> tuple[Sequence[ColumnElement[bool]], Sequence[Any]]:
    """Return where a page begins, and its order."""
    # None that is to be read was looked at yet: they are in the order of their uids, and so is their index.
    order = (ReplicaRow.uid,) if query.is_to_read else (ReplicaRow.checked_at, ReplicaRow.uid)
    if query.after is None:
        return (), order
    at, uid = _after(query.after)
    return [ReplicaRow.uid > uid if query.is_to_read else tuple_(*order) > tuple_(at, uid)], order


def _after(cursor: str) -> tuple[Any, Any]:
    microseconds, uid = from_cursor(cursor, int, str)
    try:
        at = literal(EPOCH + int(microseconds) * MICROSECOND, UtcMicroseconds())
        return at, literal(UUID(hex=str(uid)), Uuid())
    except (ValueError, OverflowError) as error:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before") from error
