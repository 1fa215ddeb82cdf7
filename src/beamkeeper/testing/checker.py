"""The checker of the campaign of faults: holds the invariants from the outside, after each trial.

It believes nobody: it reads the source, what the writers say, every byte of the storage, the catalogue and the
journal through the interface, and the catalogue's database for rows that the interface would not show twice.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from uuid import UUID

from blake3 import blake3

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import LISTED, UNCHANGED, Acquisition, JournalEntry, JournalState
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File, FileKind, FileQuery, Version
from beamkeeper.domain.names import Checksum, from_b64, show_path
from beamkeeper.testing.truth import Truth

ROUNDING_S = 0.001


class Harm(StrEnum):
    """What may be wrong after a trial; the columns of the report."""

    LOST = "lost"
    """A finished file is neither stored nor listed with a reason (I3)."""
    CORRUPT = "corrupt"
    """A plain name holds bytes that are not those of its version (I1, I6)."""
    FALSE_COMPLETE = "false-complete"
    """Something is called stored or verified that is not, or was taken while it was written (I2, I5, I7)."""
    DUPLICATE = "duplicate"
    """One content of one path is there more than once (I4)."""
    DARK = "dark"
    """Bytes that no row knows, or what was left of a batch."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    harm: Harm
    path: bytes
    why: str

    def __str__(self) -> str:
        """The finding on one line."""
        return f"{self.harm}: {show_path(self.path)}: {self.why}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands at a path: the digest of a file, or the target of a link."""

    digest: str
    size: int
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """One version of a file, as the catalogue has it."""

    number: int
    uid: UUID
    digest: str
    size: int
    is_snapshot: bool
    transferred_at: datetime

    @classmethod
    def of(cls, known: File | Version, number: int) -> Taken:
        """Return it from either model."""
        uid = known.version_uid if isinstance(known, File) else known.uid
        return cls(number, uid, digest_of(known.checksums), known.size, known.is_snapshot, known.transferred_at)


@dataclass(slots=True)
class Scene:
    """What a trial left behind, and where."""

    client: Client
    experiment: Experiment
    acquisitions: Sequence[Acquisition]
    source: Path
    storage: Path
    """The experiment's directory."""
    truth: Truth = field(default_factory=Truth)
    database: Path | None = None
    """The catalogue's database, where it is SQLite."""
    is_clock_true: bool = True
    """The services' clock was the writers' clock."""
    foreign: frozenset[bytes] = frozenset()
    """Paths below the experiment that somebody else has put there."""


def check(scene: Scene) -> list[Finding]:
    """Return everything that is wrong."""
    return _Check(scene).findings()


