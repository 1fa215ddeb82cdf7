"""The demo's check: it is content with a whole copy, and names every violation that is planted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3
from uuid6 import uuid7

from beamkeeper.cli.demo.check import Evidence, Found, Type, Verdict, judge, scan
from beamkeeper.cli.demo.truth import Kind, Written
from beamkeeper.domain.files import File, FileKind, Source, SourceIdentity
from beamkeeper.domain.names import Algorithm, Checksum, path_fields, to_b64

WRITTEN_AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def catalogued(path: bytes, found: Found, *, is_verified: bool = True, after_s: float = 2.0) -> File:
    """Return what a right catalogue has of a file."""
    is_link = found.type is Type.LINK
    at = WRITTEN_AT + timedelta(seconds=after_s)
    return File(
        **path_fields(b"data/" + path),
        uid=uuid7(),
        experiment_uid=uuid7(),
        kind=FileKind.LINK if is_link else FileKind.FILE,
        version=1,
        version_uid=uuid7(),
        size=found.size,
        checksums=[] if is_link else [Checksum(algorithm=Algorithm.BLAKE3, value=found.blake3)],
        link_target_b64=to_b64(b"scan_001/frame 1.tif") if is_link else None,
        source=Source(agent="here", **path_fields(b"detector/" + path)),
        identity=SourceIdentity(dev=1, ino=1, size=found.size, mtime_ns=1, ctime_ns=1),
        is_snapshot=False,
        is_verified=is_verified,
        modified_at=WRITTEN_AT,
        finished_at=WRITTEN_AT,
        transferred_at=at - timedelta(seconds=1),
        verified_at=at - timedelta(seconds=0.5) if is_verified else None,
        catalogued_at=at,
        metadata={},
    )


@dataclass
class Copies:
    """A source and a storage area on disk, and the evidence of a beamline that did all right."""

    source: Path
    storage: Path
    evidence: Evidence

    def judged(self) -> Verdict:
        """Return the verdict on what lies on disk now."""
        return judge(
            replace(self.evidence, source=scan(os.fsencode(self.source)), stored=scan(os.fsencode(self.storage)))
        )

    def complaints(self) -> list[tuple[str, str]]:
        """Return path and fault of each mismatch."""
        return [(mismatch.path, mismatch.what) for mismatch in self.judged().mismatches]

    def catalogue(self, files: Sequence[tuple[bytes, File]]) -> None:
        """Let the catalogue have these files."""
        self.evidence = replace(self.evidence, catalogued=files)


KINDS = {Type.LINK: Kind.LINK, Type.SPECIAL: Kind.SPECIAL, Type.FILE: Kind.FILE}
FRAME = b"scan_001/frame 1.tif"
HOSTILE = b"torture/new\nline \xff.dat"


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    source, storage = tmp_path / "source", tmp_path / "storage"
    for path in (FRAME, HOSTILE, b"detector.log", b"empty.dat"):
        absolute = os.path.join(os.fsencode(source), path)
        os.makedirs(os.path.dirname(absolute), exist_ok=True)
        Path(os.fsdecode(absolute)).write_bytes(b"" if path == b"empty.dat" else path * 1000)
    (source / "link").symlink_to(FRAME.decode())
    shutil.copytree(source, storage, symlinks=True)
    os.mkfifo(source / "pipe")
    found = scan(os.fsencode(source))
    at_ns = int(WRITTEN_AT.timestamp()) * 10**9
    evidence = Evidence(
        written={path: Written(path, f.size, f.blake3, at_ns, KINDS[f.type]) for path, f in found.items()},
        began_ns=at_ns - 10**9,
        source=found,
        stored=scan(os.fsencode(storage)),
        catalogued=[(path, catalogued(path, f)) for path, f in found.items() if f.type is not Type.SPECIAL],
        skipped={b"pipe": "a named pipe is not a file"},
    )
    return Copies(source, storage, evidence)


def test_a_whole_copy_matches_and_is_counted(copies: Copies) -> None:
    verdict = copies.judged()
    assert verdict.mismatches == []
    assert verdict.is_match
    total = sum(found.size for found in copies.evidence.source.values())
    assert [(row.what, row.files, row.bytes) for row in verdict.rows] == [
        (what, 5, total) for what in ("written", "stored", "verified", "catalogued")
    ]
    assert [row.seconds for row in verdict.rows] == [1.0, 2.0, 2.5, 3.0]
    assert verdict.rows[-1].bytes_per_s == total / 3.0


def test_the_delay_is_from_the_last_byte_to_the_catalogue_in_files_only(copies: Copies) -> None:
    files = [found for path, found in copies.evidence.source.items() if found.type is Type.FILE]
    names = [path for path, found in copies.evidence.source.items() if found.type is Type.FILE]
    delays = [1.0, 2.0, 3.0, 9.0]
    copies.catalogue([(n, catalogued(n, f, after_s=d)) for n, f, d in zip(names, files, delays, strict=True)])
    verdict = copies.judged()
    assert (verdict.median_s, verdict.p99_s) == (2.0, 9.0)


def test_an_interrupted_run_tells_no_rate(copies: Copies) -> None:
    verdict = judge(copies.evidence, with_seconds=False)
    assert {row.bytes_per_s for row in verdict.rows} == {None}


def test_a_file_missing_in_the_catalogue_is_reported(copies: Copies) -> None:
    copies.catalogue([(path, file) for path, file in copies.evidence.catalogued if path != HOSTILE])
    assert copies.complaints() == [("torture/new\\x0aline \\xff.dat", "not in the catalogue")]
    assert [row.files for row in copies.judged().rows] == [5, 5, 5 - 1, 5 - 1]


def test_a_file_missing_in_storage_is_reported(copies: Copies) -> None:
    (copies.storage / "empty.dat").unlink()
    assert copies.complaints() == [("empty.dat", "not in the storage area")]
    assert [row.files for row in copies.judged().rows] == [5, 4, 5, 5]


def test_a_truncated_copy_is_reported(copies: Copies) -> None:
    os.truncate(copies.storage / FRAME.decode(), 10)
    [(path, what)] = copies.complaints()
    assert path == FRAME.decode()
    assert what.startswith("the storage area has a file of 10 bytes")


def test_a_flipped_bit_is_reported(copies: Copies) -> None:
    stored = copies.storage / "detector.log"
    content = bytearray(stored.read_bytes())
    content[7] ^= 1
    stored.write_bytes(content)
    [(path, what)] = copies.complaints()
    assert path == "detector.log"
    assert blake3(bytes(content)).hexdigest()[:16] in what


def test_a_wrong_digest_in_the_catalogue_is_reported(copies: Copies) -> None:
    wrong = [
        (path, catalogued(path, replace(copies.evidence.source[path], blake3="0" * 64) if path == FRAME else claimed))
        for path, claimed in copies.evidence.source.items()
        if claimed.type is not Type.SPECIAL
    ]
    copies.catalogue(wrong)
    [(path, what)] = copies.complaints()
    assert path == FRAME.decode()
    assert what.startswith("the catalogue says")


def test_a_duplicate_in_the_catalogue_is_reported(copies: Copies) -> None:
    twice = [pair for pair in copies.evidence.catalogued if pair[0] == FRAME]
    copies.catalogue([*copies.evidence.catalogued, *twice])
    assert copies.complaints() == [(FRAME.decode(), "in the catalogue 2 times")]
    assert [row.files for row in copies.judged().rows] == [5, 5, 5, 5]


def test_a_file_that_was_not_verified_is_reported(copies: Copies) -> None:
    copies.catalogue(
        [
            (path, file.model_copy(update={"is_verified": path != FRAME, "verified_at": None}))
            for path, file in copies.evidence.catalogued
        ]
    )
    assert copies.complaints() == [(FRAME.decode(), "in the catalogue, but not verified")]


def test_what_nobody_wrote_is_reported_wherever_it_is(copies: Copies) -> None:
    (copies.storage / "outside").mkdir()
    (copies.storage / "outside" / "secret.dat").write_bytes(b"must not arrive")
    (copies.source / "late.dat").write_bytes(b"late")
    copies.catalogue([*copies.evidence.catalogued, (b"ghost", catalogued(b"ghost", Found(Type.FILE, 1, "ab" * 32)))])
    assert copies.complaints() == [
        ("ghost", "in the catalogue, but not at the source"),
        ("late.dat", "at the source, but the detector did not write it"),
        ("late.dat", "not in the catalogue"),
        ("late.dat", "not in the storage area"),
        ("outside/secret.dat", "in the storage area, but not at the source"),
    ]


def test_a_source_that_changed_behind_the_detector_is_reported(copies: Copies) -> None:
    (copies.source / "detector.log").write_bytes(b"other")
    faults = [what for path, what in copies.complaints() if path == "detector.log"]
    assert faults[0] == "at the source, but not as the detector wrote it"
    assert len(faults) == 3
    (copies.source / "empty.dat").unlink()
    assert ("empty.dat", "the detector wrote it, but it is not at the source any more") in copies.complaints()


def test_a_link_must_arrive_as_a_link_to_the_same_target(copies: Copies) -> None:
    stored = copies.storage / "link"
    stored.unlink()
    shutil.copyfile(copies.source / FRAME.decode(), stored)
    [(path, what)] = copies.complaints()
    assert path == "link"
    assert what.startswith("the storage area has a file")
    assert "the source has a link" in what


def test_a_pipe_must_be_listed_with_a_reason_and_never_stored(copies: Copies) -> None:
    copies.evidence = replace(copies.evidence, skipped={b"pipe": ""})
    assert copies.complaints() == [("pipe", "not a file, and not listed as skipped with a reason")]
    copies.evidence = replace(copies.evidence, skipped={b"pipe": "a named pipe"})
    (copies.storage / "pipe").touch()
    assert copies.complaints() == [("pipe", "not a file, but stored all the same")]


def test_older_versions_are_counted_and_the_newest_counts(copies: Copies) -> None:
    copies.catalogue(
        [
            (path, file.model_copy(update={"version": 4 if path == b"detector.log" else 1}))
            for path, file in copies.evidence.catalogued
        ]
    )
    verdict = copies.judged()
    assert verdict.is_match
    assert verdict.older_versions == 3


def test_a_source_is_scanned_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "around").symlink_to(".")
    (tmp_path / "away").symlink_to("/")
    assert scan(os.fsencode(tmp_path)) == {
        b"around": Found(Type.LINK, 1, blake3(b".").hexdigest()),
        b"away": Found(Type.LINK, 1, blake3(b"/").hexdigest()),
    }
