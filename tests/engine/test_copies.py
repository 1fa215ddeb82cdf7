"""Removing copies, by the storage's own thread: what never was there, and what is being published meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pytest
from blake3 import blake3

from beamkeeper.db.base import new_uid
from beamkeeper.db.copies import CopyWork
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.replicas import Copy, NewCopy, NewCopyItem
from beamkeeper.domain.storage import NewPublish, NewPublishItem, NewStorageArea, Outcome, StorageArea, TaskState
from beamkeeper.engine.copies import CopyLane
from beamkeeper.plugins.rclone import Rclone, RcloneOptions
from beamkeeper.testing.services import Running, running

PATH, CONTENT = to_b64(b"data/a"), b"frame"
CHECKSUMS = (Checksum(algorithm=Algorithm.BLAKE3, value=blake3(CONTENT).hexdigest()),)


@dataclass
class Site:
    """A storage service with an experiment, and a further area that has nothing of it."""

    running: Running
    of: Experiment
    further: StorageArea

    @property
    def own(self) -> StorageArea:
        with self.running.database.read() as tx:
            found: StorageArea = tx.storage.get(self.of.storage_area_uid)
        return found

    def remove(self, area: StorageArea) -> Copy:
        """Have data/a removed from an area, in one step of its thread."""
        client = self.running.as_service()
        item = NewCopyItem(
            path_b64=PATH,
            version_uid=new_uid(),
            number=1,
            size=len(CONTENT),
            checksums=CHECKSUMS,
            is_plain=True,
            is_ours=True,
        )
        new = NewCopy(uid=new_uid(), experiment_uid=self.of.uid, storage_area_uid=area.uid, items=(item,))
        client.copies.request(new)
        rclone = Rclone(RcloneOptions())
        lane = CopyLane(self.running.database, area, publishing=Lock(), report=lambda _: None, rclone=rclone)
        try:
            lane.step()
        finally:
            lane.ended()
        found: Copy = client.copies.get(new.uid)
        return found

    def publish(self) -> None:
        """Ask for data/a to be published; nobody does it."""
        item = NewPublishItem(path_b64=PATH, version_uid=new_uid(), number=2, size=len(CONTENT), checksums=CHECKSUMS)
        with self.running.database.write() as tx:
            tx.publishes.add(NewPublish(uid=new_uid(), experiment_uid=self.of.uid, items=(item,)))

    def put(self, area: StorageArea) -> Path:
        path = Path(area.path) / self.of.directory / "data" / "a"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        return path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (further := tmp_path / "further").mkdir()
    with running(directory=tmp_path) as made:
        new = NewExperiment(name="coffee", station=made.settings.station.name)
        of = made.client.experiments.create(new)
        area = NewStorageArea(name="further", station_url=further.as_uri(), path=str(further))
        yield Site(made, of, made.client.storage_areas.add(area))


def test_what_never_came_to_an_area_is_removed_without_waiting_for_a_directory_that_nobody_makes(site: Site) -> None:
    removed = site.remove(site.further)
    assert (removed.state, [one.outcome for one in removed.items]) == (TaskState.DONE, [Outcome.REMOVED])


def test_where_a_directory_was_made_and_is_gone_a_removal_waits_for_its_mount(site: Site) -> None:
    with site.running.database.write() as tx:
        tx.copies.mark_made(CopyWork(0, new_uid(), site.of.uid, site.further.uid, None, 0, ()))
    waits = site.remove(site.further)
    assert (waits.state, waits.trouble, waits.items) == (TaskState.PENDING, "unreachable", ())


def test_what_is_published_holds_up_removals_in_its_own_area_alone(site: Site) -> None:
    site.publish()
    further, own = site.put(site.further), site.put(site.own)
    assert [one.outcome for one in site.remove(site.further).items] == [Outcome.REMOVED]
    assert not further.exists()
    put_off = site.remove(site.own)  # and is asked anew: a later version may have the name by then
    assert (put_off.state, [one.outcome for one in put_off.items]) == (TaskState.DONE, [Outcome.FAILED])
    assert own.read_bytes() == CONTENT
