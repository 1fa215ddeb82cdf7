"""What an operator does to the databases of this machine, beside the services: backup, restore, upgrade, copy."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from beamkeeper import config
from beamkeeper.config import Settings
from beamkeeper.core import bootstrap
from beamkeeper.db import backup, upgrade
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.status import Service
from beamkeeper.engine.supervise import find_running
from beamkeeper.serve import databases, restoring
from beamkeeper.serve.restoring import KEY_NAME

SETTINGS_NAME = "beamkeeper.toml"


def run(options: argparse.Namespace) -> int:
    """Run one of the commands and return the exit status."""
    overrides = {"data_dir": str(options.data)} if options.data else None
    loaded = config.load(options.config, overrides=overrides)
    settings = loaded.settings
    if options.command == "backup":
        _backup(settings, options.directory, loaded.file)
    elif options.command == "restore":
        _restore(settings, options.directory, loaded.file)
    elif options.command == "db-upgrade":
        _upgrade(settings)
    elif options.command == "db-copy":
        _copy(settings, config.load(options.to).settings)
    else:
        _session(settings)
        _say(f"left in {settings.data_dir / databases.FIRST_SESSION}")
    return 0


def _say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")


def _refuse_running(settings: Settings) -> None:
    if find_running(settings.data_dir):
        raise ConflictError(f"a beamline runs on {settings.data_dir}: stop it with `dm down` first")


def _backup(settings: Settings, directory: Path, file: Path | None) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise InvalidError(f"{directory} is not empty: a backup goes into a new directory")
    for service in Service:
        with databases.reached(settings, service) as database:
            done = backup.save(database, service, directory / f"{service}.jsonl.gz")
        _say(f"{service}: {done.rows} rows")
    if settings.service_key_file.exists():
        databases.write_private(directory / KEY_NAME, settings.service_key_file.read_text())
    if file is not None:
        databases.write_private(directory / SETTINGS_NAME, file.read_text())
    _say(f"saved to {directory}; it holds the service key: keep it where only you can read")


def _restore(settings: Settings, directory: Path, file: Path | None) -> None:
    _refuse_running(settings)
    restoring.restore(settings, directory, _say)
    saved = directory / SETTINGS_NAME
    if file is None and saved.exists():
        _say(f"no file of settings is in use here; the one that was in use is {saved}")
    else:
        # Logins that are younger than the backup are not in it: whoever runs the beamline gets a new one.
        with suppress(NotFoundError):  # this account has none in there: somebody logs in by password
            _session(settings)
    _say(f"restored to {settings.data_dir}")


def _upgrade(settings: Settings) -> None:
    _refuse_running(settings)
    settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    for service in Service:
        upgrade.upgrade(settings.database_url(service), service)
        _say(f"{service}: has this version's schema")


def _copy(settings: Settings, to: Settings) -> None:
    _refuse_running(settings)
    for service in Service:
        done = backup.copy(settings.database_url(service), to.database_url(service), service)
        _say(f"{service}: {done.rows} rows copied")


def _session(settings: Settings) -> None:
    with databases.reached(settings, Service.STORAGE) as database, database.write() as tx:
        databases.write_session(settings, bootstrap.operator_session(tx, settings))
