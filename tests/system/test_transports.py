"""Whole deliveries over the network, on real servers: nothing lost, nothing changed, and lies found out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewUpload, State
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.testing.conformance import HOSTILE_NAMES
from beamkeeper.testing.daemons import account
from beamkeeper.testing.grid import USER, Authority, GridFTP, gsi_gridftp
from beamkeeper.testing.remotes import Sshd
from beamkeeper.testing.servers import ServerNotAvailableError
from beamkeeper.testing.station import Station, station, until


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
    names = [b"frame_%05d.tif" % number for number in range(files)] + list(HOSTILE_NAMES)
    wanted = {}
    for number, name in enumerate(names):
        content = os.urandom(number * 37 % 20_000)
        where = os.path.join(os.fsencode(directory), b"scan %d" % (number % 3), name)
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with open(where, "wb") as file:
            file.write(content)
        wanted[b"data/scan %d/" % (number % 3) + name] = content
    return wanted


def upload(client: Client, of: Experiment, directory: Path) -> Acquisition:
    new = NewUpload(experiment_uid=of.uid, path_b64=path_fields(os.fsencode(directory)[1:])["path_b64"])
    return client.uploads.start(new)


def stored(client: Client, of: Experiment, root: Path) -> dict[bytes, bytes]:
    """What the catalogue has as verified, with the bytes that stand in storage."""
    found = {}
    for file in client.files.find(FileQuery(experiment_uid=of.uid)):
        assert file.is_verified
        with open(os.path.join(os.fsencode(root / of.directory), file.relpath), "rb") as opened:
            found[bytes(file.relpath)] = opened.read()
    return found


def settings(ssh: Sshd, authority: Authority, badge: Path) -> str:
    return "\n".join(
        [
            *("[transfer.rsync]", f'key_file = "{ssh.key}"', f'known_hosts = "{ssh.known_hosts}"'),
            *("[transfer.grid]", 'plugin = "gridftp"', f'proxy_file = "{badge}"', f'ca_dir = "{authority.trusted}"'),
            "",
        ]
    )


def stagings(made: Station, root: Path, of: Experiment) -> list[str]:
    return os.listdir(root / of.directory / ".dm/staging")


def deliver(tmp_path: Path, files: int, ssh: Sshd, grid: GridFTP, options: str) -> None:
    source, far, farther = tmp_path / "detector", tmp_path / "far", tmp_path / "farther"
    source.mkdir()
    wanted = detector(source, files)
    with station(tmp_path, settings=options) as made:
        client = made.start()
        of = {
            far: experiment_at(client, "far", ssh.url(far), far),
            farther: experiment_at(client, "farther", grid.url(farther), farther, "grid"),
        }
        items = {root: upload(client, experiment, source) for root, experiment in of.items()}
        for root, item in items.items():
            assert client.uploads.wait(item.uid, timeout_s=60).state is State.DONE
            assert stored(client, of[root], root) == wanted
            until(lambda root=root: not stagings(made, root, of[root]), "empty staging")  # type: ignore[misc]


def test_an_upload_goes_by_rsync_and_gridftp_with_no_difference(
    tmp_path: Path, ssh_server: Sshd, grid_server: GridFTP, authority: Authority, badge: Path
) -> None:
    deliver(tmp_path, 100, ssh_server, grid_server, settings(ssh_server, authority, badge))


@pytest.mark.long
def test_a_thousand_files_go_by_rsync_and_gridftp_with_no_difference(
    tmp_path: Path, ssh_server: Sshd, grid_server: GridFTP, authority: Authority, badge: Path
) -> None:
    deliver(tmp_path, 1000, ssh_server, grid_server, settings(ssh_server, authority, badge))


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
