"""What every test gets: a clean environment, and databases of both kinds."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from beamkeeper.testing.privileges import ordinary_rights
from beamkeeper.testing.servers import (
    PostgresServer,
    ServerNotAvailableError,
    drop_database,
    fresh_database,
    postgres,
)

REAL_DATA = "BEAMKEEPER_REAL_DATA"
"""A directory of real files for the tests, where somebody has one: no setting of Beamkeeper."""

XDG = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


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
