"""Bringing a backup back: what there is is saved first, and the databases change together or not at all.

Each database changes in one transaction. All three are made ready before the first is committed; a marker stands while
they are, so that after a kill in that moment no service starts on databases of different times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from beamkeeper.config import Settings
from beamkeeper.domain.errors import ConflictError, DmError, NotFoundError, SettingsError
from beamkeeper.domain.status import Service
from beamkeeper.serve import databases

KEY_NAME = "service.key"
MARKER = "restore-unfinished"
"""In the data directory, while the databases may be of different times: holds where they are restored from."""

Say = Callable[[str], None]


def restore(settings: Settings, directory: Path, say: Say) -> None:
    """Bring back what was saved in a directory; what there was is kept in another one."""
    from beamkeeper.db import backup

    files = backup_files(directory)
    for service, path in files.items():
        backup.check(path, service)  # all of them, before anything is made from one of them
    settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    if kept := _keep(settings, say):
        say(f"what was there is kept in {kept}")
    with ExitStack() as all_or_nothing:
        for service, path in files.items():
            url = settings.database_url(service)
            done = all_or_nothing.enter_context(backup.restoring(url, service, path, replace=True))
            say(f"{service}: {done.rows} rows")
        databases.write_private(settings.data_dir / MARKER, f"{directory}\n")
    if (directory / KEY_NAME).exists():
        databases.write_private(settings.service_key_file, (directory / KEY_NAME).read_text())
    (settings.data_dir / MARKER).unlink()


def backup_files(directory: Path) -> dict[Service, Path]:
    """Return the files of a whole backup."""
    files = {service: directory / f"{service}.jsonl.gz" for service in Service}
    if missing := [path for path in files.values() if not path.is_file()]:
        raise NotFoundError(f"{missing[0]} is not there: {directory} is not a whole backup")
    return files


def refuse_unfinished(settings: Settings) -> None:
    """Refuse to start on databases of which some may be restored and others not."""
    try:
        directory = (settings.data_dir / MARKER).read_text().strip()
    except FileNotFoundError:
        return
    raise SettingsError(
        f"a restore was interrupted, and the databases may be of different times: run `dm restore {directory}` again"
    )


def _keep(settings: Settings, say: Say) -> Path | None:
    """Save the databases that a restore replaces, as `dm backup` does; return where, or None where there are none.

    An SQLite file that cannot be saved, since it is damaged or of another version, is moved there as it is.
    """
    occupied = [service for service in Service if not _is_empty(settings, service)]
    if not occupied:
        return None
    kept = settings.data_dir / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    kept.mkdir(mode=0o700)
    from beamkeeper.db import backup

    for service in occupied:
        try:
            with databases.reached(settings, service) as database:
                backup.save(database, service, kept / f"{service}.jsonl.gz")
        except DmError as error:
            moved = _move_away(settings, service, kept)
            if not moved:
                why = f"the database of the {service} service cannot be saved before it is replaced ({error.message})"
                raise ConflictError(f"{why}: name an empty one in the settings") from error
            say(f"{service}: {error.message}; it was moved as it is, not saved")
    if settings.service_key_file.exists():
        databases.write_private(kept / KEY_NAME, settings.service_key_file.read_text())
    return kept


def _is_empty(settings: Settings, service: Service) -> bool:
    from beamkeeper.db import backup

    try:
        return backup.is_empty(settings.database_url(service), service)
    except DmError:
        return False  # what cannot be read is not nothing


def _move_away(settings: Settings, service: Service, to: Path) -> Sequence[Path]:
    """Move the files of an SQLite database away; returns them, none where it is not SQLite."""
    kind, _, path = settings.database_url(service).partition(":///")
    names = (path, f"{path}-wal", f"{path}-shm") if kind.startswith("sqlite") else ()
    return [Path(name).rename(to / os.path.basename(name)) for name in names if os.path.exists(name)]
