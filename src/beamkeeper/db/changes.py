"""Which rows of the catalogue changed, numbered in commit order: what the site's catalogue has still to hear of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.status import Service

GAP = 8
"""Two ranges that lie so close together are written as one: a row that is sent for nothing costs less than a range."""

_NOTED = "beamkeeper.changed"


class ChangeRow(Base):
    """Rows of a kind with these local keys, both ends included, changed in one transaction; some perhaps did not."""

    __tablename__ = "changes"
    services = frozenset({Service.CATALOG})

    kind: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    first_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    last_id: Mapped[int] = mapped_column(BigId)


@dataclass(frozen=True, slots=True)
class Change:
    """A range of local keys and the number of its transaction."""

    number: int
    first_id: int
    last_id: int


def changed(session: Session, kind: Kind, ids: Iterable[int]) -> None:
    """Note that rows change in this transaction; written as it commits, so that the lock on numbers is held shortly."""
    noted: dict[Kind, list[tuple[int, int]]] = session.info.setdefault(_NOTED, {})
    noted.setdefault(kind, []).extend(_ranges(sorted(ids)))


def is_changed(session: Session) -> bool:
    """Whether this transaction has noted anything that is not written yet."""
    return bool(session.info.get(_NOTED))


def write_changes(session: Session, number: int) -> None:
    """Write what this transaction has noted, under a number that it took."""
    noted: dict[Kind, list[tuple[int, int]]] = session.info.pop(_NOTED, {})
    rows = [
        {"kind": kind, "number": number, "first_id": first, "last_id": last}
        for kind, ranges in noted.items()
        for first, last in _joined(sorted(ranges))
    ]
    if rows:
        session.execute(insert(ChangeRow), rows)


def _ranges(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    return _joined((each, each) for each in ids)


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield sorted ranges with those joined that touch or lie close together."""
    held: tuple[int, int] | None = None
    for first, last in ranges:
        if held is None:
            held = (first, last)
        elif first <= held[1] + GAP:
            held = (held[0], max(held[1], last))
        else:
            yield held
            held = (first, last)
    if held is not None:
        yield held


class Changes:
    """Queries on what changed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def after(self, kind: Kind, number: int, after_id: int | None, *, limit: int) -> list[Change]:
        """Return changes beyond a number; of that number itself those beyond a key, where one is given."""
        beyond = ChangeRow.number > number
        if after_id is not None:
            beyond = or_(beyond, (ChangeRow.number == number) & (ChangeRow.last_id > after_id))
        wanted = (
            select(ChangeRow.number, ChangeRow.first_id, ChangeRow.last_id)
            .where(ChangeRow.kind == kind, ChangeRow.number >= number, beyond)
            .order_by(ChangeRow.number, ChangeRow.first_id)
            .limit(limit)
        )
        found = [Change(*row) for row in self._session.execute(wanted)]
        if after_id is None:
            return found
        return [Change(c.number, max(c.first_id, after_id + 1), c.last_id) if c.number == number else c for c in found]

    def waiting(self, kind: Kind, number: int, *, limit: int) -> int:
        """Return about how many rows changed beyond a number, counting up to a limit."""
        some = (
            select((ChangeRow.last_id - ChangeRow.first_id + 1).label("rows"))
            .where(ChangeRow.kind == kind, ChangeRow.number > number)
            .limit(limit)
            .subquery()
        )
        found = self._session.execute(select(func.coalesce(func.sum(some.c.rows), 0))).scalar_one()
        return min(int(found), limit)

    def forget(self, below: int) -> int:
        """Remove changes numbered below; return how many ranges those were."""
        return self._session.execute(delete(ChangeRow).where(ChangeRow.number < below)).rowcount  # type: ignore[attr-defined, no-any-return]
