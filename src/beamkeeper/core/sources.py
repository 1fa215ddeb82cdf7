"""Directories to be watched or uploaded: which ones may be, for whom, and whether they are there."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes, urlsplit
from uuid import UUID

from beamkeeper.config import Settings
from beamkeeper.core import destinations
from beamkeeper.core.mounts import Whereabouts
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.acquisition import NewDaq, NewUpload, overlaps
from beamkeeper.domain.errors import InvalidError, NotFoundError, NotPermittedError, SourceError
from beamkeeper.domain.files import Verify
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.users import Action, Caller, Target, may

MOST_EMPTY_DIRECTORIES = 10_000
"""In so many directories a file is looked for before an upload; where there are more, the scan finds out."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What this station's settings say about directories."""

    agent: str
    spool: Path
    roots: Sequence[Path]
    forbidden: Sequence[Path]
    verify: Verify = Verify.READ_BACK
    put_hours: float = 24.0
    also: Sequence[str] = ()

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that these settings make."""
        return cls(
            agent=settings.station.agent,
            spool=settings.acquisition.spool,
            roots=settings.acquisition.roots,
            forbidden=(settings.data_dir, settings.acquisition.spool, settings.storage.area_path),
            verify=settings.acquisition.verify,
            put_hours=settings.acquisition.put_hours,
            also=settings.acquisition.also,
        )


class WithAgent(Protocol):
    """A request that may name an agent."""

    @property
    def agent(self) -> str | None:
        """The agent, or None for the station's own."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that was looked at: on which agent, and its real path without the leading slash."""

    agent: str
    path: RelPath
    verify: Verify = Verify.READ_BACK
    """When copies are read back, unless the request says otherwise."""
    held_as: frozenset[UUID] = frozenset()
    """DAQs that hold the same files under another path, such as a bind mount's."""
    also: tuple[str, ...] = ()
    """The storage areas that are to have a copy too."""


def agent_of(new: WithAgent, rules: Rules) -> str:
    """Return the agent that sees the directory; this station has one."""
    if new.agent is not None and new.agent != rules.agent:
        raise NotFoundError(f'there is no agent "{new.agent[:200]}" here: the station\'s only one is "{rules.agent}"')
    return rules.agent


def look(tx: AcquisitionTransaction, caller: Caller, new: NewDaq | NewUpload, *, target: Target, rules: Rules) -> Place:
    """Look whether the caller may have this directory taken, and whether it can be.

    Reads the file system and may take as long as that does: call it outside of a writing transaction.
    """
    agent = agent_of(new, rules)
    given = b"/" + new.relpath
    real = real_path(given)
    if not may(caller, Action.ACQUISITION_ANYWHERE, target):
        _check_roots(given, real, rules)
    _check_forbidden(tx, given, real, rules)
    if isinstance(new, NewUpload):
        _check_upload(given, agent)
    else:
        _check_watched(given, agent, wait=new.wait)
    also = destinations.chosen(tx, caller, new, default=rules.also)
    return Place(agent, RelPath(real.lstrip(b"/")), rules.verify, _held_as(tx, agent, real), also)


def _held_as(tx: AcquisitionTransaction, agent: str, real: bytes) -> frozenset[UUID]:
    """Return the DAQs whose directories are or hold the same one, whatever path leads there."""
    here = Whereabouts.of(real)
    if here is None:
        return frozenset()  # it is waited for
    found = set()
    for daq in tx.acquisitions.holding(agent):
        path, root = b"/" + daq.relpath, tx.acquisitions.root(daq.uid)
        # One that was started this moment was looked at this moment, too.
        there = Whereabouts.of(path) if root is None else Whereabouts.known(path, root)
        if there is not None and here.meets(there):
            found.add(daq.uid)
    return frozenset(found)


def real_path(path: bytes) -> bytes:
    """Return a path with its links followed."""
    try:
        return os.path.realpath(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _is_at_or_below(path: bytes, directory: bytes) -> bool:
    return overlaps(path, directory) and len(path) >= len(directory)


def _check_roots(given: bytes, real: bytes, rules: Rules) -> None:
    roots = [os.path.realpath(os.fsencode(root)) for root in rules.roots]
    if any(_is_at_or_below(real, root) for root in roots):
        return
    # Says nothing of where links lead, nor of what is there: the caller may not know.
    named = ", ".join(show_path(os.fsencode(root)) for root in rules.roots)
    way_out = f"use one below {named}, or ask" if named else "ask"
    raise NotPermittedError(
        f'directory "{show_path(given)}" is not one from which members of an experiment may take files: '
        f"{way_out} a manager of the station"
    )


def _check_forbidden(tx: AcquisitionTransaction, given: bytes, real: bytes, rules: Rules) -> None:
    if is_ours(tx, real, rules):
        raise InvalidError(
            f'directory "{show_path(given)}" holds the storage or Beamkeeper\'s own files, or lies in them: '
            f"what is stored there would be stored again; use another directory"
        )


def is_ours(tx: AcquisitionTransaction, real: bytes, rules: Rules) -> bool:
    """Whether a directory holds the storage or our own files, or lies in them."""
    ours = [os.fsencode(path) for path in rules.forbidden]
    ours += [path for area in tx.storage.list() if (path := _local_path(area.station_url))]
    return any(overlaps(real, os.path.realpath(path)) for path in ours)


def _local_path(url: str) -> bytes | None:
    parts = urlsplit(url)
    is_local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    return unquote_to_bytes(parts.path) if is_local and parts.path.startswith("/") else None


def _check_watched(given: bytes, agent: str, *, wait: bool) -> None:
    try:
        mode = os.stat(given).st_mode
    except FileNotFoundError as error:
        if wait:
            return
        raise SourceError(
            f'directory "{show_path(given)}" does not exist on "{agent}": check its name, or start with --wait '
            f"to wait for it"
        ) from error
    except OSError as error:
        raise _unusable(given, error) from error
    if not stat.S_ISDIR(mode):
        raise SourceError(f'"{show_path(given)}" on "{agent}" is no directory: name the directory that it is in')
    try:
        os.scandir(given).close()
    except OSError as error:
        raise _unusable(given, error) from error


def _check_upload(given: bytes, agent: str) -> None:
    try:
        mode = os.stat(given).st_mode
        if stat.S_ISDIR(mode):
            if not _has_files(given):
                raise SourceError(
                    f'directory "{show_path(given)}" on "{agent}" has no files: there is nothing to upload'
                )
        else:
            raise SourceError(
                f'"{show_path(given)}" on "{agent}" is not a directory: send a single file with `dm put`, '
                f"or upload its directory with --include"
            )
    except FileNotFoundError as error:
        raise SourceError(f'"{show_path(given)}" does not exist on "{agent}": check its name') from error
    except OSError as error:
        raise _unusable(given, error) from error


def _has_files(top: bytes) -> bool:
    waiting, seen = [top], 0
    while waiting and seen < MOST_EMPTY_DIRECTORIES:
        directory, seen = waiting.pop(), seen + 1
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        return True
                    waiting.append(entry.path)
        except OSError:
            if directory == top:
                raise
            return True  # what is in it is not known, so it is the scan's to list it with a reason (I3)
    return bool(waiting)


def _unusable(given: bytes, error: OSError) -> SourceError:
    reason = (error.strerror or type(error).__name__).lower()
    return SourceError(
        f'"{show_path(given)}" cannot be read ({reason}): let the account that runs Beamkeeper read it, then try again'
    )