class _Check:
    """Gathers the evidence once, and holds it against each invariant."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        client, experiment = scene.client, scene.experiment
        self.rows: list[File] = list(client.files.find(FileQuery(experiment_uid=experiment.uid, limit=1000)))
        self.files = {bytes(row.relpath): row for row in self.rows}
        self.versions = {path: list(_versions(client, row)) for path, row in self.files.items()}
        self.source = dict(listing(scene.source))
        self.plain = {b"data/" + path: found for path, found in listing(scene.storage / "data")}
        self.kept = dict(listing(scene.storage / ".dm" / "versions"))
        self.staged = dict(listing(scene.storage / ".dm" / "staging"))
        self.entries: dict[bytes, JournalEntry] = {}
        for acquisition in scene.acquisitions:
            prefix = acquisition.destination.encode() + b"/" if acquisition.destination else b""
            for entry in client.daqs.entries(acquisition.uid):
                self.entries[b"data/" + prefix + bytes(entry.relpath)] = entry

    def findings(self) -> list[Finding]:
        return [*self._stored(), *self._dark(), *self._source(), *self._states(), *self._journal(), *self._repeated()]

    def _stored(self) -> Iterator[Finding]:
        """I1, I2, I7: each version has its bytes, under its name or among the older ones."""
        for path, versions in self.versions.items():
            for version in versions:
                is_newest = version.number == self.files[path].version
                found = self.plain.get(path) if is_newest else self.kept.get(path + b"/%d" % version.number)
                if self.files[path].kind is FileKind.LINK and not is_newest:
                    continue  # where an older link pointed is in the catalogue itself
                if found is None:
                    yield Finding(Harm.FALSE_COMPLETE, path, f"version {version.number} has no bytes in storage")
                elif self.files[path].kind is FileKind.LINK:
                    if is_newest and found.digest != from_b64(self.files[path].link_target_b64 or "").hex():
                        yield Finding(Harm.CORRUPT, path, "it is another link than the catalogue says")
                elif (version.digest, version.size) != (found.digest, found.size):
                    yield Finding(Harm.CORRUPT, path, f"version {version.number} has other bytes than its checksum")
            if self.files[path].kind is FileKind.FILE and not self.files[path].is_verified:
                yield Finding(Harm.FALSE_COMPLETE, path, "it is available, and was never read back")

    def _dark(self) -> Iterator[Finding]:
        """Nothing stands in storage that the catalogue does not know."""
        for path in self.plain.keys() - self.files.keys() - self.scene.foreign:
            yield Finding(Harm.DARK, path, "the catalogue does not know it")
        known = {path + b"/%d" % v.number for path, versions in self.versions.items() for v in versions}
        for path in self.kept.keys() - known:
            yield Finding(Harm.DARK, path, "the catalogue does not know this older version")
        for path in self.staged:
            yield Finding(Harm.DARK, path, "it was left in staging")

    def _source(self) -> Iterator[Finding]:
        """I3: each file that is, or was finished, at the source is stored as it is, or listed with a reason."""
        for path in self.source.keys() | (self.scene.truth.states.keys() - self.scene.truth.removed):
            here = self.source.get(path)
            row, entry = self.files.get(b"data/" + path), self.entries.get(b"data/" + path)
            if row is not None and (self._is_state(path, row) if here is None else _is_same(here, row)):
                continue
            is_listed = entry is not None and entry.state in LISTED and entry.reason_code and entry.reason
            if is_listed and entry is not None and entry.reason_code != UNCHANGED:
                continue
            if entry is None and self._is_below_listed(path):
                continue
            state = f"{entry.state} {entry.reason_code}" if entry else "not in the journal"
            yield Finding(Harm.LOST, path, f"it is not stored as it is at the source, and has no reason ({state})")

    def _is_below_listed(self, path: bytes) -> bool:
        """Whether a directory above could not be read, and says so: nobody can name what is in it."""
        parts = path.split(b"/")
        above = (self.entries.get(b"data/" + b"/".join(parts[:depth])) for depth in range(1, len(parts)))
        return any(entry is not None and entry.state in LISTED and entry.reason != "" for entry in above)

    def _is_state(self, path: bytes, row: File) -> bool:
        """Whether a file that is gone from the source is stored as some state that it had."""
        return digest_of(row.checksums) in {state.digest for state in self.scene.truth.states.get(path, ())}

    def _states(self) -> Iterator[Finding]:
        """I5, I6: each version is one state that a writer left behind, before it was taken."""
        for path, versions in self.versions.items():
            states = self.scene.truth.states.get(path.removeprefix(b"data/"))
            if states is None:
                continue
            for version in versions:
                digest, at = version.digest, version.transferred_at.timestamp()
                known = [s for s in states if s.digest == digest]
                at_rest = self.source.get(path.removeprefix(b"data/"))
                is_left = path.removeprefix(b"data/") in self.scene.truth.opened  # by a writer that died
                if version.is_snapshot or (is_left and at_rest is not None and at_rest.digest == digest):
                    continue
                if not known:
                    yield Finding(Harm.CORRUPT, path, f"version {version.number} is no state that its writer left")
                elif self.scene.is_clock_true and min(s.closed_at for s in known) > at + ROUNDING_S:
                    yield Finding(Harm.FALSE_COMPLETE, path, f"version {version.number} was taken before it was closed")

    def _journal(self) -> Iterator[Finding]:
        """I2, I3: what the journal calls available is in the catalogue, and nothing is still on its way."""
        uids = {version.uid for versions in self.versions.values() for version in versions}
        for path, entry in self.entries.items():
            if entry.state is JournalState.AVAILABLE and entry.version_uid not in uids:
                yield Finding(
                    Harm.FALSE_COMPLETE, path, "the journal calls it available, the catalogue has no such row"
                )
            elif entry.state in LISTED and not (entry.reason_code and entry.reason):
                yield Finding(Harm.LOST, path, f"it is {entry.state} without a reason")
            elif entry.state not in {*LISTED, JournalState.AVAILABLE}:
                yield Finding(Harm.LOST, path, f"it is still {entry.state}")

    def _repeated(self) -> Iterator[Finding]:
        """I4: no row twice, and no content twice in a row."""
        for path, count in Counter(bytes(row.relpath) for row in self.rows).items():
            if count > 1:
                yield Finding(Harm.DUPLICATE, path, f"the catalogue lists it {count} times")
        for path, versions in self.versions.items():
            for one, other in pairwise(versions):
                if one.digest and one.digest == other.digest:
                    yield Finding(Harm.DUPLICATE, path, f"versions {one.number} and {other.number} are the same bytes")
        if self.scene.database is not None:
            yield from _rows_twice(self.scene.database)


def _versions(client: Client, row: File) -> Sequence[Taken]:
    """Return a file's versions, the oldest first; a first one needs no question of its own."""
    if row.version == 1:
        return [Taken.of(row, 1)]
    history = client.files.history(row.uid).versions
    return sorted((Taken.of(version, version.number) for version in history), key=lambda v: v.number)


def _rows_twice(database: Path) -> Iterator[Finding]:
    statement = """
        select f.path, v.number, count(*) from versions v join files f on f.id = v.file_id
        group by f.experiment_uid, f.path, v.number having count(*) > 1
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for path, number, count in connection.execute(statement):
            yield Finding(Harm.DUPLICATE, path, f"version {number} has {count} rows")


def _is_same(here: Stored, row: File) -> bool:
    if here.is_link or row.kind is FileKind.LINK:
        return here.is_link and here.digest == from_b64(row.link_target_b64 or "").hex()
    return (here.digest, here.size) == (digest_of(row.checksums), row.size)


def digest_of(checksums: Sequence[Checksum]) -> str:
    """Return the BLAKE3 digest among some checksums; empty where there is none."""
    return next((c.value for c in checksums if c.algorithm == "blake3"), "")


def listing(root: Path) -> Iterator[tuple[bytes, Stored]]:
    """Read every file and link below a directory, which need not be there; what is neither counts for nothing.

    By descriptor: paths may be longer than the kernel takes in one piece.
    """
    if not root.is_dir():
        return
    for parent, directories, names, opened in os.fwalk(os.fsencode(root)):
        below = os.path.relpath(parent, os.fsencode(root))
        for name in [*names, *directories]:
            path = name if below == b"." else below + b"/" + name
            mode = os.lstat(name, dir_fd=opened).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=opened)
                yield path, Stored(target.hex(), len(target), is_link=True)
            elif stat.S_ISREG(mode):
                yield path, _read(name, opened)


def _read(name: bytes, directory: int) -> Stored:
    digest, size = blake3(), 0
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb", buffering=0) as file:
        while piece := file.read(4 * 1024 * 1024):
            digest.update(piece)
            size += len(piece)
    return Stored(digest.hexdigest(), size)
