"""The audit log: who changed what from where, with what result, in rows that are chained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from beamkeeper.domain.names import Input, Model, Uid, UtcTime

FIRST_DIGEST = "0" * 64
"""What the first row is chained to."""

MOST_CHANGES = 20
"""A row names so many changed things; of more it says how many."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class AuditedChange(Model):
    """One thing that changed: what differs, before and after; null where it was not, or is no more."""

    table: str
    uid: str = Field(default="", description="Of the thing, where it has one.")
    before: Mapping[str, JsonValue] | None = None
    after: Mapping[str, JsonValue] | None = None


class NewAuditEntry(Model):
    """What is known of a change as it ends."""

    username: str
    user_uid: Uid | None = None
    session_uid: Uid | None = None
    address: str = Field(default="", description="Where the request came from.")
    action: str = Field(description="The method and the route.")
    target: Mapping[str, str] = Field(default={}, description="What the route was called with.")
    result: str = Field(default="done", description="done, or the code of the error.")
    message: str = Field(default="", description="Why it was refused or failed.")
    changes: Sequence[AuditedChange] = ()
    more: int = Field(default=0, description="How many things changed besides those listed.")


class AuditEntry(NewAuditEntry):
    """A row of the audit log."""

    number: int
    at: UtcTime
    digest: str = Field(description="Of this row and of the digest before it.")


class AuditQuery(Input):
    """Which rows are wanted, newest first."""

    username: Annotated[str, StringConstraints(max_length=256)] | None = None
    action: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="A part of the method and the route."
    )
    before: int | None = Field(default=None, ge=1, le=2**53, description="Rows below this number.")
    limit: int = Field(default=100, ge=1, le=1000)


class AuditPage(Model):
    """Some rows, newest first, and the number that continues the list."""

    items: Sequence[AuditEntry]
    before: int | None = None


class AuditChain(Model):
    """What a check of the chain found."""

    rows: int
    number: int = Field(description="Of the newest row.")
    digest: str = Field(description="Of the newest row: keep it elsewhere, and later ask whether it still stands.")
    faults: Sequence[str] = Field(description="What does not fit, at most twenty of them.")


def digest_of(previous: str, number: int, at: datetime, entry: NewAuditEntry) -> str:
    """Return the digest that chains a row to the one before it."""
    fields = NewAuditEntry.model_fields
    plain = {"number": number, "at": at.isoformat(), **entry.model_dump(mode="json", include=set(fields))}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()
