"""Groups of experiments in a directory server: their names, who is to be in them, and what differs."""

from __future__ import annotations

import re
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from pydantic import Field

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime

DEFAULT_NAME = "bk-{experiment}"
NAME_FIELDS = frozenset({"experiment", "station", "number"})
LONGEST_NAME = 32
"""As long as the tools of Linux take a group's name."""

_OUTSIDE = re.compile(r"[^a-z0-9_-]+")


def check_group_name(template: str) -> str:
    """Return a template for names of groups; refuse unknown fields, and one that gives every experiment the same."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InvalidError(f'"{template}" is no template ({error}): write it like {DEFAULT_NAME}') from error
    if unknown := sorted(set(fields) - NAME_FIELDS):
        known = " ".join(sorted(f"{{{name}}}" for name in NAME_FIELDS))
        raise InvalidError(f'group name "{template}" has an unknown field "{unknown[0]}": use {known}')
    if not {"experiment", "number"} & set(fields):
        raise InvalidError(f'group name "{template}" is the same for all: put {{experiment}} or {{number}} into it')
    if not re.match(r"[a-z_]", template):
        raise InvalidError(f'group name "{template}" begins with what no group does: begin with a small letter')
    return template


def group_name(template: str, *, experiment: str, station: str, number: int, taken: Collection[str]) -> str:
    """Return a name that hosts and directories take, and that no other experiment has.

    Names of groups know small letters, digits, `_` and `-`, and directories do not tell A from a: so two experiments
    may come to one name. The later one gets its number, as does one whose name is cut.
    """
    whole = template.format(experiment=experiment, station=station, number=number)
    plain = _OUTSIDE.sub("-", whole.lower())
    if len(plain) <= LONGEST_NAME and plain not in taken:
        return plain
    ends = (f"-{number}" if again == 1 else f"-{number}-{again}" for again in count(1))
    return next(name for end in ends if (name := plain[: LONGEST_NAME - len(end)].rstrip("-") + end) not in taken)


class GroupState(StrEnum):
    """How an experiment's group stands."""

    WAITING = "waiting"
    """It has not been compared since it last changed."""
    SAME = "same"
    """Just those are in it who belong to the experiment."""
    DIFFERENT = "different"
    """Others are in it as well, or some cannot be put into it."""
    FAILED = "failed"
    """It cannot be kept: the message says why."""


class GroupDifference(Model):
    """Who is in a group and who should be."""

    missing: tuple[str, ...] = Field(default=(), description="Of the experiment, and not in the group yet.")
    surplus: tuple[str, ...] = Field(default=(), description="Of the experiment no more, and in the group still.")
    foreign: tuple[str, ...] = Field(default=(), description="In the group, and never of the experiment.")
    unknown: tuple[str, ...] = Field(default=(), description="Of the experiment, and without an account there.")

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.surplus or self.foreign or self.unknown)


class ExperimentGroup(Model):
    """The group of an experiment in the directory server, as it was when last compared."""

    experiment_uid: Uid
    experiment: str
    station: str
    name: str
    gid: int | None = Field(default=None, description="Its number on POSIX hosts, once it has one.")
    state: GroupState
    message: Title = ""
    difference: GroupDifference = GroupDifference()
    is_pending: bool = Field(description="A comparison was asked for, and has not been tried yet.")
    compared_at: UtcTime | None = None
    is_known_to_host: bool | None = Field(
        default=None, description="Whether the storage host knows its number under its name; none where it has none."
    )


class GroupQuery(Input):
    """Which groups are wanted, by name."""

    is_differing: bool = Field(
        default=False, description="Only those that are not as they should be, or are being compared."
    )
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class GroupPage(Model):
    """Some groups by name, and the cursor that continues the list."""

    items: tuple[ExperimentGroup, ...]
    next: str | None = None


class NewComparison(Input):
    """A comparison that is wanted now."""

    is_repair: bool = Field(default=False, description="Take those out who are foreign, whatever the policy.")


class Compared(Model):
    """How many groups will be compared."""

    groups: int


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A group as a directory server has it; members by username, with the value that stands for each."""

    name: str
    gid: int | None = None
    is_ours: bool = False
    members: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    """Values that stand for no username."""


@dataclass(frozen=True, slots=True)
class DirectoryLook:
    """What a directory server has: groups by name, and for usernames the value that puts one into a group."""

    groups: Mapping[str, FoundGroup]
    accounts: Mapping[str, str]
    faults: Mapping[str, str] = field(default_factory=dict)
    """Groups that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What is to be done to a group; `add` and `remove` are values as a look gave them."""

    name: str
    is_new: bool = False
    gid: int | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """What came of a change: empty where it is done."""

    name: str
    why: str = ""
    is_taken: bool = False
    """The number belongs to something else there."""


def difference(
    found: FoundGroup, *, wanted: Collection[str], ours: Collection[str], accounts: Collection[str]
) -> GroupDifference:
    """Return what differs; `ours` are all who were ever of the experiment, so that it is ours to take them out."""
    present, due = set(found.members), set(wanted)
    return GroupDifference(
        missing=tuple(sorted((due - present) & set(accounts))),
        surplus=tuple(sorted((present - due) & set(ours))),
        foreign=tuple(sorted([*(present - due - set(ours)), *found.others])),
        unknown=tuple(sorted(due - present - set(accounts))),
    )
