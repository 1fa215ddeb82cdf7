"""What does not fit together in the rows of a file: pure, and never repaired here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from beamkeeper.db.files.tables import Checksums, FileRow, ReplicaRow, VerificationRow, VersionRow
from beamkeeper.domain.catalogues import Fault, Finding
from beamkeeper.domain.files import PRESENT, ReplicaState
from beamkeeper.domain.names import show_path, to_b64
from beamkeeper.domain.versions import digests


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that belong to some files, by the local key of what they belong to."""

    versions: Mapping[int, Sequence[VersionRow]]
    replicas: Mapping[int, Sequence[ReplicaRow]]
    ledger: Mapping[int, Sequence[VerificationRow]]
    checksums: Checksums


def findings(file: FileRow, rows: Rows, *, is_experiment_known: bool) -> Iterator[Finding]:
    """Yield what does not fit together in a file."""

    def found(fault: Fault, message: str) -> Finding:
        return Finding(
            path_b64=to_b64(file.path),
            fault=fault,
            file_uid=file.uid,
            experiment_uid=file.experiment_uid,
            message=message,
        )

    if not is_experiment_known:
        yield found(Fault.NO_EXPERIMENT, f"experiment {file.experiment_uid} is not known here")
    if (file.deleted_at is None) != (file.deleted_by is None):
        said = f'by "{file.deleted_by}" and not when' if file.deleted_by else "and not by whom"
        yield found(Fault.HIDDEN, f"it is hidden {said}")
    if file.path_shown != show_path(file.path) or file.parent != file.path.rpartition(b"/")[0]:
        yield found(Fault.OTHER_PATH, f'it is shown as "{file.path_shown[:500]}"')
    versions = rows.versions.get(file.id, ())
    numbers = [version.number for version in versions]
    if not versions:
        yield found(Fault.NO_VERSION, "it has no version")
    elif file.number not in numbers:
        yield found(Fault.NEWEST_MISSING, f"its newest version is called {file.number}, which is not there")
    if numbers and max(numbers) > file.number:
        yield found(Fault.NEWER_VERSION, f"its newest version is called {file.number}, and there is {max(numbers)}")
    for version in versions:
        for fault, message in _of_version(version, rows, is_file=version.link_target is None):
            yield found(fault, f"version {version.number}: {message}")


def _of_version(version: VersionRow, rows: Rows, *, is_file: bool) -> Iterator[tuple[Fault, str]]:
    replicas = rows.replicas.get(version.id, ())
    if not any(replica.state in PRESENT for replica in replicas):
        yield Fault.NO_REPLICA, "no copy of it is known"
    known = digests(rows.checksums.get(version.id, ()))
    if is_file and not known:
        yield Fault.NO_CHECKSUM, "it has no checksum"
    is_verified = any(replica.state == ReplicaState.VERIFIED for replica in replicas)
    if version.is_verified != is_verified:
        yield Fault.UNTOLD, f"it is called {_called(version.is_verified)}, and its copies are {_called(is_verified)}"
    for replica in replicas:
        ledger = rows.ledger.get(replica.id, ())
        proofs = [row for row in ledger if row.is_match]
        if replica.state == ReplicaState.VERIFIED and is_file and not proofs:
            yield Fault.UNPROVEN, f"replica {replica.uid} is called verified, and the ledger has no row that says so"
        last = max(ledger, key=lambda row: row.verified_at, default=None)
        if replica.state in PRESENT and last is not None and last.is_match != (replica.state == ReplicaState.VERIFIED):
            yield Fault.UNTOLD, f"replica {replica.uid} is called {replica.state}, and the ledger's last row differs"
        for row in proofs:
            if row.algorithm is not None and known.get(row.algorithm, row.value) != row.value:
                yield Fault.OTHER_CHECKSUM, f"row {row.uid} of the ledger calls {row.algorithm}:{row.value} right"


def _called(is_verified: bool) -> str:
    return "verified" if is_verified else "unverified"
