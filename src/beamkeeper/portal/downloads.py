"""Getting files: one, a selection, or what a query finds; and links for people without an account."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from urllib.parse import quote
from uuid import UUID

from starlette.responses import Response, StreamingResponse

from beamkeeper.client import Client
from beamkeeper.domain.downloads import LONGEST_LINK_DAYS, FileSet, Link
from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.files import File
from beamkeeper.domain.names import show_path
from beamkeeper.portal.experiments import Shown, shown
from beamkeeper.portal.files import meaning, meant, uid_of
from beamkeeper.portal.routes import forms, get, post
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit, whole

LINK_DAYS = 7
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.IGNORECASE)
"""One part, from a place on: what goes on with a download that broke off."""


def _attached(name: str) -> dict[str, str]:
    """Return the header that has a browser keep what it gets, whatever it looks like."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in name)
    value = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
    return {"content-disposition": value, "content-security-policy": "sandbox"}


def content(visit: Visit) -> Response:
    """Return the bytes of a file."""
    file, client, _ = meant(visit)
    name = show_path(file.relpath).rpartition("/")[2]
    return _streamed(visit, partial(client.downloads.read, file), name, size=file.size, etag=f'"{file.version_uid}"')


def _streamed(visit: Visit, read: Callable[[int], Iterator[bytes]], name: str, *, size: int, etag: str) -> Response:
    """Return bytes to be kept; from where a download broke off, if a browser asks for the rest of the same."""
    headers = {**_attached(name), "accept-ranges": "bytes", "etag": etag}
    part = _rest(visit.request.headers, size, etag)
    if part is not None and part[0] >= size:
        return Response("It has no such part.", 416, {**headers, "content-range": f"bytes */{size}"})
    begin, end = part or (0, size)
    parts = read(begin)
    first = next(parts, b"")  # so that what is refused is refused with a status, and a sentence
    headers["content-length"] = str(end - begin)
    if part is not None:
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    body = _cut(chain((first,), parts), end - begin)
    return StreamingResponse(body, 206 if part else 200, headers, media_type="application/octet-stream")


def _rest(headers: Mapping[str, str], size: int, etag: str) -> tuple[int, int] | None:
    """Return the one part that is asked for, from its first byte up to one; None where the whole is meant."""
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    begin, end = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    return (begin, end) if begin < end or begin >= size else None


def _cut(parts: Iterable[bytes], left: int) -> Iterator[bytes]:
    for part in parts:
        yield part[:left]
        left -= len(part)
        if left <= 0:
            return


def gather(visit: Visit) -> Response:
    """Freeze what was chosen or found as one archive, and go to its page."""
    of = shown(visit)
    client = visit.at(of.experiment.station)
    made = client.downloads.freeze(of.experiment.uid, of.experiment.name, _chosen(visit, client, of))
    if made.files == 0:
        raise InvalidError("there is no file in it: choose some, or change the query")
    return visit.go(f"{of.path}/archives/{made.uid}")


def _chosen(visit: Visit, client: Client, of: Shown) -> Iterator[File]:
    if chosen := visit.form.all("file"):
        for uid in chosen:
            file = client.files.get(uid_of(uid))
            if file.experiment_uid != of.experiment.uid:
                raise InvalidError("an archive has files of one experiment")
            yield file
        return
    yield from client.files.find(meaning(visit.form.get("q", ""), of.experiment.uid))


def archive_page(visit: Visit) -> Response:
    """Show an archive: how large it is, how to get it, and to whom links to it lead."""
    return _archive_page(visit)


def _archive_page(visit: Visit, made: tuple[Link, str] | None = None, message: str = "", status: int = 200) -> Response:
    of = shown(visit)
    found = _set(visit, of)
    may_share = of.may("file:share")
    links = _links_table(visit, of, found.uid)
    return visit.page(
        "files/archive.html",
        status,
        of=of,
        set=found,
        table=links,
        rows=links.read(None) if may_share else Rows([]),
        may_share=may_share,
        is_shared=may_share and visit.client.links.sharing(of.experiment.uid).is_allowed,
        made=made,
        message=message,
        days=LINK_DAYS,
    )


def links(visit: Visit) -> Response:
    """List the links to an archive."""
    of = shown(visit)
    return _links_table(visit, of, _set(visit, of).uid).answer(visit, "")


def _links_table(visit: Visit, of: Shown, set_uid: UUID) -> Table[Link]:
    columns: Sequence[Column[Link]] = (
        Column("note", "For", lambda one: one.note),
        Column("state", "State", lambda one: one.state, "state"),
        Column("created_by", "Made by", lambda one: one.created_by),
        Column("expires_at", "Expires", lambda one: one.expires_at, "time"),
        Column("downloads", "Downloads", lambda one: one.downloads, "count"),
        Column("last_used_at", "Last used", lambda one: one.last_used_at, "time"),
    )

    def read(after: str | None) -> Rows[Link]:
        return Rows([one for one in visit.client.links.list(of.experiment.uid) if one.set_uid == set_uid])

    at = f"{of.path}/archives/{set_uid}/links"
    return Table(f"{of.experiment.name}-links", columns, read, "There is no link to it.", at=at)


def _set(visit: Visit, of: Shown) -> FileSet:
    found = visit.client.downloads.get_set(visit.uid("set"))
    if found.experiment_uid != of.experiment.uid:
        raise InvalidError("this archive is of another experiment")
    return found


def archive(visit: Visit) -> Response:
    """Return the archive."""
    of = shown(visit)
    found = _set(visit, of)
    if not found.is_frozen:
        raise InvalidError("this archive is not whole: its files were never all named; make another")
    read = partial(visit.client.downloads.archive, found.uid)
    return _streamed(visit, read, f"{found.name}.tar", size=found.size, etag=f'"{found.etag}"')


def link(visit: Visit) -> Response:
    """Make a link to an archive for somebody without an account; its address is shown this once."""
    of = shown(visit)
    days = whole(visit.form.get("days", str(LINK_DAYS)))
    if days is None or days > LONGEST_LINK_DAYS:
        return _archive_page(visit, message=f"a link lasts from 1 to {LONGEST_LINK_DAYS} days", status=422)
    try:
        expires_at = datetime.now(UTC) + timedelta(days=days)
        made = visit.client.links.create(_set(visit, of), expires_at, visit.form.get("note", ""))
    except DmError as error:
        return _archive_page(visit, message=error.message, status=422)
    return _archive_page(visit, made)


def allow(visit: Visit) -> Response:
    """Allow links into the experiment of an archive."""
    of = shown(visit)
    visit.client.links.allow(of.experiment.uid, True)
    return visit.go(f"{of.path}/archives/{visit.uid('set')}")


def revoke(visit: Visit) -> Response:
    """Let a link lead nowhere."""
    of = shown(visit)
    visit.client.links.revoke(visit.form_uid("link"))
    return visit.go(f"{of.path}/archives/{visit.uid('set')}")


ROUTES = (
    get("/files/{uid}/content", content),
    post("/experiments/{uid}/archives", gather),
    get("/experiments/{uid}/archives/{set}", archive_page),
    get("/experiments/{uid}/archives/{set}/tar", archive),
    *forms("/experiments/{uid}/archives/{set}/links", links),
    post("/experiments/{uid}/archives/{set}/links", link),
    post("/experiments/{uid}/archives/{set}/allow", allow),
    post("/experiments/{uid}/archives/{set}/revoke", revoke),
)
