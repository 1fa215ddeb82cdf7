"""What one can ask of wipes, holds, scrubs and audits, and who may, on both databases and real directories."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.core import inspections
from beamkeeper.core import wipes as core
from beamkeeper.core.sources import Place, Rules
from beamkeeper.core.wipes import WipeRules
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.wipes import Counts
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError, SourceError
from beamkeeper.domain.inspections import FindingQuery, InspectionKind, InspectionQuery, NewAudit, NewScrub
from beamkeeper.domain.names import RelPath, path_fields
from beamkeeper.domain.users import Caller, Role
from beamkeeper.domain.wipes import (
    Hold,
    NewHold,
    NewWipe,
    Wipe,
    WipeEntryQuery,
    WipeQuery,
    WipeRun,
    WipeState,
)
from beamkeeper.testing.beamline import STATION, Beamline

OWNER = UUID(int=1)
MAY_WIPE = (Role.ADMINISTRATOR, Role.STATION_MANAGER)


class Station:
    """A beamline with a detector's directory."""

    def __init__(self, beamline: Beamline, tmp_path: Path) -> None:
        self.beamline = beamline
        self.detector = tmp_path / "det"
        self.data_dir = tmp_path / "ours"
        for directory in (self.detector, self.data_dir, beamline.storage):
            directory.mkdir()
        sources = Rules(agent="det1", spool=self.data_dir / "spool", roots=(), forbidden=(self.data_dir,))
        self.rules = WipeRules(STATION, sources, min_age_hours=24, within_days=7, max_files=100)
        self.manager = beamline.caller(Role.STATION_MANAGER, username="mona")

    def new(self, directory: Path, **more: object) -> NewWipe:
        return NewWipe.model_validate({**path_fields(os.fsencode(directory)[1:]), **more})

    def plan(self, directory: Path, caller: Caller | None = None, **more: object) -> Wipe:
        new, who = self.new(directory, **more), caller or self.manager
        with self.beamline.database.read() as tx:
            place = core.look(tx, who, new, rules=self.rules)
        with self.beamline.database.write() as tx:
            return core.plan(tx, who, new, place=place, rules=self.rules)

    def planned(self, *, is_safe: bool = True, files: int = 10) -> Wipe:
        """Return a plan as the engine leaves it."""
        wipe = self.plan(self.detector)
        with self.beamline.database.write() as tx:
            tx.wipes.claim("det1", OWNER)
            tx.wipes.step(wipe.uid, OWNER, WipeState.PLANNING)
            tx.wipes.count(wipe.uid, OWNER, Counts(proven_files=files))
            return tx.wipes.step(wipe.uid, OWNER, WipeState.PLANNED, is_safe=is_safe)

    def run(self, wipe: Wipe, expected: int = 10, caller: Caller | None = None) -> Wipe:
        with self.beamline.database.write() as tx:
            request = WipeRun(expected_files=expected)
            return core.run(tx, caller or self.manager, wipe.uid, request=request, rules=self.rules)

    def hold(self, directory: Path, caller: Caller, uid: UUID | None = None) -> Hold:
        new = NewHold.model_validate({**path_fields(os.fsencode(directory)[1:]), "uid": uid, "why": "mine"})
        with self.beamline.database.write() as tx:
            return core.hold(tx, caller, new, rules=self.rules)

    def holds(self, caller: Caller) -> list[Hold]:
        with self.beamline.database.read() as tx:
            return core.holds(tx, caller, rules=self.rules)


@pytest.fixture
def station(database_url: str, tmp_path: Path) -> Iterator[Station]:
    with closing(Beamline(database_url, tmp_path / "storage")) as beamline:
        yield Station(beamline, tmp_path)


def test_a_plan_is_of_the_real_directory_with_the_stations_limits(station: Station) -> None:
    (link := station.detector.parent / "link").symlink_to(station.detector)
    wipe = station.plan(link)
    assert b"/" + wipe.relpath == os.fsencode(station.detector)
    assert (wipe.state, wipe.agent, wipe.planned_by) == (WipeState.PENDING, "det1", "mona")
    assert (wipe.min_age_hours, wipe.within_days, wipe.max_files) == (24, 7, 100)
    assert station.plan(link, min_age_hours=0).min_age_hours == 0


