"""Wipes: asking for a plan and for its run, which the engine makes; and holds, which forbid it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from uuid import UUID

from beamkeeper.config import Settings
from beamkeeper.core import sources
from beamkeeper.core.sources import Place
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.acquisition import ACTIVE, UNDELIVERED
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError, SourceError
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.users import Action, Caller, Target, may, reach, require
from beamkeeper.domain.wipes import (
    ACTIVE_WIPES,
    PLAN_GOOD_FOR,
    Hold,
    NewHold,
    NewWipe,
    Reason,
    Verdict,
    Wipe,
    WipeEntryPage,
    WipeEntryQuery,
    WipePage,
    WipeQuery,
    WipeRun,
    WipeState,
    is_at_or_below,
    rest_after,
    verdict_of,
)

RECENT = 20
"""So many of the newest DAQs and uploads say where files were taken from lately; those that run do always."""


@dataclass(frozen=True, slots=True)
class WipeRules:
    """What this station's settings say about wiping."""

    station: str
    sources: sources.Rules
    min_age_hours: float
    within_days: float
    max_files: int
    glance: timedelta = timedelta(seconds=60)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules that these settings make."""
        return cls(
            station=settings.station.name,
            sources=sources.Rules.of(settings),
            min_age_hours=settings.wipe.min_age_hours,
            within_days=settings.wipe.within_days,
            max_files=settings.wipe.max_files,
            glance=timedelta(seconds=settings.wipe.glance_s),
        )


def look(tx: AcquisitionTransaction, caller: Caller, new: NewWipe, *, rules: WipeRules) -> Place:
    """Look at a directory; reads the file system, so call it before the transaction that plans."""
    _require(tx, caller, rules)
    agent = sources.agent_of(new, rules.sources)
    given = b"/" + new.relpath
    real = sources.real_path(given)
    if sources.is_ours(tx, real, rules.sources):
        raise InvalidError(
            f'directory "{show_path(given)}" holds the storage or Beamkeeper\'s own files, or lies in them: '
            f"only directories at the source are wiped"
        )
    try:
        is_directory = stat.S_ISDIR(os.stat(real).st_mode)
    except FileNotFoundError as error:
        raise SourceError(f'directory "{show_path(given)}" does not exist on "{agent}": check its name') from error
    except OSError as error:
        raise SourceError(f'"{show_path(given)}" cannot be read: {error.strerror or error}') from error
    if not is_directory:
        raise SourceError(f'"{show_path(given)}" on "{agent}" is no directory: name the one that it is in')
    return Place(agent, RelPath(real.lstrip(b"/")))


def plan(tx: AcquisitionTransaction, caller: Caller, new: NewWipe, *, place: Place, rules: WipeRules) -> Wipe:
    """Ask for a plan of a directory that `look` found good; the same uid again gives the same one."""
    _require(tx, caller, rules)
    if new.uid is not None and (same := tx.wipes.find(new.uid)) is not None:
        if (same.agent, same.relpath) != (place.agent, place.path):
            raise ConflictError(f"wipe {new.uid} is of another directory: give each a uid of its own")
        return same
    return tx.wipes.add(
        new.uid,
        agent=place.agent,
        path=place.path,
        min_age_hours=rules.min_age_hours if new.min_age_hours is None else new.min_age_hours,
        within_days=rules.within_days,
        max_files=rules.max_files,
        by=caller.username,
    )


def run(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, request: WipeRun, rules: WipeRules) -> Wipe:
    """Ask for a plan to be carried out, which says that all is proven; asking again changes nothing."""
    found = show(tx, caller, uid, rules=rules)
    if found.run_at is not None:
        return found
    if found.state is not WipeState.PLANNED or not found.is_safe:
        raise ConflictError(f"it is not safe to wipe by plan {uid}: `dm wipe show` says why", state=str(found.state))
    if found.planned_at is None or tx.now - found.planned_at > PLAN_GOOD_FOR:
        raise ConflictError(f"plan {uid} is older than a day: make another")
    if found.proven_files > rules.max_files:
        raise ConflictError(
            f"plan {uid} has {found.proven_files} files, and a run deletes at most {rules.max_files} "
            f"(setting wipe.max_files): wipe the directories below it one by one",
            files=found.proven_files,
        )
    if request.expected_files != found.proven_files:
        raise ConflictError(
            f"plan {uid} has {found.proven_files} files, and not {request.expected_files}: look at it again",
            files=found.proven_files,
        )
    return tx.wipes.ask(uid, request, by=caller.username)


def show(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, rules: WipeRules) -> Wipe:
    """Return a plan, and what became of it."""
    _require(tx, caller, rules)
    return tx.wipes.get(uid)


def list_(tx: AcquisitionTransaction, caller: Caller, query: WipeQuery, *, rules: WipeRules) -> WipePage:
    """Return plans and runs, newest first."""
    _require(tx, caller, rules)
    return tx.wipes.page(query)


def entries(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, query: WipeEntryQuery, rules: WipeRules
) -> WipeEntryPage:
    """Return the entries of a directory: what is proven, what is not and why, what was deleted."""
    _require(tx, caller, rules)
    return tx.wipe_entries.page(tx.wipes.key(uid), query)


def verdict(tx: AcquisitionTransaction, caller: Caller, *, rules: WipeRules) -> Verdict:
    """Say whether all may be wiped that lies where files were taken from lately, and have old answers found anew.

    What it knows was proven by the rules of every plan, less those by which bytes are read: that is for who asks.
    """
    require(caller, Action.STATION_READ, _target(tx, rules), f'station "{rules.station}"')
    recent = tx.acquisitions.recent(rules.sources.agent, RECENT)
    glances = [_glance(tx, top, rules) for top in _outermost({one.relpath for one in recent})]
    found = verdict_of(glances, tx.now, rules.glance)
    if any(one.count(*UNDELIVERED) for one in recent if one.state in ACTIVE):
        reasons = tuple(sorted({*found.reasons, Reason.ON_ITS_WAY}))
        return found.model_copy(update={"is_safe": False, "reasons": reasons, "proven_files": 0})
    return found


def _glance(tx: AcquisitionTransaction, path: bytes, rules: WipeRules) -> Wipe | None:
    """Return the newest glance at a directory that has ended, and ask for another where that is old."""
    agent = rules.sources.agent
    glances = tx.wipes.glances(agent, path)
    ended = next((one for one in glances if one.state not in ACTIVE_WIPES), None)
    is_old = ended is not None and tx.now - ended.created_at > rest_after(ended, rules.glance)
    if not glances or (glances[0] is ended and is_old):
        new = tx.wipes.add(
            None,
            agent=agent,
            path=path,
            min_age_hours=rules.min_age_hours,
            within_days=rules.within_days,
            max_files=rules.max_files,
            by=rules.station,
            is_glance=True,
        )
        tx.wipes.forget_glances(agent, path, but=new.uid if ended is None else ended.uid)
    return ended


def _outermost(paths: Iterable[bytes]) -> list[bytes]:
    """Return those that lie in none of the others."""
    found: list[bytes] = []
    for path in sorted(bytes(path) for path in paths):
        if not any(is_at_or_below(path, above) for above in found):
            found.append(path)
    return found


def hold(tx: AcquisitionTransaction, caller: Caller, new: NewHold, *, rules: WipeRules) -> Hold:
    """Hold a path: every member of an experiment of the station may. Whether it is there is not looked at."""
    _require_hold(tx, caller, rules)
    if new.uid is not None and (same := tx.holds.find(new.uid)) is not None and same.by == caller.username:
        return same
    path = os.path.normpath(b"/" + new.relpath).lstrip(b"/")
    if not path:
        raise InvalidError("the root directory cannot be held as a whole: name a directory in it")
    agent = sources.agent_of(new, rules.sources)
    return tx.holds.add(new.uid, agent=agent, path=path, why=new.why, by=caller.username)


def holds(tx: AcquisitionTransaction, caller: Caller, *, rules: WipeRules) -> list[Hold]:
    """Return the holds: all of them for who may wipe, one's own for others."""
    _require_hold(tx, caller, rules)
    found = tx.holds.list(rules.sources.agent)
    return found if _may_wipe(tx, caller, rules) else [one for one in found if one.by == caller.username]


