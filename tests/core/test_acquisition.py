"""What one can do with DAQs and uploads, and what is refused, on both databases and real directories."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamkeeper.core import acquisition as core
from beamkeeper.core.sources import Rules
from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import (
    Acquisition,
    AcquisitionQuery,
    JournalQuery,
    Kind,
    NewDaq,
    NewUpload,
    State,
    StopRequest,
    overlaps,
)
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InvalidError,
    NotFoundError,
    NotPermittedError,
    OverlapError,
    SourceError,
)
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.users import Caller, Reach, Role
from beamkeeper.testing.beamline import Beamline, names


class Station:
    """A beamline with the directories of a detector."""

    def __init__(self, beamline: Beamline, tmp_path: Path) -> None:
        self.beamline = beamline
        with beamline.database.read() as tx:
            self.begun = tx.events.cursor()
        self.detector = tmp_path / "det"
        self.elsewhere = tmp_path / "elsewhere"
        self.data_dir = tmp_path / "ours"
        for directory in (self.detector, self.elsewhere, self.data_dir, beamline.storage):
            directory.mkdir()
        self.rules = Rules(
            agent="det1", spool=self.data_dir / "spool", roots=(self.detector,), forbidden=(self.data_dir,)
        )
        self.manager = beamline.caller(Role.STATION_MANAGER, username="mona")
        self.member = beamline.caller(Role.USER, username="ada")

    def directory(self, *parts: str, files: int = 0) -> Path:
        made = self.detector.joinpath(*parts)
        made.mkdir(parents=True, exist_ok=True)
        for count in range(files):
            (made / f"{count}.tif").write_bytes(b"frame")
        return made

    def start(self, new: NewDaq | NewUpload, caller: Caller | None = None, rules: Rules | None = None) -> Acquisition:
        who = caller or self.manager
        with self.beamline.database.read() as tx:
            place = core.look(tx, who, new, rules=rules or self.rules)
        with self.beamline.database.write() as tx:
            if isinstance(new, NewDaq):
                return core.start_daq(tx, who, new, place=place)
            return core.start_upload(tx, who, new, place=place)

    def refusal(self, new: NewDaq | NewUpload, caller: Caller | None = None, rules: Rules | None = None) -> DmError:
        with pytest.raises(DmError) as refused:
            self.start(new, caller, rules)
        return refused.value

    def show(self, found: Acquisition, caller: Caller | None = None) -> Acquisition:
        with self.beamline.database.read() as tx:
            return core.show(tx, caller or self.manager, found.uid)

    def stop(self, found: Acquisition, caller: Caller | None = None, *, now: bool = False) -> Acquisition:
        with self.beamline.database.write() as tx:
            return core.stop(tx, caller or self.manager, found.uid, request=StopRequest(now=now))

    def end(self, found: Acquisition) -> None:
        with self.beamline.database.write() as tx:
            tx.acquisitions.mark_ended(found.uid, State.ABORTED)


@pytest.fixture
def station(database_url: str, tmp_path: Path) -> Iterator[Station]:
    beamline = Beamline(database_url, tmp_path / "storage")
    yield Station(beamline, tmp_path)
    beamline.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """The same on SQLite only, for what the database has no part in."""
    beamline = Beamline(f"sqlite:///{tmp_path / 'test.db'}", tmp_path / "storage")
    yield Station(beamline, tmp_path)
    beamline.close()


def events(station: Station) -> list[Any]:
    with station.beamline.database.read() as tx:
        found, _ = tx.events.after(station.begun, reach=Reach(is_all=True), limit=1000)
    return [event.data for event in found if event.kind == core.CHANGED]


# Starting


def test_a_daq_starts_pending_with_the_real_path_and_tells_of_it(station: Station) -> None:
    real = station.directory("scan1")
    (station.detector / "link").symlink_to(real)
    started = station.start(station.beamline.daq(station.detector / "link", metadata={"sample": "Si"}), station.member)
    assert b"/" + started.relpath == os.fsencode(real)
    assert (started.state, started.kind, started.started_by, started.agent) == (State.PENDING, Kind.DAQ, "ada", "det1")
    assert station.show(started) == started
    assert events(station) == [{"uid": str(started.uid), "kind": "daq", "state": "pending"}]


def test_a_name_that_is_not_utf_8_is_watched_byte_for_byte(station: Station) -> None:
    raw = os.fsencode(station.detector) + b"/scan \xff\n"
    os.mkdir(raw)
    started = station.start(station.beamline.daq(raw))
    assert b"/" + started.relpath == raw


def test_asking_twice_with_one_uid_starts_one(station: Station) -> None:
    new = station.beamline.daq(station.directory("scan1"), uid=new_uid())
    first = station.start(new)
    assert station.start(new) == first
    assert events(station) == [{"uid": str(new.uid), "kind": "daq", "state": "pending"}]


def test_a_uid_of_something_else_is_refused(station: Station) -> None:
    uid = new_uid()
    station.start(station.beamline.daq(station.directory("scan1"), uid=uid))
    refused = station.refusal(station.beamline.upload(station.directory("scan2", files=1), uid=uid))
    assert isinstance(refused, ConflictError)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"tree": Tree.SYSTEM}, InvalidError, "system tree"),
        ({"destination": "../other"}, InvalidError, "plain relative path"),
        ({"destination": "a//b"}, InvalidError, "plain relative path"),
        ({"metadata": {"a\0": 1}}, InvalidError, "NUL"),
        ({"metadata": {"a": float("nan")}}, InvalidError, "JSON"),
        ({"processors": ["catalogue", "nonesuch"]}, NotFoundError, 'no plugin "nonesuch"'),
        ({"skip_processors": ["nonesuch"]}, NotFoundError, 'no plugin "nonesuch"'),
        ({"agent": "det9"}, NotFoundError, 'no agent "det9"'),
    ],
)
def test_wrong_options_are_refused_by_name(
    here: Station, options: dict[str, Any], error: type[DmError], sentence: str
) -> None:
    refused = here.refusal(here.beamline.daq(here.directory("scan1"), **options))
    assert type(refused) is error
    assert sentence in refused.message


def test_analysis_and_a_destination_are_kept(station: Station) -> None:
    new = station.beamline.upload(
        station.directory("scan1", files=1),
        tree=Tree.ANALYSIS,
        destination="/fits/run 1/",
        skip_processors=["metadata"],
    )
    started = station.start(new)
    assert (started.tree, started.destination, list(started.skip_processors)) == (
        Tree.ANALYSIS,
        "fits/run 1",
        ["metadata"],
    )


# Directories that cannot be taken


def test_a_directory_that_does_not_exist_is_refused_at_once(here: Station) -> None:
    missing = here.detector / "missing"
    daq, upload = here.beamline.daq(missing), here.beamline.upload(missing)
    assert "does not exist" in here.refusal(daq).message
    assert "--wait" in here.refusal(daq).message
    refused = here.refusal(upload)
    assert isinstance(refused, SourceError)
    assert str(missing) in refused.message
    assert "--wait" not in refused.message


def test_a_daq_may_wait_for_its_directory(here: Station) -> None:
    started = here.start(here.beamline.daq(here.detector / "not yet" / "there", wait=True))
    assert started.relpath.endswith(b"det/not yet/there")


def test_an_upload_of_nothing_is_refused(here: Station) -> None:
    empty = here.directory("empty", "with", "directories")
    for directory in (empty, here.detector / "empty"):
        assert "no files" in here.refusal(here.beamline.upload(directory)).message


def test_an_upload_of_a_tree_with_one_file_deep_down_starts(here: Station) -> None:
    here.directory("scan1", "a", "b", files=1)
    assert here.start(here.beamline.upload(here.detector / "scan1")).state is State.PENDING


def test_what_is_no_directory_is_not_watched(here: Station) -> None:
    (here.detector / "file").touch()
    os.mkfifo(here.detector / "pipe")
    assert "no directory" in here.refusal(here.beamline.daq(here.detector / "file")).message
    assert "is not a directory" in here.refusal(here.beamline.upload(here.detector / "pipe")).message
    (here.detector / "loop").symlink_to(here.detector / "loop")
    assert isinstance(here.refusal(here.beamline.daq(here.detector / "loop")), SourceError)


@pytest.mark.usefixtures("as_anybody")
def test_a_directory_that_cannot_be_read_is_refused(here: Station) -> None:
    closed = here.directory("closed", files=1)
    closed.chmod(0)
    try:
        for new in (here.beamline.daq(closed), here.beamline.upload(closed)):
            refused = here.refusal(new)
            assert isinstance(refused, SourceError)
            assert "permission denied" in refused.message
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("where", ["storage", "storage/2026-1", "ours", "ours/spool/x", ".", "elsewhere/link"])
def test_storage_and_our_own_directories_are_not_taken(here: Station, tmp_path: Path, where: str) -> None:
    (tmp_path / "elsewhere" / "link").symlink_to(here.beamline.storage)
    directory = tmp_path / where
    directory.mkdir(parents=True, exist_ok=True)
    refused = here.refusal(here.beamline.daq(directory))
    assert isinstance(refused, InvalidError)
    assert str(directory) in refused.message


# Rights


def test_members_take_files_below_the_roots_only(here: Station) -> None:
    inside = here.directory("scan1", files=1)
    assert here.start(here.beamline.upload(inside), here.member).started_by == "ada"
    (here.elsewhere / "0.tif").touch()
    (here.detector / "way out").symlink_to(here.elsewhere)
    for outside in (here.elsewhere, here.detector / "way out", Path(f"{here.detector}2")):
        refused = here.refusal(here.beamline.upload(outside), here.member)
        assert isinstance(refused, NotPermittedError)
        assert str(here.detector) in refused.message
        if outside.is_symlink():
            assert str(here.elsewhere) not in refused.message
    assert here.start(here.beamline.upload(here.elsewhere)).started_by == "mona"


def test_without_roots_only_managers_of_the_station_start(here: Station) -> None:
    rules, new = replace(here.rules, roots=()), here.beamline.daq(here.directory("scan1"))
    assert isinstance(here.refusal(new, here.member, rules), NotPermittedError)
    assert here.start(new, rules=rules).state is State.PENDING


@pytest.mark.parametrize(
    ("role", "error"),
    [(Role.STATION_VIEWER, NotPermittedError), (Role.USER, NotFoundError)],
)
def test_who_may_not_run_daqs_of_an_experiment_starts_and_stops_none(
    station: Station, role: Role, error: type[DmError]
) -> None:
    caller = station.beamline.caller(role, "tea")
    started = station.start(station.beamline.daq(station.directory("scan1")))
    new = station.beamline.daq(station.directory("scan2"))
    assert isinstance(station.refusal(new, caller), error)
    with pytest.raises(error):
        station.stop(started, caller)
    assert station.show(started).state is State.PENDING


def test_a_daq_of_an_experiment_that_one_may_not_see_is_not_there(station: Station) -> None:
    stranger = station.beamline.caller(Role.PI, "tea")
    started = station.start(station.beamline.daq(station.directory("scan1")))
    with station.beamline.database.read() as tx:
        for ask in (
            lambda: core.show(tx, stranger, started.uid),
            lambda: core.entries(tx, stranger, started.uid, query=JournalQuery()),
        ):
            with pytest.raises(NotFoundError, match="there is no DAQ or upload"):
                ask()
        assert names(core.list_(tx, stranger, AcquisitionQuery()).items) == []
        assert names(core.list_(tx, station.member, AcquisitionQuery()).items) == [started.uid]


def test_a_deleted_experiment_takes_no_more_files_but_its_daqs_can_be_stopped(station: Station) -> None:
    started = station.start(station.beamline.daq(station.directory("scan1")))
    with station.beamline.database.write() as tx:
        tx.experiments.delete(started.experiment_uid)
    new = station.beamline.daq(station.directory("scan2"))
    assert isinstance(station.refusal(new), ConflictError)
    assert isinstance(station.refusal(new, station.member), NotFoundError)
    assert station.stop(started).state is State.STOPPING


def test_an_unknown_experiment_is_not_found(station: Station) -> None:
    new = station.beamline.daq(station.directory("scan1")).model_copy(update={"experiment_uid": uuid4()})
    assert isinstance(station.refusal(new), NotFoundError)


# Overlaps

PARTS = st.lists(st.sampled_from(["a", "ab", "b", "\u00e9"]), max_size=3)


@given(PARTS, PARTS)
def test_paths_overlap_where_one_is_the_other_or_above_it(one: list[str], other: list[str]) -> None:
    first, second = PurePosixPath("/", *one), PurePosixPath("/", *other)
    expected = first == second or first in second.parents or second in first.parents
    for a, b in ((first, second), (second, first)):
        assert overlaps(os.fsencode(a), os.fsencode(b).lstrip(b"/")) is expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=PARTS, asked=PARTS, is_daq=st.booleans(), by_link=st.booleans())
def test_a_directory_that_a_daq_holds_is_given_to_nobody_else(
    here: Station, held: list[str], asked: list[str], is_daq: bool, by_link: bool
) -> None:
    first = here.directory("tree", *held)
    second = here.directory("tree", *asked)
    (here.detector / "tree" / "file").touch()
    (second / "file").touch()
    if by_link:
        link = here.elsewhere / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(second)
    beamline, target = here.beamline, here.elsewhere / "link" if by_link else second
    new = beamline.daq(target, "tea") if is_daq else beamline.upload(target, "tea")
    daq = here.start(beamline.daq(first))
    try:
        if first == second or first in second.parents or second in first.parents:
            refused = here.refusal(new)
            assert isinstance(refused, OverlapError)
            for fact in ('"coffee"', str(daq.uid), "mona"):
                assert fact in refused.message
            assert ("--take-over" in refused.message) is is_daq
        else:
            here.end(here.start(new))
    finally:
        here.end(daq)
    here.end(here.start(new))


def test_what_has_ended_or_was_uploaded_or_is_of_another_agent_holds_nothing(station: Station) -> None:
    scan = station.directory("scan1", files=1)
    station.start(station.beamline.upload(scan))
    other = replace(station.rules, agent="det2")
    station.start(station.beamline.daq(scan), rules=other)
    station.end(station.start(station.beamline.daq(scan)))
    assert station.start(station.beamline.daq(scan)).state is State.PENDING


def test_a_stopping_daq_still_holds_its_directory(station: Station) -> None:
    scan = station.directory("scan1")
    station.stop(station.start(station.beamline.daq(scan)))
    assert "stopping" in station.refusal(station.beamline.daq(scan)).message


def test_an_overlap_does_not_name_an_experiment_that_the_caller_may_not_see(station: Station) -> None:
    daq = station.start(station.beamline.daq(station.directory("secret", "place"), "secret"))
    for take_over in (False, True):
        new = station.beamline.daq(station.directory("secret"), take_over=take_over)
        refused = station.refusal(new, station.member)
        assert isinstance(refused, OverlapError)
        assert str(station.detector / "secret") in refused.message
        for fact in ('"secret"', "place", str(daq.uid), "mona"):
            assert fact not in refused.message + repr(refused.details)
    assert station.show(daq).state is State.PENDING


# Taking over


def test_a_take_over_ends_the_old_and_starts_the_new_at_one_instant(station: Station) -> None:
    old = station.start(station.beamline.daq(station.directory("scan1")))
    inner = station.start(station.beamline.daq(station.directory("scan2", "in"), "tea"))
    station.beamline.clock.tick()
    new = station.start(station.beamline.daq(station.detector, "tea", take_over=True))
    with station.beamline.database.read() as tx:
        for uid in (old.uid, inner.uid):
            control = tx.acquisitions.control(uid)
            assert (control.taken_over_by, control.taken_over_at) == (new.uid, new.created_at)
            assert (control.stop_requested, control.stop_now) == (True, False)
        assert set(tx.acquisitions.control(new.uid).took_over) == {old.uid, inner.uid}
    states = [(event["uid"], event["state"]) for event in events(station)[2:]]
    assert states == [(str(old.uid), "stopping"), (str(inner.uid), "stopping"), (str(new.uid), "pending")]
    assert isinstance(station.refusal(station.beamline.daq(station.directory("scan1"))), OverlapError)


def test_a_take_over_needs_the_right_to_stop_the_old_one(station: Station) -> None:
    scan = station.directory("scan1")
    old = station.start(station.beamline.daq(scan, "tea"))
    both = station.beamline.caller(Role.USER, "coffee")
    viewer = station.beamline.caller(Role.STATION_VIEWER)
    seeing = replace(both, grants=(*both.grants, *viewer.grants))
    refused = station.refusal(station.beamline.daq(scan, take_over=True), seeing)
    assert isinstance(refused, NotPermittedError)
    assert '"tea"' in refused.message
    assert station.show(old).state is State.PENDING


def test_a_take_over_where_nothing_is_held_is_a_start(station: Station) -> None:
    started = station.start(station.beamline.daq(station.directory("scan1"), take_over=True))
    with station.beamline.database.read() as tx:
        assert tx.acquisitions.control(started.uid).took_over == []


# Stopping


def test_stopping_twice_is_stopping_once_and_now_can_be_added(station: Station) -> None:
    started = station.start(station.beamline.daq(station.directory("scan1")), station.member)
    first = station.stop(started, station.member)
    assert station.stop(started) == first
    assert station.stop(started, now=True).state is State.STOPPING
    with station.beamline.database.read() as tx:
        assert tx.acquisitions.control(started.uid).stop_now


def test_what_ended_as_asked_is_shown_again_and_what_ended_by_itself_says_so(station: Station) -> None:
    asked, alone = (station.start(station.beamline.daq(station.directory(name))) for name in ("a", "b"))
    station.stop(asked)
    station.end(asked)
    station.end(alone)
    assert station.stop(asked).state is State.ABORTED
    with pytest.raises(ConflictError, match="has ended already: it is aborted"):
        station.stop(alone)


def test_the_plugins_in_use_are_marked(station: Station, tmp_path: Path) -> None:
    from beamkeeper.config import Settings

    chosen = Settings.model_validate({"data_dir": tmp_path, "acquisition": {"processors": ("catalogue",)}})
    with station.beamline.database.read() as tx:
        found = {(plugin.group, plugin.name): plugin.is_active for plugin in core.plugins(tx, chosen)}
    assert found[("beamkeeper.processors", "catalogue")]
    assert not found[("beamkeeper.processors", "metadata")]
    assert found[("beamkeeper.transfers", "copy")]


@pytest.fixture
def view(station: Station, tmp_path: Path) -> Iterator[Path]:
    """The detector's directory, mounted at another place, too."""
    if os.geteuid():
        pytest.skip("only root may mount")
    place = tmp_path / "view"
    place.mkdir()
    subprocess.run(["mount", "--bind", str(station.detector), str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_bind_mount_of_a_directory_that_is_held_is_held(station: Station, view: Path) -> None:
    scan, other = station.directory("scan", files=1), station.directory("other", files=1)
    held = station.start(station.beamline.daq(scan))
    for new in (
        station.beamline.daq(view / "scan"),
        station.beamline.daq(view),
        station.beamline.upload(view / "scan"),
    ):
        refused = station.refusal(new)
        assert isinstance(refused, OverlapError)
        assert refused.details["daq_uid"] == str(held.uid)
    station.start(station.beamline.daq(view / "other"))
    assert isinstance(station.refusal(station.beamline.daq(other)), OverlapError)
    assert station.start(station.beamline.daq(view / "scan", take_over=True)).state is State.PENDING