def test_the_same_uid_is_the_same_plan_and_of_the_same_directory(station: Station) -> None:
    uid = new_uid()
    assert station.plan(station.detector, uid=uid) == station.plan(station.detector, uid=uid)
    (station.detector / "below").mkdir()
    with pytest.raises(ConflictError, match="another directory"):
        station.plan(station.detector / "below", uid=uid)


def test_what_holds_the_storage_or_ourselves_is_refused(station: Station) -> None:
    (station.beamline.storage / "2026-1").mkdir()
    (link := station.detector / "link").symlink_to(station.beamline.storage)
    for directory in (
        station.beamline.storage,
        station.beamline.storage / "2026-1",
        station.data_dir,
        station.detector.parent,
        link,
    ):
        with pytest.raises(InvalidError, match="only directories at the source"):
            station.plan(directory)


def test_what_is_no_directory_is_refused(station: Station) -> None:
    (station.detector / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="is no directory"):
        station.plan(station.detector / "file")
    with pytest.raises(SourceError, match="does not exist"):
        station.plan(station.detector / "none")
    with pytest.raises(NotFoundError, match="no agent"):
        station.plan(station.detector, agent="det2")


def test_only_a_plan_that_says_yes_is_carried_out(station: Station) -> None:
    with pytest.raises(ConflictError, match="not safe"):
        station.run(station.plan(station.detector), expected=0)
    with station.beamline.database.write() as tx:
        tx.wipes.step(tx.wipes.claim("det1", OWNER).uid, OWNER, WipeState.REFUSED)  # type: ignore[union-attr]
    with pytest.raises(ConflictError, match="not safe"):
        station.run(station.planned(is_safe=False))
    asked = station.run(station.planned())
    assert (asked.state, asked.run_by) == (WipeState.ASKED, "mona")
    assert station.run(asked) == asked


def test_a_plan_that_is_old_or_too_large_or_other_than_agreed_is_refused(station: Station) -> None:
    with pytest.raises(ConflictError, match="at most 100"):
        station.run(station.planned(files=101), expected=101)
    plan = station.planned()
    with pytest.raises(ConflictError, match="look at it again"):
        station.run(plan, expected=9)
    station.beamline.clock.tick(24 * 3600 + 1)
    with pytest.raises(ConflictError, match="older than a day"):
        station.run(plan)


Verb = Callable[[Station, AcquisitionTransaction, Caller], object]

WIPES: dict[str, Verb] = {
    "look": lambda s, tx, who: core.look(tx, who, s.new(s.detector), rules=s.rules),
    "plan": lambda s, tx, who: core.plan(
        tx, who, s.new(s.detector), place=Place("det1", RelPath(b"det")), rules=s.rules
    ),
    "run": lambda s, tx, who: core.run(tx, who, new_uid(), request=WipeRun(expected_files=1), rules=s.rules),
    "show": lambda s, tx, who: core.show(tx, who, new_uid(), rules=s.rules),
    "list": lambda s, tx, who: core.list_(tx, who, WipeQuery(), rules=s.rules),
    "entries": lambda s, tx, who: core.entries(tx, who, new_uid(), query=WipeEntryQuery(), rules=s.rules),
}
INSPECTIONS: dict[str, Verb] = {
    "scrub": lambda s, tx, who: inspections.scrub(tx, who, NewScrub(), station=STATION),
    "scrub one": lambda s, tx, who: inspections.scrub(
        tx, who, NewScrub(experiment_uid=s.beamline.experiment().uid), station=STATION
    ),
    "audit": lambda s, tx, who: inspections.audit(
        tx, who, NewAudit(experiment_uid=s.beamline.experiment().uid), station=STATION
    ),
    "show scrub": lambda s, tx, who: inspections.show_scrub(tx, who, new_uid(), station=STATION),
    "show audit": lambda s, tx, who: inspections.show_audit(tx, who, new_uid(), station=STATION),
    "scrubs": lambda s, tx, who: inspections.scrubs(tx, who, InspectionQuery(), station=STATION),
    "audits": lambda s, tx, who: inspections.audits(tx, who, InspectionQuery(), station=STATION),
    "stop scrub": lambda s, tx, who: inspections.stop_scrub(tx, who, new_uid(), station=STATION),
    "stop audit": lambda s, tx, who: inspections.stop_audit(tx, who, new_uid(), station=STATION),
    "findings": lambda s, tx, who: inspections.findings(
        tx, who, InspectionKind.AUDIT, new_uid(), query=FindingQuery(), station=STATION
    ),
}


