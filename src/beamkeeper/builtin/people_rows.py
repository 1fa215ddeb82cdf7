"""From the rows of a facility's database to people and proposals, whatever its columns are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pydantic import Field, ValidationError

from beamkeeper.domain.people import Person, Proposal, ProposalKind, Refused, RefusedPerson
from beamkeeper.plugins.api import Options

Row = Mapping[str, Any]

PERSON = ("username", "full_name", "email", "badge", "institution", "is_active", "password_hash", "uid_number")
PROPOSAL = ("kind", "number", "title", "starts_at", "ends_at", "username", "badge", "is_pi")
NO = frozenset({"", "0", "f", "false", "n", "no"})


class ColumnOptions(Options):
    """What the columns are called, where they are not called as ours."""

    columns: Mapping[str, str] = Field(default_factory=dict)
    """From our names (username, full_name, email, badge, institution, is_active, password_hash, uid_number; kind,
    number, title, starts_at, ends_at, username, badge, is_pi) to theirs."""
    kind: ProposalKind | None = None
    """Which papers these are, where no column says it."""


def people(rows: Iterable[Row], options: ColumnOptions) -> Iterator[Person | Refused]:
    """Yield a person for each row, or why it is none."""
    for number, row in enumerate(rows, start=1):
        fields = _fields(row, PERSON, options)
        fields["username"] = str(fields.get("username", "")).strip()
        if "is_active" in fields:
            fields["is_active"] = _is_true(fields["is_active"])
        made = _made(Person, fields, f"row {number} ({fields['username'][:64] or 'no username'})")
        yield _there(made, fields) if isinstance(made, Refused) else made


def proposals(rows: Iterable[Row], options: ColumnOptions) -> Iterator[Proposal | Refused]:
    """Yield each proposal with its people: a row is one of its people, or the whole with a list of `people`."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        fields = _fields(row, PROPOSAL, options)
        kind, own = str(fields.get("kind") or options.kind or "").lower(), str(fields.get("number", "")).strip()
        if not own or kind not in tuple(ProposalKind):
            yield Refused(
                what=f"row {number}", why="it has no number" if not own else f'it is "{kind}", not gup or esaf'
            )
            continue
        paper = found.setdefault((kind, own), {"kind": kind, "number": own, "people": {}})
        paper.update({name: fields[name] for name in ("title", "starts_at", "ends_at") if fields.get(name) is not None})
        listed = row.get(options.columns.get("people", "people"))
        for person in listed if isinstance(listed, list) else [row]:
            if isinstance(person, Mapping):
                _add(paper["people"], _fields(person, ("username", "badge", "is_pi"), options))
            else:
                yield Refused(
                    what=f"{kind} {own}", why="somebody of its people is no object with a username or a badge"
                )
    for (kind, own), paper in found.items():
        paper["people"] = tuple(paper["people"].values())
        try:
            paper["starts_at"] = _moment(paper.get("starts_at"), is_end=False)
            paper["ends_at"] = _moment(paper.get("ends_at"), is_end=True)
        except ValueError as error:
            yield Refused(what=f"{kind} {own}", why=f"its dates: {error}")
            continue
        yield _made(Proposal, paper, f"{kind} {own}")


def _there(refused: Refused, fields: Mapping[str, Any]) -> Refused:
    """Return who it is that was refused, where the row says that at least."""
    try:
        known = Person(username=fields["username"], is_active=fields.get("is_active", True))
    except ValidationError:
        return refused
    return RefusedPerson(**refused.model_dump(), username=known.username) if known.is_active else refused


def _add(people_of: dict[tuple[str, str], dict[str, Any]], fields: dict[str, Any]) -> None:
    username, badge = str(fields.get("username") or "").strip(), str(fields.get("badge") or "").strip()
    if not username and not badge:
        return
    known = people_of.setdefault((username, badge), {"username": username, "badge": badge, "is_pi": False})
    known["is_pi"] = known["is_pi"] or _is_true(fields.get("is_pi", ""))


def _fields(row: Row, names: Iterable[str], options: ColumnOptions) -> dict[str, Any]:
    found = {name: row.get(options.columns.get(name, name)) for name in names}
    return {name: value for name, value in found.items() if value is not None and value != ""}


def _made(model: type[Any], fields: Mapping[str, Any], what: str) -> Any:
    texts = {
        name: str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in fields.items()
    }  # a badge is a number in most databases
    try:
        return model.model_validate(texts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Refused(what=what, why=f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def _is_true(value: object) -> bool:
    return str(value).strip().lower() not in NO


def _moment(value: object, *, is_end: bool) -> datetime | None:
    """Return a time of theirs, which is UTC where it says no zone; the end of a day is the beginning of the next."""
    if value is None:
        return None
    parsed: datetime | date = value if isinstance(value, date) else datetime.fromisoformat(str(value).strip())
    is_day = not isinstance(parsed, datetime) or (isinstance(value, str) and len(value.strip()) == len("2026-11-30"))
    moment = parsed if isinstance(parsed, datetime) else datetime.combine(parsed, time())
    if is_day and is_end:
        moment = moment + timedelta(days=1) if moment.date() < date.max else moment.replace(hour=23, minute=59)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
