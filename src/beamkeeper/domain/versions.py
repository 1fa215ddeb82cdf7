"""Versions: whether bytes that were delivered are the next version of a path, the one that is there, or a conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from beamkeeper.domain.arriving import Arriving
from beamkeeper.domain.files import FileKind, RegisteredAs
from beamkeeper.domain.names import Checksum, show_path


class Held(NamedTuple):
    """What the catalogue holds of a path: its newest version, and which source it belongs to."""

    number: int
    kind: str
    size: int
    checksums: Mapping[str, str]
    link_target_b64: str | None
    agent: str
    source_path: bytes


@dataclass(frozen=True, slots=True)
class Judgement:
    """What registering a version does, and why where it is refused."""

    result: RegisteredAs
    message: str = ""


CREATED = Judgement(RegisteredAs.CREATED)


def digests(checksums: Sequence[Checksum]) -> Mapping[str, str]:
    """Return checksums by their algorithm."""
    return {checksum.algorithm.value: checksum.value for checksum in checksums}


def judge(new: Arriving, held: Held | None) -> Judgement:
    """Decide what a new version is to a path of which `held` is known.

    Only other bytes make a version, and a path belongs to the source that first delivered it.
    """
    if held is None and new.number == 1:
        return CREATED
    shown = f'"{new.shown[:1000]}"'
    if held is None:
        return Judgement(
            RegisteredAs.CONFLICT, f"{shown} is not catalogued yet, so its next version is 1 and not {new.number}"
        )
    if is_same_content(new, held):
        return Judgement(RegisteredAs.EXISTS)
    if (new.agent, new.source_path) != (held.agent, held.source_path):
        return Judgement(
            RegisteredAs.CONFLICT,
            f"{shown} belongs to another source, {_shown(held)}, and {_shown(new)} has other bytes: "
            f"deliver them to another path",
        )
    if new.number != held.number + 1:
        return Judgement(
            RegisteredAs.CONFLICT,
            f"{shown} has version {held.number}, so its next version is {held.number + 1} and not {new.number}",
        )
    return CREATED


def is_same_content(new: Arriving, held: Held) -> bool:
    """Whether both are known to have the same content: without a checksum in common that is not known."""
    if new.kind != held.kind:
        return False
    if new.kind == FileKind.LINK:
        return new.link_target == held.link_target_b64
    common = new.checksums.keys() & held.checksums.keys()
    return (
        new.size == held.size and bool(common) and all(new.checksums[name] == held.checksums[name] for name in common)
    )


def _shown(source: Arriving | Held) -> str:
    return f"{source.agent[:100]}:/{show_path(source.source_path)[:300]}"
