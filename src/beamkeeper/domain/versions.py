"""Versions: whether bytes that were delivered are the next version of a path, the one that is there, or a conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beamkeeper.domain.files import FileKind, NewFile, RegisteredAs, Source
from beamkeeper.domain.names import Algorithm, Checksum, show_path


@dataclass(frozen=True, slots=True)
class Held:
    """What the catalogue holds of a path: its newest version, and which source it belongs to."""

    number: int
    kind: FileKind
    size: int
    checksums: Mapping[Algorithm, str]
    link_target_b64: str | None
    source: Source


@dataclass(frozen=True, slots=True)
class Judgement:
    """What registering a version does, and why where it is refused."""

    result: RegisteredAs
    message: str = ""


def digests(checksums: Sequence[Checksum]) -> Mapping[Algorithm, str]:
    """Return checksums by their algorithm."""
    return {checksum.algorithm: checksum.value for checksum in checksums}


def judge(new: NewFile, held: Held | None) -> Judgement:
    """Decide what a new version is to a path of which `held` is known.

    Only other bytes make a version, and a path belongs to the source that first delivered it.
    """
    if held is None and new.number == 1:
        return Judgement(RegisteredAs.CREATED)
    shown = f'"{show_path(new.relpath)[:1000]}"'
    if held is None:
        return Judgement(
            RegisteredAs.CONFLICT, f"{shown} is not catalogued yet, so its next version is 1 and not {new.number}"
        )
    if is_same_content(new, held):
        return Judgement(RegisteredAs.EXISTS)
    if _source(new.source) != _source(held.source):
        return Judgement(
            RegisteredAs.CONFLICT,
            f"{shown} belongs to another source, {_shown(held.source)}, and {_shown(new.source)} has other bytes: "
            f"deliver them to another path",
        )
    if new.number != held.number + 1:
        return Judgement(
            RegisteredAs.CONFLICT,
            f"{shown} has version {held.number}, so its next version is {held.number + 1} and not {new.number}",
        )
    return Judgement(RegisteredAs.CREATED)


def is_same_content(new: NewFile, held: Held) -> bool:
    """Whether both are known to have the same content: without a checksum in common that is not known."""
    if new.kind is not held.kind:
        return False
    if new.kind is FileKind.LINK:
        return new.link_target_b64 == held.link_target_b64
    mine = digests(new.checksums)
    common = mine.keys() & held.checksums.keys()
    return new.size == held.size and bool(common) and all(mine[name] == held.checksums[name] for name in common)


def _source(source: Source) -> tuple[str, bytes]:
    return source.agent, source.relpath


def _shown(source: Source) -> str:
    return f"{source.agent[:100]}:/{show_path(source.relpath)[:300]}"
