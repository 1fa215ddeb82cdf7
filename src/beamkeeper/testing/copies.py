"""A station with further storage areas, and an experiment whose files have copies there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from beamkeeper.client import Client
from beamkeeper.client.fetching import Fetcher, Got
from beamkeeper.client.landing import Landing
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileHistory, FileQuery, ReplicaState
from beamkeeper.domain.names import RelPath, path_fields
from beamkeeper.domain.replicas import ReplicaRequest
from beamkeeper.domain.wipes import EntryState, NewWipe
from beamkeeper.testing.objects import S3
from beamkeeper.testing.station import Station, until
from beamkeeper.testing.stored import writable

States = dict[tuple[str, str], ReplicaState]
"""By the name of the file and of the storage area."""


@dataclass
class Scene:
    """An experiment, and storage areas beside its own: a directory `second`, and perhaps a `bucket`."""

    made: Station
    client: Client
    of: Experiment
    source: Path
    second: Path
    bucket: S3 | None = None

    def write(self, *names: str, size: int = 100) -> Mapping[str, bytes]:
        """Write files at the source, and return what is in them."""
        found = {}
        for name in names:
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            found[name] = os.urandom(size)
            path.write_bytes(found[name])
        return found

    def take(self, *also: str, client: Client | None = None) -> None:
        """Upload what is at the source, with copies in further areas."""
        fields = {"experiment_uid": self.of.uid, **path_fields(os.fsencode(self.source)[1:]), "also": also}
        item = (client or self.client).uploads.start(NewUpload.model_validate(fields))
        ended = self.client.uploads.wait(item.uid, timeout_s=60)
        if ended.state is not State.DONE:
            raise AssertionError(f"the upload is {ended.state}: {ended.message}")

    def states(self, **which: object) -> States:
        """Return what copies there are."""
        found = self.client.replicas.list(self.of.uid, **which)
        return {(os.fsdecode(one.relpath).removeprefix("data/"), one.storage_area): one.state for one in found}

    def until_settled(self, timeout_s: float = 60.0) -> States:
        """Wait until no copy is to be made any more."""

        def look() -> States | None:
            found = self.states()
            return None if ReplicaState.WANTED in found.values() else found

        return until(look, "every copy", timeout_s)

    def wait(self, asked: ReplicaRequest) -> ReplicaRequest:
        """Wait until a request has ended."""
        return self.client.replicas.wait(asked.uid, timeout_s=60)

    def first(self, name: str) -> Path:
        """Return where a file is in the experiment's own area."""
        return self.made.storage / str(self.of.directory) / "data" / name

    def there(self, name: str) -> Path:
        """Return where its copy is in the second area."""
        return self.second / str(self.of.directory) / "data" / name

    def object(self, name: str) -> bytes | None:
        """Return its copy in the bucket."""
        if self.bucket is None:
            return None
        return self.bucket.read(f"copies/{self.of.directory}", RelPath(b"data/" + os.fsencode(name)))

    def history(self, name: str) -> FileHistory:
        """Return all that is known of a file."""
        (file,) = self.client.files.lookup(self.of.uid, [b"data/" + os.fsencode(name)])
        return self.client.files.history(file.uid)

    def forget_readings(self) -> None:
        """Let every reading of copies be a month ago."""
        month = 30 * 86400 * 10**6
        with closing(sqlite3.connect(self.made.data / "catalog.db", timeout=30)) as database, database:
            database.execute("UPDATE verifications SET verified_at = verified_at - ?", (month,))
            database.execute(
                "UPDATE replicas SET verified_at = verified_at - ?, checked_at = checked_at - ?", (month, month)
            )

    def forget_checksums(self) -> None:
        """Let no checksum of any file be known."""
        with closing(sqlite3.connect(self.made.data / "catalog.db", timeout=30)) as database, database:
            database.execute("DELETE FROM checksums")

    def download(self, to: Path) -> list[Got]:
        """Bring the files to a directory, and return what became of each."""
        to.mkdir()
        with Landing(to) as landing:
            fetcher = Fetcher(self.client.downloads, landing, elsewhere=self.client.files.verified_elsewhere)
            files = self.client.files.find(FileQuery(experiment_uid=self.of.uid))
            return [each.got for each in fetcher.fetch_all(files, 1)]

    def not_proven(self) -> Mapping[str, str]:
        """Plan to wipe the source, and return why files are not proven."""
        fields = {**path_fields(os.fsencode(self.source)[1:]), "min_age_hours": 0}
        plan = self.client.wipes.wait(self.client.wipes.plan(NewWipe.model_validate(fields)).uid)
        found = self.client.wipes.entries(plan.uid, EntryState.NOT_PROVEN)
        return {os.path.basename(os.fsdecode(entry.relpath)): str(entry.reason) for entry in found}


def flip(path: Path) -> None:
    """Change one bit of a stored file."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    writable(path).write_bytes(content)
