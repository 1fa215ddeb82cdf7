"""Whole deliveries over the network, on real servers: nothing lost, nothing changed, and lies found out."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewDaq, NewUpload, State
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery, ReplicaState
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.replicas import ListedReplica
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.testing.conformance import HOSTILE_NAMES
from beamkeeper.testing.daemons import account
from beamkeeper.testing.grid import USER, Authority, GridFTP, gsi_gridftp
from beamkeeper.testing.objects import S3
from beamkeeper.testing.remotes import Sshd
from beamkeeper.testing.servers import ServerNotAvailableError
from beamkeeper.testing.station import station, until


@pytest.fixture
def grid_server(authority: Authority) -> Iterator[GridFTP]:
    """A GridFTP server that writes as the storage service does."""
    try:
        with gsi_gridftp(authority, common_name=USER, acts_as=account()) as server:
            yield server
    except ServerNotAvailableError as error:
        pytest.skip(str(error))


def experiment_at(client: Client, name: str, url: str, path: Path, transfer: str = "") -> Experiment:
    """Make a storage area that is reached by a URL, and an experiment in it."""
    path.mkdir(exist_ok=True)
    area = client.storage_areas.add(NewStorageArea(name=name, station_url=url, path=str(path), transfer=transfer))
    return client.experiments.create(NewExperiment(name=name, station="TEST", storage_area_uid=area.uid))


def detector(directory: Path, files: int) -> Mapping[bytes, bytes]:
    """Write files as detectors and people do; return what is to be found in storage."""
    names = [b"frame_%05d.tif" % number for number in range(files)] + [n for n in HOSTILE_NAMES if len(n) < 200]
    wanted = {}
    for number, name in enumerate(names):
        content = os.urandom(number * 37 % 20_000)
        where = os.path.join(os.fsencode(directory), b"scan %d" % (number % 3), name)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "wb") as file:
            file.write(content)
        wanted[b"data/scan %d/" % (number % 3) + name] = content
    return wanted


def upload(client: Client, of: Experiment, directory: Path, *also: str) -> Acquisition:
    new = NewUpload(experiment_uid=of.uid, path_b64=path_fields(os.fsencode(directory)[1:])["path_b64"], also=also)
    return client.uploads.start(new)


def stored(client: Client, of: Experiment, root: Path) -> dict[bytes, bytes]:
    """What the catalogue has as verified, with the bytes that stand in storage."""
    found = {}
    for file in client.files.find(FileQuery(experiment_uid=of.uid)):
        assert file.is_verified
        with open(os.path.join(os.fsencode(root / of.directory), file.relpath), "rb") as opened:
            found[bytes(file.relpath)] = opened.read()
    return found


@dataclass(frozen=True)
class Far:
    """The servers that a station delivers to, and its settings for them."""

    ssh: Sshd
    grid: GridFTP
    bucket: S3
    settings: str


@pytest.fixture
def far(ssh_server: Sshd, grid_server: GridFTP, s3_server: S3, authority: Authority, badge: Path) -> Far:
    lines = [
        *("[transfer.rclone]", f'config = "{s3_server.config}"'),
        *("[transfer.rsync]", f'key_file = "{ssh_server.key}"', f'known_hosts = "{ssh_server.known_hosts}"'),
        *("[transfer.grid]", 'plugin = "gridftp"', f'proxy_file = "{badge}"', f'ca_dir = "{authority.trusted}"', ""),
    ]
    return Far(ssh_server, grid_server, s3_server, "\n".join(lines))


def stagings(root: Path, of: Experiment) -> list[str]:
    return os.listdir(root / of.directory / ".dm/staging")


def objects_at(client: Client, bucket: S3, prefix: str) -> Experiment:
    url = bucket.url(prefix)
    area = client.storage_areas.add(NewStorageArea(name="objects", station_url=url, path=url))
    return client.experiments.create(NewExperiment(name="objects", station="TEST", storage_area_uid=area.uid))


def stored_objects(client: Client, of: Experiment, bucket: S3, prefix: str) -> dict[bytes, bytes | None]:
    files = list(client.files.find(FileQuery(experiment_uid=of.uid)))
    assert all(file.is_verified for file in files)
    return {bytes(file.relpath): bucket.read(f"{prefix}/{of.directory}", file.relpath) for file in files}


def checked(client: Client, name: str) -> None:
    """A probe goes by the real transport, is read back where the storage is, and leaves nothing."""
    sent = client.probes.send(name)
    assert sent.probe is not None, sent.message
    shown = client.storage_areas.read_probe(name, sent.probe)
    assert shown.is_ok, shown.message
    again = client.storage_areas.read_probe(name, sent.probe)
    assert not again.is_ok


def got_back(client: Client, of: Experiment, wanted: Mapping[bytes, bytes]) -> None:
    """What lies in a bucket is got like every other file: whole, from anywhere on, and as one archive."""
    files = {bytes(file.relpath): file for file in client.files.find(FileQuery(experiment_uid=of.uid))}
    largest = max(files.values(), key=lambda file: file.size)
    content = wanted[bytes(largest.relpath)]
    assert b"".join(client.downloads.read(largest)) == content
    assert b"".join(client.downloads.read(largest, 7)) == content[7:]
    made = client.downloads.freeze(of.uid, "all", iter(files.values()))
    whole = b"".join(client.downloads.archive(made.uid))
    with tarfile.open(fileobj=io.BytesIO(whole), errors="surrogateescape") as tar:
        found = {os.fsencode(one.name): (tar.extractfile(one) or io.BytesIO()).read() for one in tar}
    assert found == {b"all/" + name: content for name, content in wanted.items()}
    assert b"".join(client.downloads.archive(made.uid, 100_001)) == whole[100_001:]


@contextmanager
def delivering(tmp_path: Path, far: Far) -> Iterator[tuple[Client, Mapping[Path, Experiment], Experiment]]:
    """Give a station with an experiment at each server: those whose files stand below a directory, and the bucket's."""
    by_rsync, by_grid = tmp_path / "rsync", tmp_path / "grid"
    with station(tmp_path, settings=far.settings) as made:
        client = made.start()
        of = {
            by_rsync: experiment_at(client, "rsync", far.ssh.url(by_rsync), by_rsync),
            by_grid: experiment_at(client, "grid", far.grid.url(by_grid), by_grid, "grid"),
        }
        objects = objects_at(client, far.bucket, tmp_path.name)
        for name in ("rsync", "grid", "objects"):
            checked(client, name)
        yield client, of, objects