@pytest.mark.parametrize("verb", [*WIPES.values(), *INSPECTIONS.values()], ids=[*WIPES, *INSPECTIONS])
def test_managers_of_the_station_may_and_nobody_else(station: Station, verb: Verb) -> None:
    station.beamline.experiment()
    grants = tuple(grant.model_copy(update={"station_uid": new_uid()}) for grant in station.manager.grants)
    elsewhere = replace(station.manager, grants=grants)
    service = Caller("service", is_service=True, station_uid=station.beamline.station.uid)
    others = [station.beamline.caller(role) for role in Role if role not in MAY_WIPE]
    for caller in [*others, elsewhere, service, Caller("stranger", new_uid())]:
        with station.beamline.database.write() as tx, pytest.raises(NotPermittedError):
            verb(station, tx, caller)
    for role in MAY_WIPE:
        with station.beamline.database.write() as tx, suppress(NotFoundError):  # who may learns that there is none
            verb(station, tx, station.beamline.caller(role))


def test_members_hold_paths_and_see_their_own(station: Station) -> None:
    ada, bob = (station.beamline.caller(Role.USER, username=name) for name in ("ada", "bob"))
    uid = new_uid()
    hers, his = station.hold(station.detector, ada, uid), station.hold(station.detector / "not there", bob)
    assert station.hold(station.detector, ada, uid) == hers
    assert (hers.by, hers.why, hers.agent) == ("ada", "mine", "det1")
    assert station.holds(ada) == [hers]
    assert {one.uid for one in station.holds(station.manager)} == {hers.uid, his.uid}
    with station.beamline.database.write() as tx:
        with pytest.raises(NotFoundError):
            core.release(tx, bob, hers.uid, rules=station.rules)
        core.release(tx, ada, hers.uid, rules=station.rules)
        core.release(tx, station.manager, his.uid, rules=station.rules)
    assert station.holds(station.manager) == []


def test_who_has_no_role_in_the_station_holds_nothing(station: Station) -> None:
    elsewhere = Caller("manager of another", new_uid(), grants=())
    service = Caller("service", is_service=True, station_uid=station.beamline.station.uid)
    for caller in (elsewhere, service, station.beamline.caller(Role.STATION_VIEWER)):
        with pytest.raises(NotPermittedError):
            station.hold(station.detector, caller)
        with pytest.raises(NotPermittedError):
            station.holds(caller)


def test_a_hold_is_of_a_plain_path(station: Station) -> None:
    for path in (b"../etc", b"a//b", b"/a", b""):
        with pytest.raises(ValueError, match="path"):
            NewHold(path_b64=path_fields(path)["path_b64"])


def test_a_scrub_and_an_audit_are_asked_for_once(station: Station) -> None:
    uid, other = new_uid(), new_uid()
    coffee, tea = station.beamline.experiment().uid, station.beamline.experiment("tea").uid
    with station.beamline.database.write() as tx:
        scrub = inspections.scrub(tx, station.manager, NewScrub(uid=uid), station=STATION)
        assert inspections.scrub(tx, station.manager, NewScrub(uid=uid), station=STATION) == scrub
        with pytest.raises(ConflictError):
            inspections.scrub(tx, station.manager, NewScrub(uid=uid, experiment_uid=coffee), station=STATION)
        audit = inspections.audit(tx, station.manager, NewAudit(uid=other, experiment_uid=coffee), station=STATION)
        assert inspections.show_audit(tx, station.manager, other, station=STATION) == audit
        with pytest.raises(ConflictError):
            inspections.audit(tx, station.manager, NewAudit(uid=other, experiment_uid=tea), station=STATION)
        with pytest.raises(NotFoundError):
            inspections.show_scrub(tx, station.manager, other, station=STATION)
        assert inspections.stop_scrub(tx, station.manager, uid, station=STATION).stop_requested_at is not None
        assert len(inspections.audits(tx, station.manager, InspectionQuery(), station=STATION).items) == 1
