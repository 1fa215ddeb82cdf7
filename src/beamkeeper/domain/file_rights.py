"""Rights on the files of an experiment: who gets which, by the tree that a file is in, and how they are given."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from beamkeeper.domain.acls import Acl
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.storage import STAGING, VERSIONS

READ, WRITE, ENTER = 4, 2, 1

HIDDEN = ".dm"
"""Below an experiment's directory: what is ours alone, and what none of its people can enter."""


class Place(StrEnum):
    """Where in an experiment's directory something is, as far as rights depend on it."""

    TOP = "top"
    DATA = "data"
    ANALYSIS = "analysis"
    SYSTEM = "system"
    HIDDEN = "hidden"
    STAGING = "staging"


PLACES: dict[str, Place] = {
    Tree.DATA: Place.DATA,
    Tree.ANALYSIS: Place.ANALYSIS,
    Tree.SYSTEM: Place.SYSTEM,
    HIDDEN: Place.HIDDEN,
    STAGING: Place.STAGING,
    VERSIONS: Place.HIDDEN,
}
"""What a creation makes below an experiment's directory, each after its parent."""

DIRECTORY_MODES: dict[Place, int] = {
    Place.TOP: 0o2750,
    Place.DATA: 0o2750,
    Place.ANALYSIS: 0o2770,
    Place.SYSTEM: 0o2750,
    Place.HIDDEN: 0o700,
    Place.STAGING: 0o2700,
}
"""data is ours to write, analysis is people's too; what is staged has its group already when it gets its name."""

FILE_MODES: dict[Place, int] = {Place.DATA: 0o440, Place.ANALYSIS: 0o660, Place.SYSTEM: 0o640}
"""Nobody writes into a published version."""

_INHERITED: dict[Place, int] = {
    Place.DATA: READ | ENTER,
    Place.ANALYSIS: READ | WRITE | ENTER,
    Place.SYSTEM: READ | ENTER,
    Place.STAGING: READ | WRITE | ENTER,
}
"""What the group may do with whatever is made there; the mode of a published file takes the rest away."""


class Way(StrEnum):
    """How the experiment's group gets its rights."""

    OWNED = "owned"
    """The files belong to the group: it takes CAP_CHOWN and CAP_FSETID, or that we are of the group."""
    NAMED = "named"
    """The group is named in access control lists: whoever owns a file may do that."""
    UNKNOWN = "unknown"
    """There is no group, or neither can be done: the files belong to the group of who makes them."""


@dataclass(frozen=True, slots=True)
class Rights:
    """How rights are given on one experiment's files."""

    way: Way = Way.UNKNOWN
    gid: int | None = None
    has_acls: bool = True

    def directory_acl(self, place: Place) -> Acl:
        """Return who may do what with a directory of a place."""
        return self._acl((DIRECTORY_MODES[place] >> 3) & 7)

    def default_acl(self, place: Place) -> Acl | None:
        """Return what is made in a directory of a place inherits; None where that is the umask's matter."""
        group = _INHERITED.get(place)
        return None if group is None or not self.has_acls else self._acl(group)

    def _acl(self, group: int) -> Acl:
        if self.way is Way.NAMED and self.gid is not None and group:
            return Acl(7, 0, 0, groups={self.gid: group}, mask=group)
        return Acl(7, group, 0)


def way_for(gid: int | None, *, may_give: bool, has_acls: bool) -> Way:
    """Return the way that can be gone: owning is first, since every tool shows it."""
    if gid is None:
        return Way.UNKNOWN
    if may_give:
        return Way.OWNED
    return Way.NAMED if has_acls else Way.UNKNOWN


def place_of(path: bytes) -> Place:
    """Return the place of a path below an experiment's directory; empty is the directory itself."""
    if not path:
        return Place.TOP
    if path == STAGING.encode() or path.startswith(f"{STAGING}/".encode()):
        return Place.STAGING
    first = path.split(b"/", 1)[0].decode("utf-8", "replace")
    return PLACES.get(first, Place.TOP)