def copied(client: Client, of: Experiment, area: str, root: Path) -> dict[bytes, bytes]:
    """Return the copies of an experiment in a further storage area, once all of them are made and verified."""

    def look() -> Sequence[ListedReplica] | None:
        found = list(client.replicas.list(of.uid, storage_area=area))
        return None if any(one.state is ReplicaState.WANTED for one in found) else found

    found = until(look, f"the copies in {area}")
    assert {one.state for one in found} == {ReplicaState.VERIFIED}
    where = os.fsencode(root / of.directory)
    return {bytes(one.relpath): Path(os.fsdecode(os.path.join(where, one.relpath))).read_bytes() for one in found}


def test_an_upload_goes_by_rsync_gridftp_and_s3_with_no_difference_and_has_copies_in_areas_of_those(
    tmp_path: Path, far: Far
) -> None:
    (source := tmp_path / "detector").mkdir()
    wanted = detector(source, 100)
    also = {"rsync": "grid", "grid": "rsync", "objects": "rsync"}
    with delivering(tmp_path, far) as (client, of, objects):
        for experiment in (*of.values(), objects):
            item = upload(client, experiment, source, also[experiment.name])
            assert client.uploads.wait(item.uid, timeout_s=100).state is State.DONE
        for root, experiment in of.items():
            assert stored(client, experiment, root) == wanted
            until(lambda root=root, of=experiment: not stagings(root, of), "empty staging")  # type: ignore[misc]
        assert stored_objects(client, objects, far.bucket, tmp_path.name) == wanted
        got_back(client, objects, wanted)
        for experiment in (*of.values(), objects):
            assert copied(client, experiment, also[experiment.name], tmp_path / also[experiment.name]) == wanted


@pytest.mark.long
def test_a_daq_of_a_thousand_files_goes_by_rsync_gridftp_and_s3_with_no_difference(tmp_path: Path, far: Far) -> None:
    with delivering(tmp_path, far) as (client, of, objects):
        wanted = {}
        for experiment in (*of.values(), objects):
            (source := tmp_path / f"detector of {experiment.name}").mkdir()
            fields = path_fields(os.fsencode(source)[1:])
            daq = client.daqs.start(NewDaq.model_validate({"experiment_uid": experiment.uid, **fields}))
            wanted[experiment.uid] = detector(source, 1000)
            client.daqs.stop(daq.uid)
            ended = client.daqs.wait(daq.uid, timeout_s=300)
            assert (ended.state, ended.message) == (State.DONE, f"{len(wanted[experiment.uid])} available")
        for root, experiment in of.items():
            assert stored(client, experiment, root) == wanted[experiment.uid]
        assert stored_objects(client, objects, far.bucket, tmp_path.name) == wanted[objects.uid]


LIAR = """\
#!/bin/sh
[ "$1" = --version ] && exec rsync --version
if [ -e '{mark}' ]; then exec rsync "$@"; fi
touch '{mark}'
exit 0
"""


def test_an_rsync_that_says_all_is_well_and_has_sent_nothing_is_found_out(tmp_path: Path, ssh_server: Sshd) -> None:
    source, far, mark, liar = (tmp_path / name for name in ("detector", "far", "has-lied", "liar"))
    source.mkdir()
    wanted = detector(source, 3)
    liar.write_text(LIAR.format(mark=mark))
    liar.chmod(0o755)
    lines = [f'key_file = "{ssh_server.key}"', f'known_hosts = "{ssh_server.known_hosts}"', f'rsync = "{liar}"']
    with station(tmp_path, settings="\n".join(["[transfer.rsync]", *lines, ""])) as made:
        client = made.start()
        of = experiment_at(client, "far", ssh_server.url(far), far)
        item = client.uploads.wait(upload(client, of, source).uid, timeout_s=40)
        assert (item.state, mark.exists()) == (State.DONE, True)
        assert stored(client, of, far) == wanted


def test_a_check_from_the_station_says_what_is_wrong(tmp_path: Path, ssh_server: Sshd) -> None:
    lines = ["[transfer.rsync]", f'key_file = "{ssh_server.key}"', f'known_hosts = "{ssh_server.known_hosts}"', ""]
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with station(tmp_path, settings="\n".join(lines)) as made:
        client = made.start()
        experiment_at(client, "split", ssh_server.url(elsewhere), here)
        locked = tmp_path / "locked"
        experiment_at(client, "locked", ssh_server.url(locked).replace("127.0.0.1", "localhost"), locked)
        experiment_at(client, "absent", "file:///no/such/mount", tmp_path / "absent")
        sent = client.probes.send("split")
        assert sent.probe is not None
        assert "not the same place" in client.storage_areas.read_probe("split", sent.probe).message
        refused = client.probes.send("locked")
        assert (refused.probe, "host key" in refused.message.lower()) == (None, True), refused.message
        assert "mounted on the station" in client.probes.send("absent").message
