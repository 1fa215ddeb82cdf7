"""The facility's proposals and forms, from which an experiment's form is filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from zoneinfo import ZoneInfo

from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.people import Participant, Proposal, ProposalKind, ProposalQuery
from beamkeeper.portal.visits import Visit

SHOWN = 20
NAMES: Mapping[ProposalKind, str] = {ProposalKind.GUP: "proposal", ProposalKind.ESAF: "esaf"}
"""What a field of the form, and of the address, is called that has the number of such a paper."""


@dataclass(frozen=True)
class Papers:
    """What the form for an experiment knows of proposals and forms."""

    is_any: bool = False
    found: Sequence[tuple[Proposal, str]] = ()
    """What the search found, each with the address of the form that takes it."""
    is_cut: bool = False
    taken: Sequence[Proposal] = ()
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def people(self) -> Sequence[Participant]:
        """Who gets a role by what was taken: PIs first."""
        return sorted((one for paper in self.taken for one in paper.people), key=lambda one: not one.is_pi)


def papers(visit: Visit, station: str) -> Papers:
    """Return what is found and taken of the papers that the address names."""
    text = visit.query.get("find", "").strip()
    try:
        page = visit.client.syncs.proposals.page(ProposalQuery(text=text[:200] or None, limit=SHOWN))
    except NotPermittedError:
        return Papers()
    taken = [
        visit.client.syncs.proposals.get(kind, visit.query[name])
        for kind, name in NAMES.items()
        if visit.query.get(name)
    ]
    return Papers(
        is_any=bool(page.items or text or taken),
        found=[(one, visit.with_query(**{NAMES[one.kind]: one.number, "find": None})) for one in page.items],
        is_cut=page.next is not None,
        taken=taken,
        values=_filled(taken, ZoneInfo(visit.portal.zone(station))),
    )


def _filled(taken: Sequence[Proposal], zone: ZoneInfo) -> Mapping[str, str]:
    """Return what a form has of papers: as the service fills what a form leaves out."""
    starts = [one.starts_at for one in taken if one.starts_at is not None]
    ends = [one.ends_at for one in taken if one.ends_at is not None]
    leaders = [person.username for one in taken for person in one.people if person.is_pi and person.username]
    values = {NAMES[one.kind]: one.number for one in taken}
    values["title"] = next((one.title for one in taken if one.title), "")
    values["pi"] = next(iter(leaders), "")
    values["starts_at"] = min(starts).astimezone(zone).date().isoformat() if starts else ""
    last = max(ends) - timedelta(microseconds=1) if ends else None  # a day ends where the next begins
    values["ends_at"] = last.astimezone(zone).date().isoformat() if last else ""
    return {key: value for key, value in values.items() if value}