def release(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, rules: WipeRules) -> None:
    """Remove a hold: one's own, or for who may wipe anybody's."""
    _require_hold(tx, caller, rules)
    found = tx.holds.get(uid)
    if found.by != caller.username and not _may_wipe(tx, caller, rules):
        raise NotFoundError(f"there is no hold {uid}: `dm hold list` shows them", uid=str(uid))
    tx.holds.remove(uid)


def _target(tx: AcquisitionTransaction, rules: WipeRules) -> Target:
    return Target(station_uid=tx.experiments.station_named(rules.station).uid)


def _may_wipe(tx: AcquisitionTransaction, caller: Caller, rules: WipeRules) -> bool:
    return may(caller, Action.WIPE, _target(tx, rules))


def _require(tx: AcquisitionTransaction, caller: Caller, rules: WipeRules) -> None:
    require(caller, Action.WIPE, _target(tx, rules), f'station "{rules.station}"')


def _require_hold(tx: AcquisitionTransaction, caller: Caller, rules: WipeRules) -> None:
    """Refuse who has no role in the station nor in any of its experiments."""
    station_uid = _target(tx, rules).station_uid
    reached = reach(caller, Action.HOLD)
    is_member = any(tx.experiments.get(uid).station_uid == station_uid for uid in reached.experiments)
    if not (reached.is_all or station_uid in reached.stations or is_member):
        raise NotPermittedError(f'{caller.username} has no role in station "{rules.station}", and may hold nothing')
