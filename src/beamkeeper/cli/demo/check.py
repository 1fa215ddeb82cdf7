"""Does the beamline have every file as the detector wrote it? Found out here, from the bytes alone."""

from __future__ import annotations

import math
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from blake3 import blake3

from beamkeeper.cli.demo.target import hash_file
from beamkeeper.cli.demo.truth import Kind, Written
from beamkeeper.domain.files import File, FileKind
from beamkeeper.domain.names import Algorithm, Model, WireInt, from_b64, show_path


class Type(StrEnum):
    """What a directory holds at a path."""

    FILE = "file"
    LINK = "link"
    SPECIAL = "special"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a path: of a link, size and digest are those of its target's name."""

    type: Type
    size: int
    blake3: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is compared, each from its own place; paths are below the detector's directory."""

    written: Mapping[bytes, Written]
    began_ns: int
    source: Mapping[bytes, Found]
    stored: Mapping[bytes, Found]
    catalogued: Sequence[tuple[bytes, File]]
    skipped: Mapping[bytes, str]


class Mismatch(Model):
    """A path where something is not as it must be."""

    path: str
    what: str


class Row(Model):
    """One line of the table: how far the files have come, and how long that took from the first write."""

    what: str
    files: WireInt
    bytes: WireInt
    seconds: float | None = None

    @property
    def bytes_per_s(self) -> float | None:
        """The rate, where it can be told."""
        return self.bytes / self.seconds if self.seconds else None


class Verdict(Model):
    """What the check found."""

    rows: Sequence[Row]
    median_s: float | None
    p99_s: float | None
    mismatches: Sequence[Mismatch]
    older_versions: int
    skipped: int

    @property
    def is_match(self) -> bool:
        """Whether every file is as it was written."""
        return not self.mismatches


def scan(top: bytes) -> dict[bytes, Found]:
    """Return everything below a directory, read anew and hashed here; links are read, not followed."""
    found: dict[bytes, Found] = {}
    for entry in _walk(top):
        path = os.path.relpath(entry.path, top)
        if entry.is_symlink():
            target = os.readlink(entry.path)
            found[path] = Found(Type.LINK, len(target), blake3(target).hexdigest())
        elif stat.S_ISREG((known := entry.stat(follow_symlinks=False)).st_mode):
            found[path] = Found(Type.FILE, known.st_size, hash_file(entry.path))
        else:
            found[path] = Found(Type.SPECIAL, 0, "")
    return found


def _walk(top: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry


def judge(evidence: Evidence, *, with_seconds: bool = True) -> Verdict:
    """Compare what was written with what lies in storage and what the catalogue says.

    Without `with_seconds` no time is told: a run that was interrupted would count the pause.
    """
    by_path: dict[bytes, list[File]] = defaultdict(list)
    for path, file in evidence.catalogued:
        by_path[path].append(file)
    mismatches = [
        Mismatch(path=show_path(path), what=what)
        for path in sorted(evidence.source.keys() | evidence.stored.keys() | by_path.keys() | evidence.written.keys())
        for what in _faults(path, evidence, by_path.get(path, ()))
    ]
    delays = sorted(_delays(evidence, by_path))
    return Verdict(
        rows=_rows(evidence, by_path, with_seconds=with_seconds),
        median_s=_quantile(delays, 0.5),
        p99_s=_quantile(delays, 0.99),
        mismatches=mismatches,
        older_versions=sum(file.version - 1 for _, file in evidence.catalogued),
        skipped=len(evidence.skipped),
    )


def _faults(path: bytes, evidence: Evidence, files: Sequence[File]) -> Iterator[str]:
    """Yield what is wrong with one path."""
    source, stored, written = evidence.source.get(path), evidence.stored.get(path), evidence.written.get(path)
    if source is None:
        if written is not None:
            yield "the detector wrote it, but it is not at the source any more"
        if files:
            yield "in the catalogue, but not at the source"
        if stored is not None:
            yield "in the storage area, but not at the source"
        return
    if written is None:
        yield "at the source, but the detector did not write it"
    elif (written.size, written.blake3) != (source.size, source.blake3):
        yield "at the source, but not as the detector wrote it"
    if source.type is not Type.SPECIAL:
        yield from _faults_of_copy(source, stored, files)
        return
    if not evidence.skipped.get(path):
        yield "not a file, and not listed as skipped with a reason"
    if files or stored is not None:
        yield "not a file, but stored all the same"


def _faults_of_copy(source: Found, stored: Found | None, files: Sequence[File]) -> Iterator[str]:
    if not files:
        yield "not in the catalogue"
    if len(files) > 1:
        yield f"in the catalogue {len(files)} times"
    for file in files:
        if claim(file) != source:
            yield f"the catalogue says {_text(claim(file))}, but the source has {_text(source)}"
        elif file.kind is FileKind.FILE and not file.is_verified:
            yield "in the catalogue, but not verified"
    if stored is None:
        yield "not in the storage area"
    elif stored != source:
        yield f"the storage area has {_text(stored)}, but the source has {_text(source)}"


def claim(file: File) -> Found:
    """Return what the catalogue says of a file's newest version."""
    if file.kind is FileKind.LINK:
        target = from_b64(file.link_target_b64 or "")
        return Found(Type.LINK, len(target), blake3(target).hexdigest())
    digests = [checksum.value for checksum in file.checksums if checksum.algorithm is Algorithm.BLAKE3]
    return Found(Type.FILE, file.size, digests[0] if digests else "no BLAKE3 digest")


def _text(found: Found) -> str:
    return f"a {found.type} of {found.size} bytes with digest {found.blake3[:16]}"


def _delays(evidence: Evidence, by_path: Mapping[bytes, Sequence[File]]) -> Iterator[float]:
    """Yield, for each regular file, the seconds from its last byte to its place in the catalogue."""
    for path, written in evidence.written.items():
        for file in by_path.get(path, ()):
            if file.kind is FileKind.FILE and claim(file).blake3 == written.blake3:
                yield file.catalogued_at.timestamp() - written.written_at_ns / 1e9


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the value below which this share of the others lies (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _rows(evidence: Evidence, by_path: Mapping[bytes, Sequence[File]], *, with_seconds: bool) -> list[Row]:
    written = [one for one in evidence.written.values() if one.kind is not Kind.SPECIAL]
    start = evidence.began_ns / 1e9
    source = {path: found for path, found in evidence.source.items() if found.type is not Type.SPECIAL}
    right = [file for path, files in by_path.items() for file in files[:1] if source.get(path) == claim(file)]
    verified = [file for file in right if file.is_verified]
    stored = [found for path, found in evidence.stored.items() if source.get(path) == found]

    def seconds(ends: Iterable[float]) -> float | None:
        return max((end - start for end in ends), default=None) if with_seconds else None

    return [
        _row("written", [one.size for one in written], seconds(one.written_at_ns / 1e9 for one in written)),
        _row("stored", [one.size for one in stored], seconds(file.transferred_at.timestamp() for file in right)),
        _row(
            "verified",
            [file.size for file in verified],
            seconds(file.verified_at.timestamp() for file in verified if file.verified_at),
        ),
        _row("catalogued", [file.size for file in right], seconds(file.catalogued_at.timestamp() for file in right)),
    ]


def _row(what: str, sizes: Sequence[int], seconds: float | None) -> Row:
    return Row(what=what, files=len(sizes), bytes=sum(sizes), seconds=seconds)
