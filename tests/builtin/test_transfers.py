"""Every shipped transfer passes the suite of conformance on its real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamkeeper.builtin.gridftp import GridFTPOptions, GridFTPTransfer
from beamkeeper.builtin.rclone import RcloneTransfer, RcloneTransferOptions
from beamkeeper.builtin.rsync import RsyncOptions, RsyncTransfer
from beamkeeper.plugins.api import Transfer
from beamkeeper.testing.conformance import Place, TransferConformance
from beamkeeper.testing.daemons import servant
from beamkeeper.testing.grid import Authority, GridFTP
from beamkeeper.testing.objects import S3, ObjectPlace
from beamkeeper.testing.remotes import RemotePlace, RsyncDaemon, Sshd


def given_to(place: RemotePlace, experiment: Path) -> RemotePlace:
    """Give an experiment's directory to the account that a server acts as."""
    for directory in (experiment, *(path for path in experiment.rglob("*") if path.is_dir())):
        os.chown(directory, servant().pw_uid, servant().pw_gid)
    return place


class TestRsyncOverSsh(TransferConformance):
    is_flat = True

    @pytest.fixture
    def transfer(self, ssh_server: Sshd) -> Transfer:
        return RsyncTransfer(RsyncOptions(key_file=ssh_server.key, known_hosts=ssh_server.known_hosts))

    @pytest.fixture
    def place(self, tmp_path: Path, ssh_server: Sshd) -> Place:
        experiment = tmp_path / "100% experiment#1"
        return RemotePlace(experiment, ssh_server.url(experiment))


class TestRsyncDaemon(TransferConformance):
    is_flat = True

    @pytest.fixture
    def transfer(self, rsync_server: RsyncDaemon) -> Transfer:
        return RsyncTransfer(RsyncOptions(password_file=rsync_server.password_file))

    @pytest.fixture
    def place(self, tmp_path: Path, rsync_server: RsyncDaemon) -> Place:
        experiment = rsync_server.root / tmp_path.name
        return RemotePlace(experiment, rsync_server.url(experiment))


class TestAnonymousGridFTP(TransferConformance):
    is_flat = True

    @pytest.fixture
    def transfer(self) -> Transfer:
        return GridFTPTransfer(GridFTPOptions())

    @pytest.fixture
    def place(self, open_to_all: Path, ftp_server: GridFTP) -> Place:
        experiment = open_to_all / "100% experiment#1"
        return given_to(RemotePlace(experiment, ftp_server.url(experiment)), experiment)


class TestGridFTP(TransferConformance):
    is_flat = True

    @pytest.fixture
    def transfer(self, authority: Authority, badge: Path) -> Transfer:
        return GridFTPTransfer(GridFTPOptions(proxy_file=badge, ca_dir=authority.trusted))

    @pytest.fixture
    def place(self, open_to_all: Path, gsi_server: GridFTP) -> Place:
        experiment = open_to_all / "experiment"
        return given_to(RemotePlace(experiment, gsi_server.url(experiment)), experiment)


@pytest.fixture(scope="module")
def rclone(s3_server: S3) -> Iterator[RcloneTransfer]:
    made = RcloneTransfer(RcloneTransferOptions(config=s3_server.config))
    yield made
    made.close()


class TestRclone(TransferConformance):
    is_flat = True

    @pytest.fixture
    def transfer(self, rclone: RcloneTransfer) -> Transfer:
        return rclone

    @pytest.fixture
    def place(self, tmp_path: Path, s3_server: S3) -> Place:
        return ObjectPlace(s3_server, tmp_path.name)
