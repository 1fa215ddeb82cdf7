"""Copies in further storage areas: made beside the first, read again, mended, and dropped but for the last of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from beamkeeper.client import Client
from beamkeeper.client.fetching import Got
from beamkeeper.domain.errors import InvalidError, NotPermittedError
from beamkeeper.domain.files import ReadFrom, ReplicaState
from beamkeeper.domain.inspections import InspectionState, NewAudit, NewScrub
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.replicas import RequestState
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.domain.wipes import Reason
from beamkeeper.plugins.rclone import key_of
from beamkeeper.testing.copies import Scene, flip
from beamkeeper.testing.daemons import account
from beamkeeper.testing.objects import S3
from beamkeeper.testing.remotes import Sshd
from beamkeeper.testing.station import Station, experiment, station

V, SUSPECT, DROPPED = ReplicaState.VERIFIED, ReplicaState.SUSPECT, ReplicaState.DROPPED
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3, ssh_server: Sshd
) -> Iterator[tuple[Station, Client, Path]]:
    top = tmp_path_factory.mktemp("station")
    (second := top / "second").mkdir()
    (config := top / "rclone.conf").touch(mode=0o600)
    config.write_text(s3_server.config.read_text() + remote_by_ssh("cluster", ssh_server, top / "cluster"))
    lines = [f'roots = ["{tmp_path_factory.getbasetemp()}"]', "[wipe]", "patience_s = 1.0"]
    lines += ["[transfer.rclone]", f'config = "{config}"', ""]
    with station(top, settings="\n".join(lines)) as made:
        client = made.start()
        url = s3_server.url("copies")
        client.storage_areas.add(NewStorageArea(name="second", station_url=second.as_uri(), path=str(second)))
        client.storage_areas.add(NewStorageArea(name="bucket", station_url=url, path=url))
        url = "rclone://cluster/copies"
        client.storage_areas.add(NewStorageArea(name="cluster", station_url=url, path=url))
        yield made, client, second


def remote_by_ssh(name: str, server: Sshd, top: Path) -> str:
    """Return a remote of rclone: a directory of a host that is reached by ssh."""
    top.mkdir()
    lines = [
        *(f"[{name}_host]", "type = sftp", "host = 127.0.0.1", f"port = {server.port}", f"user = {account()}"),
        *(f"key_file = {server.key}", f"known_hosts_file = {server.known_hosts}", "shell_type = none", ""),
        *(f"[{name}]", "type = alias", f"remote = {name}_host:{top}", ""),
    ]
    return "\n".join(lines)


@pytest.fixture
def scene(running: tuple[Station, Client, Path], s3_server: S3, tmp_path: Path) -> Scene:
    made, client, second = running
    (source := tmp_path / "detector").mkdir()
    return Scene(made, client, experiment(client, f"e{uuid4().hex[:12]}"), source, second, s3_server)


def test_an_upload_has_its_files_in_a_directory_and_in_a_bucket_too(scene: Scene) -> None:
    wanted = scene.write("a.tif", "scan 1/b\udcff.tif", size=70_000)
    os.symlink("a.tif", scene.source / "link")
    scene.take("second", "bucket")
    found = scene.until_settled()
    assert found.pop(("link", "bucket")) is ReplicaState.FAILED
    assert set(found.values()) == {V}
    assert len(found) == 8
    for name, content in wanted.items():
        assert (scene.there(name).read_bytes(), scene.object(name)) == (content, content)
        assert scene.there(name).stat().st_mode & 0o777 == 0o440
    (bucket,) = (area.uid for area in scene.client.storage_areas.list() if area.name == "bucket")
    first = scene.history("a.tif").file
    assert b"".join(scene.client.downloads.read(first, 3, area_uid=bucket)) == wanted["a.tif"][3:]
    assert os.readlink(scene.there("link")) == "a.tif"
    assert os.listdir(scene.second / scene.of.directory / ".dm/staging") == []
    (refused,) = scene.client.replicas.list(scene.of.uid, state=ReplicaState.FAILED)
    assert "an object store has none" in refused.message
    ledger = scene.history("a.tif").ledger
    assert [row.is_match for row in ledger] == [True] * 3
    by = [row.read_from for row in ledger if row.read_from is not ReadFrom.OTHER_HOST]
    assert len(by) == 2
    assert set(by) <= {ReadFrom.DEVICE, ReadFrom.CACHE}  # the kernel has the last word


def test_another_host_that_is_reached_by_ssh_alone_gets_copies_and_gives_them_back(
    scene: Scene, tmp_path: Path
) -> None:
    shown = scene.client.storage_areas.check("cluster")
    assert shown.is_ok, shown.message
    wanted = scene.write("a.tif", "scan 1/b\udcff.tif", size=70_000)
    scene.take("cluster")
    assert set(scene.until_settled().values()) == {V}
    there = scene.second.parent / "cluster/copies" / scene.of.directory
    for name, content in wanted.items():
        assert (there / "data" / os.fsdecode(key_of(RelPath(os.fsencode(name))))).read_bytes() == content
    assert list((there / ".dm/staging").iterdir()) == []
    (then,) = scene.write("a.tif", size=200).values()
    scene.take("cluster")
    assert (set(scene.until_settled().values()), (there / "data/a.tif").read_bytes()) == ({V}, then)
    assert (there / ".dm/versions/data/a.tif/1").read_bytes() == wanted["a.tif"]
    flip(there / "data/a.tif")
    found = scene.wait(scene.client.replicas.verify(scene.of.uid, "cluster"))
    assert (found.done, found.failed) == (1, 1)
    assert scene.wait(scene.client.replicas.drop(scene.of.uid, "cluster")).done == 2
    assert not (there / "data/a.tif").exists()


def test_a_later_version_replaces_the_one_before_in_every_area(scene: Scene) -> None:
    (first,) = scene.write("a.tif").values()
    scene.take("second", "bucket")
    scene.until_settled()
    (then,) = scene.write("a.tif", size=200).values()
    scene.take("second", "bucket")
    found = scene.until_settled()
    assert (set(found.values()), len(found)) == ({V}, 3)
    kept = scene.second / scene.of.directory / ".dm/versions/data/a.tif/1"
    assert (scene.there("a.tif").read_bytes(), kept.read_bytes()) == (then, first)
    assert scene.object("a.tif") == then

    kept.unlink()  # what is lost is found, and an older version is made anew where older versions are
    asked = scene.wait(scene.client.replicas.verify(scene.of.uid, "second", all_versions=True))
    assert (asked.done, asked.failed) == (1, 1)
    assert scene.wait(scene.client.replicas.drop(scene.of.uid, "second", all_versions=True)).done == 2
    assert not scene.there("a.tif").exists()
    assert scene.wait(scene.client.replicas.add(scene.of.uid, "second")).done == 1
    assert scene.wait(scene.client.replicas.add(scene.of.uid, "second", all_versions=True)).done == 1
    assert (scene.there("a.tif").read_bytes(), kept.read_bytes()) == (then, first)


def test_stored_files_are_copied_and_dropped_in_bulk_and_the_last_verified_copy_stays(scene: Scene) -> None:
    wanted = scene.write(*(f"scan1/{n}.tif" for n in range(40)), "other.tif")
    scene.take()
    replicas, uid = scene.client.replicas, scene.of.uid
    asked = scene.wait(replicas.add(uid, "second", glob="data/scan1/*"))
    assert (asked.state, asked.chosen, asked.done) == (RequestState.DONE, 40, 40)
    assert asked.bytes == 40 * 100
    again = scene.wait(replicas.add(uid, "second"))
    assert (again.chosen, again.there, again.done) == (1, 40, 1)
    assert replicas.request(again.uid) == again

    for name in wanted:
        if name != "scan1/0.tif":
            flip(scene.there(name))
    damaged = scene.wait(replicas.verify(uid, "second"))
    assert (damaged.done, damaged.failed) == (1, 40)
    own = scene.wait(replicas.drop(uid, "main", glob="data/scan1/*"))
    assert (own.done, own.refused) == (0, 40)  # suspect copies are no reason to trust; nor is the own area emptied
    assert all(scene.first(name).read_bytes() == content for name, content in wanted.items())

    dropped = scene.wait(replicas.drop(uid, "second"))
    assert (dropped.chosen, dropped.done, dropped.refused) == (41, 41, 0)
    assert not any(scene.there(name).exists() for name in wanted)
    assert set(scene.states(storage_area="second").values()) == {DROPPED}
    last = scene.history("other.tif").ledger[-1]
    assert (last.message, last.is_match) == ("it was dropped", False)
    assert "for root" in last.by
    assert scene.wait(replicas.add(uid, "second")).done == 41
    assert set(scene.states().values()) == {V}


def test_a_damaged_first_copy_is_mended_and_downloaded_from_the_second(scene: Scene, tmp_path: Path) -> None:
    (content,) = scene.write("a.tif").values()
    scene.take("second")
    scene.until_settled()
    flip(scene.first("a.tif"))
    replicas, uid = scene.client.replicas, scene.of.uid
    asked = scene.wait(replicas.verify(uid, "main"))
    assert (asked.done, asked.failed) == (0, 1)
    assert scene.states() == {("a.tif", "main"): SUSPECT, ("a.tif", "second"): V}
    refused = scene.wait(replicas.drop(uid, "second"))
    assert (refused.done, refused.refused) == (0, 1)
    assert "the last copies" in refused.message
    assert scene.there("a.tif").read_bytes() == content
    (file,) = scene.client.files.lookup(uid, [b"data/a.tif"])
    assert file.is_verified
    assert scene.download(tmp_path / "one") == [Got.GOT]
    scene.first("a.tif").unlink()
    assert scene.download(tmp_path / "two") == [Got.GOT]
    assert [(tmp_path / name / "data/a.tif").read_bytes() for name in ("one", "two")] == [content, content]

    assert scene.wait(replicas.drop(uid, "main")).done == 1
    audit = scene.client.audits.wait(scene.client.audits.start(NewAudit(experiment_uid=uid)).uid)
    assert (audit.dark, audit.lost, audit.catalogued) == (0, 0, 1)  # it is known to be gone
    assert scene.wait(replicas.add(uid, "main")).done == 1
    assert scene.first("a.tif").read_bytes() == content
    assert set(scene.states().values()) == {V}


def test_a_copy_that_rotted_unseen_is_no_reason_to_drop_the_other(scene: Scene) -> None:
    (content,) = scene.write("a.tif").values()
    scene.take("bucket")
    scene.until_settled()
    scene.forget_readings()
    flip(scene.first("a.tif"))
    asked = scene.wait(scene.client.replicas.drop(scene.of.uid, "bucket"))
    assert (asked.done, asked.refused) == (0, 1)
    assert scene.object("a.tif") == content
    assert scene.states()["a.tif", "main"] is SUSPECT


def test_scrubs_and_wipes_count_the_copies_that_are_there(scene: Scene) -> None:
    scene.write("a.tif", "b.tif")
    scene.take("second")
    scene.until_settled()
    scrub = scene.client.scrubs.wait(
        scene.client.scrubs.start(NewScrub(experiment_uid=scene.of.uid, older_than_s=0)).uid
    )
    assert (scrub.state, scrub.files, scrub.matched) == (InspectionState.DONE, 4, 4)
    flip(scene.first("a.tif"))
    scene.wait(scene.client.replicas.verify(scene.of.uid))
    assert scene.not_proven() == {}
    flip(scene.there("a.tif"))
    scene.wait(scene.client.replicas.verify(scene.of.uid))
    assert scene.not_proven() == {"a.tif": Reason.SUSPECT}


def test_only_managers_say_where_copies_are_and_members_see_them(scene: Scene) -> None:
    scene.write("a.tif")
    scene.take("second")
    scene.until_settled()
    client = scene.client
    for name, role in (("pia", Role.PI), ("mara", Role.STATION_MANAGER)):
        username = f"{name}{uuid4().hex[:6]}"
        client.users.create(NewUser(username=username, password=PASSWORD))
        member = Client(client.url, username=username, password=PASSWORD, station="TEST", logins=scene.made.logins)
        if role is Role.PI:
            client.experiments.add_user(scene.of.uid, username, role)
            assert [one.storage_area for one in member.replicas.list(scene.of.uid)] == ["main", "second"]
            for ask in (member.replicas.add, member.replicas.drop, member.replicas.verify):
                with pytest.raises(NotPermittedError):
                    ask(scene.of.uid, "second")
            with pytest.raises(NotPermittedError, match="copies in other storage areas"):
                scene.take("second", client=member)
        else:
            client.users.grant(NewGrant(username=username, role=role, station_uid=scene.of.station_uid))
            assert scene.wait(member.replicas.add(scene.of.uid, "second")).there == 1
            with pytest.raises(InvalidError, match="own storage area"):
                scene.take("main", client=member)
        member.close()
