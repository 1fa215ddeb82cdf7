"""Rights of files as they are looked through and put right: by the real loop, on a real ext4, for real accounts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from beamkeeper.core.directories import made
from beamkeeper.db.base import new_uid
from beamkeeper.db.groups import Settled
from beamkeeper.domain.acls import ACCESS, DEFAULT, Acl
from beamkeeper.domain.audit_log import AuditQuery
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.file_rights import Place, Rights, Way
from beamkeeper.domain.groups import GroupState
from beamkeeper.domain.permissions import (
    FaultKind,
    NewPermissionWalk,
    PermissionFault,
    PermissionWalk,
    WalkMode,
    WalkState,
)
from beamkeeper.domain.status import Service
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.groups import OURSELVES
from beamkeeper.engine.permission_lanes import PermissionLanes
from beamkeeper.engine.permission_walk import Examiner, own_directories, paths_after, rights_of
from beamkeeper.engine.rights import give, given_in
from beamkeeper.testing.accounts import Person
from beamkeeper.testing.privileges import CAP_CHOWN, CAP_FSETID, without
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until

GROUP, OTHERS = 54321, 54322
ADA, EVE = Person(50001, groups=(GROUP,)), Person(50003, groups=(OTHERS,))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other people")


@dataclass
class Site:
    """A storage service that gives files to groups, and one experiment in it."""

    running: Running
    experiment: Experiment
    top: Path

    def has_group(self, gid: int) -> None:
        """Let the directory server have a group for the experiment."""
        with self.running.database.write() as tx:
            tx.groups.name_new("bk-{experiment}")
            tx.groups.settle(Settled(self.experiment.uid, GroupState.SAME, gid), began=tx.now)
        self.running.database.tell()
        until(self.is_calm, "the group has the files", 15)
        assert (self.top / "data").stat().st_gid == gid

    def is_calm(self) -> bool:
        with self.running.database.read() as tx:
            return not tx.permissions.areas()

    def walk(self, mode: WalkMode = WalkMode.CHECK) -> PermissionWalk:
        started = self.running.client.permissions.start(self.experiment.uid, mode)
        found = self.running.client.permissions.wait(started.uid)
        assert found.state is WalkState.DONE, found.message
        return found

    def put(self, path: str, mode: int) -> Path:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"frame")
        file.chmod(mode)
        return file


@contextmanager
def lanes(site: Running) -> Iterator[None]:
    loop = PermissionLanes(site.database, report=lambda _: None)
    loop.start()
    try:
        yield
    finally:
        loop.stop()
        loop.join()


@pytest.fixture
def quiet_site(tmp_path: Path, ext4_directory: Path) -> Iterator[Site]:
    """A site where nobody walks yet."""
    with running(directory=tmp_path, settings={"storage": {"area_path": str(ext4_directory / "area")}}) as services:
        new = NewExperiment(name="coffee", station=services.settings.station.name)
        experiment = services.client.experiments.create(new)
        yield Site(services, experiment, services.area / experiment.directory)


@pytest.fixture
def site(quiet_site: Site) -> Iterator[Site]:
    with lanes(quiet_site.running):
        yield quiet_site


def test_files_are_given_to_a_group_that_is_new_and_to_no_other_account(site: Site) -> None:
    before = site.put("data/before.tif", 0o440)
    site.has_group(GROUP)
    until(lambda: ADA.may_read(before), "ada can read it", 15)
    assert not EVE.may_read(before)
    assert not ADA.may_write(before)
    after = site.put("analysis/fit", 0o600)
    assert not ADA.may_read(after)
    assert site.walk(WalkMode.REPAIR).repaired == 1
    assert ADA.may_write(after)
    assert ADA.may("cp", "/dev/null", site.top / "analysis" / "own")
    assert site.walk().differing == 0
    assert not ADA.may_read(site.top / ".dm")
    wanted = AuditQuery(action="REPAIR PERMISSIONS")
    rows = list(site.running.client.audit_log(Service.STORAGE).find(wanted, most=10))
    assert rows[-1].username == OURSELVES
    assert "1 repaired" in rows[0].message
    assert site.walk().gid == GROUP


def test_a_group_that_gets_another_number_gets_the_files_again(site: Site) -> None:
    file = site.put("data/frame.tif", 0o440)
    site.has_group(OTHERS)
    site.has_group(GROUP)
    until(lambda: file.stat().st_gid == GROUP, "the file too", 15)
    assert not EVE.may_read(file)


Spoil = Callable[[Path], object]

SPOILED: dict[str, tuple[FaultKind, Spoil]] = {
    "data/open": (FaultKind.OPEN, lambda path: path.chmod(0o444)),
    "data/writable": (FaultKind.OPEN, lambda path: path.chmod(0o640)),
    "data/closed": (FaultKind.CLOSED, lambda path: path.chmod(0o400)),
    "data/theirs": (FaultKind.GROUP, lambda path: os.chown(path, -1, OTHERS)),
    "data/program": (FaultKind.OPEN, lambda path: path.chmod(0o4440)),
    "data/stranger": (FaultKind.OPEN, lambda path: named(path, Acl(4, 4, 0, users={50003: 4}, mask=4))),
    "data/strangers": (FaultKind.OPEN, lambda path: named(path, Acl(4, 4, 0, groups={OTHERS: 4}, mask=4))),
    "analysis/private": (FaultKind.CLOSED, lambda path: path.chmod(0o600)),
    "analysis/open": (FaultKind.OPEN, lambda path: path.chmod(0o664)),
}


def named(path: Path, acl: Acl) -> None:
    os.setxattr(path, ACCESS, acl.encode())


def spoiled_directories(site: Site) -> dict[str, FaultKind]:
    """Make directories that do not hand on what they should."""
    for name in ("unset", "unlisted", "wide"):
        (site.top / "data" / name).mkdir()
        (site.top / "data" / name).chmod(0o2750)
    (site.top / "data/unset").chmod(0o750)
    os.removexattr(site.top / "data/unlisted", DEFAULT)
    (site.top / "data/wide").chmod(0o2755)
    return {
        "data/unset": FaultKind.INHERITED,
        "data/unlisted": FaultKind.INHERITED,
        "data/wide": FaultKind.OPEN,
    }


def test_each_wrong_is_told_of_and_put_right(site: Site) -> None:
    site.has_group(GROUP)
    good = site.put("data/good", 0o440)
    for path, (_, spoil) in SPOILED.items():
        spoil(site.put(path, 0o440 if path.startswith("data") else 0o660))
    expected = {path: kind for path, (kind, _) in SPOILED.items()} | spoiled_directories(site)
    found = site.walk()
    assert {fault.path: fault.kind for fault in found.faults} == expected
    repaired = site.walk(WalkMode.REPAIR)
    assert (repaired.differing, repaired.repaired) == (len(expected), len(expected)), repaired.faults
    assert site.walk().differing == 0
    assert stat.S_IMODE(good.stat().st_mode) == 0o440
    assert stat.S_IMODE((site.top / "data/program").stat().st_mode) == 0o440


def test_links_and_what_is_no_file_are_left_alone_and_nothing_outside_changes(site: Site, tmp_path: Path) -> None:
    site.has_group(GROUP)
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.joinpath("secret").write_bytes(b"x")
    outside.chmod(0o700)
    before = outside.stat(), outside.joinpath("secret").stat()
    (site.top / "analysis/way-out").symlink_to(outside)
    (site.top / "data/secret").symlink_to(outside / "secret")
    os.mkfifo(site.top / "analysis/pipe", 0o666)
    twice = site.put("analysis/twice", 0o600)
    os.link(twice, site.top.parent / "elsewhere")
    found = site.walk(WalkMode.REPAIR)
    assert [(fault.path, fault.is_repaired) for fault in found.faults] == [("analysis/twice", False)]
    assert "2 names" in found.faults[0].why_not
    assert stat.S_IMODE(twice.stat().st_mode) == 0o600
    after = outside.stat(), outside.joinpath("secret").stat()
    assert [(one.st_mode, one.st_gid) for one in after] == [(one.st_mode, one.st_gid) for one in before]


def test_a_walk_goes_on_where_it_was_when_the_service_starts_again(quiet_site: Site) -> None:
    for number in range(40):
        quiet_site.put(f"analysis/fit{number:02}", 0o664)
    client = quiet_site.running.client
    started = client.permissions.start(quiet_site.experiment.uid, rate=20)
    with lanes(quiet_site.running):
        until(lambda: client.permissions.get(started.uid).entries > 10, "some are looked at", 15)
    half = client.permissions.get(started.uid)
    assert (half.state, half.entries < 47) == (WalkState.RUNNING, True)
    with lanes(quiet_site.running):
        found = client.permissions.wait(started.uid)
    assert (found.state, found.entries, found.differing) == (WalkState.DONE, 47, 40)


def test_a_walk_begins_anew_where_the_group_got_another_number_while_the_service_was_down(quiet_site: Site) -> None:
    files = [quiet_site.put(f"analysis/fit{number:02}", 0o664) for number in range(40)]
    uid, database = quiet_site.experiment.uid, quiet_site.running.database
    walk = NewPermissionWalk(uid=new_uid(), mode=WalkMode.REPAIR, rate=20)
    with database.write() as tx:
        tx.groups.name_new("bk-{experiment}")
        tx.groups.settle(Settled(uid, GroupState.SAME, OTHERS), began=tx.now)
        tx.permissions.add(uid, walk, by=OURSELVES)
    with lanes(quiet_site.running):
        until(lambda: quiet_site.running.client.permissions.get(walk.uid).entries > 10, "some are looked at", 15)
    assert {file.stat().st_gid for file in files} > {OTHERS}
    with database.write() as tx:
        tx.groups.settle(Settled(uid, GroupState.SAME, GROUP), began=tx.now)
    with lanes(quiet_site.running):
        until(quiet_site.is_calm, "the group has the files", 15)
    assert {file.stat().st_gid for file in files} == {GROUP}
    assert quiet_site.running.client.permissions.get(walk.uid).entries == 47


def test_a_walk_is_stopped(site: Site) -> None:
    site.put("analysis/fit", 0o664)
    client = site.running.client
    started = client.permissions.start(site.experiment.uid, rate=1)
    client.permissions.stop(started.uid)
    assert client.permissions.wait(started.uid).state in {WalkState.STOPPED, WalkState.DONE}


def everything(beneath: Beneath, after: bytes = b"", *, at_once: int = 2) -> list[bytes]:
    return list(paths_after(beneath, after, at_once=at_once))


def test_paths_come_in_one_order_and_go_on_after_any_of_them(tmp_path: Path) -> None:
    for path in ("data/a/b/c", "data/a-/x", "data/a.b", "data/b", "analysis/é/1", "analysis/é/2", "system/s"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    with Beneath(tmp_path) as beneath:
        whole = everything(beneath)
        assert len(whole) == len(set(whole)) == 11
        for number, found in enumerate(whole):
            assert everything(beneath, found) == whole[number + 1 :], found
        assert everything(beneath, b"data/aa/gone") == [b"data/b", b"system/s"]


def test_where_files_cannot_be_given_away_the_group_is_named_in_lists(ext4_directory: Path) -> None:
    with without(CAP_CHOWN, CAP_FSETID):
        with made(str(ext4_directory), "coffee"):
            pass
        top = ext4_directory / "coffee"
        with Beneath(top) as beneath:
            rights = rights_of(beneath, GROUP)
            assert rights.way is Way.NAMED
            examiner = Examiner(beneath, rights, is_repair=True)
            found = [fault for path in own_directories() if (fault := examiner.look(path)) is not None]
            assert all(fault.is_repaired for fault in found), found
            published = published_in(top, beneath)
            again = Examiner(beneath, rights, is_repair=False)
            assert [again.look(path) for path in (*own_directories(), b"data/frame")] == [None] * 8
    assert ADA.may_read(published)
    assert not ADA.may_write(published)
    assert ADA.may("cp", "/dev/null", top / "analysis/fit")
    assert not EVE.may_read(published)
    assert not Person(50009, gid=os.getegid()).may_read(top), "nor may the service's own group"


def published_in(top: Path, beneath: Beneath) -> Path:
    """Give a file its plain name, as a publish does with what a transport left in any way."""
    staged = top / ".dm/staging/frame"
    staged.write_bytes(b"frame")
    staged.chmod(0o600)
    descriptor = os.open(staged, os.O_RDONLY)
    try:
        give(descriptor, given_in(beneath.directory(b"data"), 0o440))
    finally:
        os.close(descriptor)
    return staged.rename(top / "data/frame")


def test_a_published_file_gets_the_group_of_its_tree_whatever_a_transport_gave_it(ext4_directory: Path) -> None:
    with made(str(ext4_directory), "coffee"):
        pass
    top = ext4_directory / "coffee"
    with Beneath(top) as beneath:
        examiner = Examiner(beneath, Rights(Way.OWNED, GROUP), is_repair=True)
        for path in own_directories():
            examiner.look(path)
        os.chown(top / ".dm/staging", -1, OTHERS)
        published = published_in(top, beneath)
    assert published.stat().st_gid == GROUP
    assert ADA.may_read(published)
    assert not EVE.may_read(published)


def test_what_is_deeper_than_is_looked_is_told_of(tmp_path: Path) -> None:
    deep = tmp_path / "data"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(210):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with Beneath(tmp_path) as beneath:
        examiner = Examiner(beneath, Rights(has_acls=False), is_repair=False)
        found = [fault for path in paths_after(beneath, b"") if (fault := examiner.look(path)) is not None]
        assert found[-1].kind is FaultKind.ELSEWHERE
        assert len(found) == 200


def test_no_place_is_without_a_policy() -> None:
    for place in Place:
        Rights(Way.NAMED, GROUP).directory_acl(place)
    assert PermissionFault(path="x", path_b64="eA==", kind=FaultKind.OPEN, message="").is_repaired is False
