"""What every test gets: a clean environment, and databases of both kinds."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from beamkeeper.testing.file_systems import ext4
from beamkeeper.testing.grid import USER, Authority, GridFTP, anonymous_gridftp, gsi_gridftp
from beamkeeper.testing.grid_engine import GridEngine, grid_engine
from beamkeeper.testing.nursery import Nursery
from beamkeeper.testing.objects import S3, s3
from beamkeeper.testing.oidc import OidcServer, oidc_provider
from beamkeeper.testing.privileges import ordinary_rights
from beamkeeper.testing.remotes import RsyncDaemon, Sshd, rsync_daemon, sshd
from beamkeeper.testing.servers import (
    PostgresServer,
    ServerNotAvailableError,
    drop_database,
    fresh_database,
    postgres,
)
from beamkeeper.testing.slapd import Slapd, slapd
from beamkeeper.testing.slurm import Slurm, slurm
from beamkeeper.testing.station import usually

REAL_DATA = "BEAMKEEPER_REAL_DATA"
"""A directory of real files for the tests, where somebody has one: no setting of Beamkeeper."""

XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


T = TypeVar("T")

IN_CI = os.environ.get("CI", "").lower() == "true"
"""Whether this run may skip nothing; asked once, since a test may change its environment."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure in CI: what is skipped there would be tested nowhere."""
    report = yield
    is_excused = "no real files" in str(report.longrepr)  # they are nobody's to commit
    if report.skipped and not hasattr(report, "wasxfail") and IN_CI and not is_excused:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and with CI=true nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Show what keeps the process where it does not end after the last test, and end it."""
    faulthandler.dump_traceback_later(120, file=sys.__stderr__ or sys.stderr, exit=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a directory together, in whatever order: what they share is started once then."""
    places: dict[Path, int] = {}
    for item in items:
        places.setdefault(item.path.parent, len(places))
    items.sort(key=lambda item: places[item.path.parent])


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[Nursery]:
    """Start stations without waiting for Python's imports each time."""
    with Nursery() as made, usually(made.spawn_where_alike):
        yield made


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the developer's own settings out, and the tests out of the developer's home; return the home they get."""
    for name in list(os.environ):
        if name.startswith("BEAMKEEPER_") and name != REAL_DATA:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in XDG:
        directory = home / name.lower()
        directory.mkdir(mode=0o700)
        monkeypatch.setenv(name, str(directory))
    return home


@pytest.fixture
def as_anybody() -> Iterator[None]:
    """The mode of a file binds the test even where root runs it."""
    with ordinary_rights():
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run, started when the first test asks for it."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres())
        except ServerNotAvailableError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def slapd_server() -> Iterator[Slapd]:
    """An OpenLDAP for the whole run, started when the first test asks for it."""
    pytest.importorskip("ldap", reason="pip install python-ldap")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(slapd())
        except ServerNotAvailableError as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture
def directory_server(slapd_server: Slapd) -> Slapd:
    """A directory server that answers and has nobody in it."""
    slapd_server.empty()
    return slapd_server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    url = fresh_database(postgres_server)
    yield url
    drop_database(postgres_server, url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: the test runs on SQLite and again on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgres_url"))


def _running(server: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(server())
        except ServerNotAvailableError as error:
            pytest.skip(str(error))
        yield started


@pytest.fixture(scope="session")
def oidc_server() -> Iterator[OidcServer]:
    """An OpenID Connect provider for the whole run, installed and started when the first test asks for it."""
    yield from _running(oidc_provider)


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[Sshd]:
    yield from _running(sshd)


@pytest.fixture(scope="session")
def rsync_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RsyncDaemon]:
    root = tmp_path_factory.mktemp("rsync")
    yield from _running(lambda: rsync_daemon(root))


@pytest.fixture(scope="session")
def ftp_server() -> Iterator[GridFTP]:
    yield from _running(anonymous_gridftp)


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """A certificate authority, in a place that servers may read which act as another account."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-ca-") as made:
        Path(made).chmod(0o755)
        try:
            yield Authority(Path(made))
        except ServerNotAvailableError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def badge(authority: Authority) -> Path:
    """A short-lived credential of the user whom GridFTP lets in."""
    return authority.proxy(USER)


@pytest.fixture(scope="session")
def gsi_server(authority: Authority) -> Iterator[GridFTP]:
    yield from _running(lambda: gsi_gridftp(authority, common_name=USER))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    yield from _running(s3)


@pytest.fixture(scope="session")
def slurm_server() -> Iterator[Slurm]:
    """A Slurm for the whole run, started when the first test asks for it."""
    yield from _running(slurm)


@pytest.fixture(scope="session")
def grid_engine_server() -> Iterator[GridEngine]:
    """A Grid Engine for the whole run, started when the first test asks for it."""
    yield from _running(grid_engine)


@pytest.fixture
def ext4_directory() -> Iterator[Path]:
    """A directory on a real ext4, which other accounts may enter."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(ext4())
        except ServerNotAvailableError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that servers may enter which act as another account: pytest closes its own to them."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-test-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
