"""From ready to staged: what is stored already is passed over, the rest is sent, and what came of it is weighed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from beamkeeper.client import Client
from beamkeeper.db.journal import Batch, Claimed
from beamkeeper.domain.files import File, FileKind
from beamkeeper.domain.names import Checksum, RelPath, path_fields, to_b64
from beamkeeper.domain.storage import NewPublishItem, Replaced
from beamkeeper.engine import faults
from beamkeeper.engine.readback import strongest
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.sending import Sender
from beamkeeper.plugins.api import Ahead, TransferItem, TransferResult

Changes = dict[int, dict[str, Any]]


@dataclass(slots=True)
class Staged:
    """What became of a batch: what the journal is to say of its files, and what is to be published."""

    same: Changes = field(default_factory=dict)
    """Their bytes are in the catalogue already."""
    staged: Changes = field(default_factory=dict)
    files: list[Claimed] = field(default_factory=list)
    """Those that are staged, as they are now."""
    items: list[NewPublishItem] = field(default_factory=list)
    faults: list[tuple[Claimed, Exception]] = field(default_factory=list)


class Stager:
    """Brings the files of a batch to its staging directory."""

    def __init__(self, client: Client, sender: Sender) -> None:
        self._client = client
        self._sender = sender

    def present(self, batch: Batch, scene: Scene) -> dict[RelPath, File]:
        """Return what the catalogue has under the paths of a batch."""
        paths = [scene.path(file) for file in batch.files]
        return {file.relpath: file for file in self._client.files.lookup(scene.experiment.uid, paths)}

    def unchanged(self, batch: Batch, scene: Scene, present: Mapping[RelPath, File]) -> list[Claimed]:
        """Return the files that are stored, and have not changed since."""
        if scene.acquisition.resend:
            return []
        return [file for file in batch.files if _is_unchanged(present.get(scene.path(file)), file, scene)]

    def send(
        self,
        batch: Batch,
        scene: Scene,
        files: Sequence[Claimed],
        present: Mapping[RelPath, File],
        is_stopping: Callable[[], bool],
    ) -> Staged:
        """Send files, and weigh what came of each."""
        ahead = Ahead(*batch.ahead) if batch.ahead else None
        items = [
            TransferItem(f.version_uid, scene.source(f), scene.path(f), f.identity, scene.staged(f), ahead)
            for f in files
            if f.kind is FileKind.FILE
        ]
        results = self._sender.send(scene.area, items, scene.staging(batch.uid), is_stopping) if items else {}
        made = Staged()
        for file in files:
            result = results.get(file.version_uid)
            if result is None and is_stopping() and file.kind is FileKind.FILE:
                continue  # not begun: it is given back with the batch
            _weigh(made, file, result, there=present.get(scene.path(file)), scene=scene)
        return made

    def items_again(self, batch: Batch, scene: Scene) -> list[NewPublishItem]:
        """Return the request for a batch that was staged before: as whoever staged it would have made it."""
        present = self.present(batch, scene)
        return [
            _item(scene, f, [Checksum.model_validate(c) for c in f.checksums], f.number, present.get(scene.path(f)))
            for f in batch.files
        ]


def _weigh(made: Staged, file: Claimed, result: TransferResult | None, *, there: File | None, scene: Scene) -> None:
    if file.kind is FileKind.FILE and (result is None or result.error is not None):
        made.faults.append((file, (result.error if result else None) or faults.unsent()))
        return
    now = datetime.now(UTC)
    checksums = list(result.checksums) if result else []
    if there is not None and _is_same_content(there, file, checksums):
        made.same[file.id] = {"version_uid": there.version_uid, "available_at": now, "attempts": 0}
        return
    if there is not None and there.source != scene.origin(file):
        made.faults.append((file, faults.conflict(there)))
        return
    number = there.version + 1 if there else 1
    made.staged[file.id] = {
        "number": number,
        "checksums": [{"algorithm": str(c.algorithm), "value": c.value} for c in checksums],
        "chunks": list(result.chunks) if result else [],
        "staged_at": now,
    }
    made.files.append(replace(file, **made.staged[file.id]))
    made.items.append(_item(scene, file, checksums, number, there))


def _is_unchanged(there: File | None, file: Claimed, scene: Scene) -> bool:
    return (
        there is not None
        and not there.is_suspect
        and there.identity == file.identity
        and there.source == scene.origin(file)
    )


def _is_same_content(there: File, file: Claimed, checksums: Sequence[Checksum]) -> bool:
    """Only other bytes make a version: a new time or inode alone does not."""
    if file.kind is FileKind.LINK:
        return there.kind is FileKind.LINK and there.link_target_b64 == to_b64(file.link_target or b"")
    known = {c.algorithm: c.value for c in there.checksums}
    shared = [c for c in checksums if c.algorithm in known]
    return not there.is_suspect and bool(shared) and all(known[c.algorithm] == c.value for c in shared)


def _item(
    scene: Scene, file: Claimed, checksums: Sequence[Checksum], number: int, there: File | None
) -> NewPublishItem:
    replaces = None
    if there is not None and there.checksums:
        replaces = Replaced(number=there.version, checksum=strongest(there.checksums))
    return NewPublishItem.model_construct(  # of sound parts; the storage checks what it is sent
        **path_fields(scene.path(file)),
        version_uid=file.version_uid,
        number=number,
        size=file.identity.size,
        checksums=tuple(checksums),
        link_target_b64=to_b64(file.link_target) if file.link_target is not None else None,
        replaces=replaces,
        staged_b64=to_b64(staged) if (staged := scene.staged(file)) is not None else None,
    )
