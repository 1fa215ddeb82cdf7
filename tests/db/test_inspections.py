"""The tables of scrubs, audits and findings, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.inspections import InHand, NewFinding
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.inspections import (
    Audit,
    Finding,
    FindingKind,
    FindingQuery,
    InspectionKind,
    InspectionQuery,
    InspectionState,
    Scrub,
)
from beamkeeper.testing.beamline import Beamline

ME, OTHER = UUID(int=1), UUID(int=2)
SCRUB, AUDIT = InspectionKind.SCRUB, InspectionKind.AUDIT
VERSION = UUID(int=9)


@pytest.fixture
def beamline(database_url: str, tmp_path: Path) -> Iterator[Beamline]:
    with closing(Beamline(database_url, tmp_path)) as made:
        work_as(made, ME)
        yield made


def work_as(beamline: Beamline, owner: UUID) -> None:
    with beamline.database.write() as tx:
        tx.workers.add(owner, host="h", boot_id="b", pid=1, start_ticks=1)


def add(beamline: Beamline, kind: InspectionKind = AUDIT, experiment: str | None = "coffee") -> Scrub | Audit:
    of = beamline.experiment(experiment) if experiment else None
    options: dict[str, float] = {"older_than_s": 5.5, "rate_bytes_s": 1e6} if kind is SCRUB else {}
    with beamline.database.write() as tx:
        return tx.inspections.add(kind, None, of, dict(options), by="ada")


def claim(beamline: Beamline, kind: InspectionKind = AUDIT, owner: UUID = ME) -> InHand | None:
    with beamline.database.write() as tx:
        return tx.inspections.claim(kind, owner)


def find(beamline: Beamline, one: Scrub | Audit) -> Scrub | Audit:
    with beamline.database.read() as tx:
        found = tx.inspections.find(SCRUB if isinstance(one, Scrub) else AUDIT, one.uid)
    assert found is not None
    return found


def finding(beamline: Beamline, path: bytes, kind: FindingKind, version: UUID | None = None) -> NewFinding:
    return NewFinding(kind, beamline.experiment().uid, path, "why", version_uid=version, size=2**40)


def findings(beamline: Beamline, one: Scrub | Audit) -> list[Finding]:
    found: list[Finding] = []
    query = FindingQuery(limit=2)
    with beamline.database.read() as tx:
        while True:
            page = tx.inspections.findings(one.uid, query)
            found += page.items
            if page.next is None:
                return found
            query = query.model_copy(update={"after": page.next})


def audit(beamline: Beamline, *found: NewFinding, state: InspectionState = InspectionState.DONE) -> tuple[Audit, int]:
    """Make an audit that finds this; returns it and how much it confirmed."""
    one = add(beamline)
    assert isinstance(one, Audit)
    claim(beamline)
    with beamline.database.write() as tx:
        tx.inspections.progress(one.uid, ME, {}, None, found)
        confirmed = tx.inspections.confirm(one.uid, ME) if state is InspectionState.DONE else 0
        tx.inspections.end(one.uid, ME, state)
    return one, confirmed


def test_what_was_asked_for_comes_back(beamline: Beamline) -> None:
    scrub, everything, audit = add(beamline, SCRUB), add(beamline, SCRUB, None), add(beamline)
    assert isinstance(scrub, Scrub)
    assert isinstance(audit, Audit)
    assert (scrub.older_than_s, scrub.rate_bytes_s, scrub.experiment) == (5.5, 1e6, "coffee")
    assert (everything.experiment_uid, everything.experiment) == (None, None)
    assert find(beamline, scrub) == scrub
    with beamline.database.read() as tx:
        assert tx.inspections.find(AUDIT, scrub.uid) is None
        assert tx.inspections.find(SCRUB, new_uid()) is None


def test_one_is_in_the_hands_of_one_living_process(beamline: Beamline) -> None:
    first = add(beamline)
    assert claim(beamline, SCRUB) is None
    work = claim(beamline)
    assert work is not None
    assert (work.uid, work.state, work.started_by) == (first.uid, InspectionState.RUNNING, "ada")
    assert find(beamline, first).started_at is not None
    work_as(beamline, OTHER)
    assert claim(beamline, owner=OTHER) is None
    with beamline.database.write() as tx:
        tx.workers.remove(ME)
    assert claim(beamline, owner=OTHER) is not None
    with beamline.database.write() as tx, pytest.raises(ConflictError, match="another process"):
        tx.inspections.progress(first.uid, ME, {}, None)


def test_progress_is_where_a_restart_goes_on(beamline: Beamline) -> None:
    one = add(beamline, SCRUB)
    claim(beamline, SCRUB)
    with beamline.database.write() as tx:
        tx.inspections.progress(one.uid, ME, {"files": 7, "bytes": 2**50, "matched": 6, "missing": 1}, "place")
        tx.inspections.say(one.uid, ME, "waits")
    shown = find(beamline, one)
    assert isinstance(shown, Scrub)
    assert (shown.files, shown.bytes, shown.matched, shown.bad, shown.message) == (7, 2**50, 6, 1, "waits")
    work = claim(beamline, SCRUB)
    assert work is not None
    assert (work.place, work.counts["files"]) == ("place", 7)


def test_one_ends_once(beamline: Beamline) -> None:
    one = add(beamline)
    claim(beamline)
    with beamline.database.write() as tx:
        ended = tx.inspections.end(one.uid, ME, InspectionState.DONE, "all well")
    assert (ended.state, ended.message, ended.ended_at) == (InspectionState.DONE, "all well", beamline.clock.now)
    assert claim(beamline) is None
    with beamline.database.write() as tx, pytest.raises(ConflictError):
        tx.inspections.end(one.uid, ME, InspectionState.DONE)


def test_a_stop_is_asked_for_before_it_begins_and_once(beamline: Beamline) -> None:
    one = add(beamline)
    with beamline.database.write() as tx:
        tx.inspections.request_stop(one.uid)
    asked_at = beamline.clock.now
    beamline.clock.tick()
    with beamline.database.write() as tx:
        assert tx.inspections.request_stop(one.uid).stop_requested_at == asked_at
    work = claim(beamline)
    assert work is not None
    assert (work.is_stop_requested, work.state) == (True, InspectionState.PENDING)


def test_lists_are_newest_first_and_of_one_kind(beamline: Beamline) -> None:
    made = [add(beamline).uid for _ in range(3)]
    add(beamline, SCRUB)
    claim(beamline)
    with beamline.database.write() as tx:
        tx.inspections.end(made[0], ME, InspectionState.DONE)
        first, cursor = tx.inspections.page(AUDIT, InspectionQuery(limit=2))
        rest, end = tx.inspections.page(AUDIT, InspectionQuery(limit=2, after=cursor))
        assert ([one.uid for one in (*first, *rest)], end) == (made[::-1], None)
        active, _ = tx.inspections.page(AUDIT, InspectionQuery(is_active=True))
        assert [one.uid for one in active] == made[:0:-1]
        with pytest.raises(InvalidError):
            tx.inspections.page(AUDIT, InspectionQuery(after="x"))


def test_findings_come_by_pages_in_the_order_found(beamline: Beamline) -> None:
    paths = [b"data/%d" % i for i in (3, 1, 2)] + [b"data/\xff" + b"x" * 5000]
    one, _ = audit(beamline, *(finding(beamline, path, FindingKind.DARK) for path in paths))
    found = findings(beamline, one)
    assert [bytes(f.relpath) for f in found] == paths
    assert (found[0].size, found[0].message, found[0].is_confirmed) == (2**40, "why", False)
    with beamline.database.read() as tx, pytest.raises(NotFoundError):
        tx.inspections.findings(new_uid(), FindingQuery())


def test_two_audits_one_after_the_other_confirm_what_both_found(beamline: Beamline) -> None:
    dark, lost = FindingKind.DARK, FindingKind.LOST
    same = [finding(beamline, b"a", dark), finding(beamline, b"b", lost, VERSION)]
    first, confirmed = audit(beamline, *same, finding(beamline, b"c", lost, VERSION))
    assert confirmed == 0
    new = [
        finding(beamline, b"a", lost, VERSION),
        finding(beamline, b"c", lost, UUID(int=8)),
        finding(beamline, b"d", dark),
    ]
    second, confirmed = audit(beamline, *same, *new)
    assert confirmed == 2
    assert [f.is_confirmed for f in findings(beamline, second)] == [True, True, False, False, False]
    assert not any(f.is_confirmed for f in findings(beamline, first))


def test_neither_one_that_was_stopped_nor_one_long_before_confirms(beamline: Beamline) -> None:
    a = finding(beamline, b"a", FindingKind.DARK)
    audit(beamline, a, state=InspectionState.STOPPED)
    assert audit(beamline, a)[1] == 0
    assert audit(beamline)[1] == 0
    assert audit(beamline, a)[1] == 0
    audit(beamline, a, state=InspectionState.FAILED)
    assert audit(beamline, a)[1] == 1
