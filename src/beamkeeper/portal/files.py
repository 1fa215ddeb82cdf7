"""Files: finding them by a query, walking through an experiment's directories, and everything about one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from pydantic import JsonValue, ValidationError
from starlette.responses import Response

from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError
from beamkeeper.domain.files import File, FileOrder, FileQuery
from beamkeeper.domain.ledger import DirectoryCount
from beamkeeper.domain.names import Metadata, RelPath, from_b64, show_path, to_b64
from beamkeeper.portal import drawing
from beamkeeper.portal.experiments import Shown, shown, shown_of
from beamkeeper.portal.routes import forms, get, listing
from beamkeeper.portal.tables import Column, Rows, Table, rows_after
from beamkeeper.portal.visits import Visit, address

PAGE = 50
MOST = 1000
MOST_FACETS = 6
MOST_COLUMNS = 10
MOST_NAMES = 10_000
FoundT = TypeVar("FoundT")
_PLAIN_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def value_at(metadata: Metadata, key: str) -> JsonValue:
    """Return the value at a dotted path; one with a unit as people read it."""
    here: JsonValue = metadata
    for part in key.split("."):
        if not isinstance(here, dict) or part not in here:
            return None
        here = here[part]
    if isinstance(here, dict) and set(here) == {"value", "unit"}:
        return f"{here['value']} {here['unit']}"
    return here if not isinstance(here, (dict, list)) else json.dumps(here, ensure_ascii=False)


def columns(names: Mapping[UUID, str], keys: Sequence[str], *, is_in_experiment: bool) -> Sequence[Column[File]]:
    """Return the columns of a list of files, with one for each metadata key that is wanted."""
    return (
        Column("path", "File", lambda one: show_path(one.relpath), "code", lambda one: f"/files/{one.uid}"),
        *(() if is_in_experiment else (_experiment_column(names),)),
        Column("size", "Size", lambda one: one.size, "size"),
        Column("state", "Copy", _state, "state"),
        *(Column[File](key, key, _metadata_column(key)) for key in keys),
        Column("modified_at", "Modified", lambda one: one.modified_at, "time"),
        Column("version", "Version", lambda one: one.version, "count"),
        Column("uid", "Uid", lambda one: one.uid, "uid"),
    )


def _experiment_column(names: Mapping[UUID, str]) -> Column[File]:
    return Column(
        "experiment",
        "Experiment",
        lambda one: names.get(one.experiment_uid, str(one.experiment_uid)),
        href=lambda one: f"/experiments/{one.experiment_uid}",
    )


def _metadata_column(key: str) -> Any:
    return lambda one: value_at(one.metadata, key)


def _state(one: File) -> str:
    return "suspect" if one.is_suspect else "verified" if one.is_verified else "unverified"


def meaning(text: str, experiment_uid: UUID | None, **more: Any) -> FileQuery:
    """Return the query that a text is: conditions in the short notation, or a document."""
    given: dict[str, Any] = {"experiment_uid": experiment_uid, "limit": MOST, **more}
    if text.startswith("{"):
        try:
            given["filter"] = json.loads(text)
        except ValueError as error:
            raise InvalidError(f"the document is no JSON ({error}): write conditions or a whole document") from error
    elif text:
        given["query"] = text
    return FileQuery.model_validate(given)


def asked(visit: Visit, experiment_uid: UUID | None = None) -> FileQuery:
    """Return the query that an address has."""
    limit = visit.page_size(PAGE, MOST)
    more = {"order": FileOrder(visit.query["order"])} if visit.query.get("order") in tuple(FileOrder) else {}
    return meaning(visit.query.get("q", "").strip(), experiment_uid, limit=limit, **more)


def find(visit: Visit) -> Response:
    """Find files of all experiments that one may read at this station, or of one of them."""
    of = shown(visit) if "uid" in visit.request.path_params else None
    client = visit.at(of.experiment.station) if of else visit.client
    try:
        return _found(visit, client, of)
    except (InvalidError, ValidationError) as error:
        if visit.path.endswith((".csv", ".json")):
            raise
        message = error.message if isinstance(error, DmError) else str(error)
        return visit.page("files/find.html", 422, of=of, message=message, table=None, values=None, where=where(of))


def where(of: Shown | None) -> str:
    """Return the address of the search."""
    return f"{of.path}/find" if of else "/files"


def _found(visit: Visit, client: Client, of: Shown | None) -> Response:
    query = asked(visit, of.experiment.uid if of else None)
    keys = list(dict.fromkeys(visit.query.get("columns", "").replace(",", " ").split()))[:MOST_COLUMNS]
    names: dict[UUID, str] = {}
    partial = False

    def read(after: str | None) -> Rows[File]:
        nonlocal partial
        page = client.files.page(query.model_copy(update={"after": after}))
        partial = page.is_partial
        if of is None:
            _name(visit, names, page.items)
        return Rows(page.items, page.next)

    empty = "No file matches. Conditions look like: size > 1GB and energy >= 12keV and modified > -7d"
    table = Table("files", columns(names, keys, is_in_experiment=of is not None), read, empty)
    if visit.path.endswith((".csv", ".json")):
        return table.answer(visit, "")
    rows = read(visit.query.get("after"))
    return visit.page(
        "files/find.html",
        of=of,
        message="",
        table=table,
        rows=rows,
        next_page=visit.with_query(after=rows.next) if rows.next else None,
        is_partial=partial,
        values=_values(visit, of, rows.items),
        where=where(of),
        whole=_whole(visit, names, of, rows),
    )


def _whole(visit: Visit, names: Mapping[UUID, str], of: Shown | None, rows: Rows[File]) -> dict[str, str] | None:
    """Return where all that is found can be had at once; None where it may be of several experiments."""
    uid, name = (of.experiment.uid, of.experiment.name) if of else next(iter(names.items()), (None, ""))
    if uid is None or (of is None and (rows.next or len(names) > 1)):
        return None
    given = {"experiment": name, "q": visit.query.get("q", "").strip() or "size >= 0"}
    return {"path": f"/experiments/{uid}", "workflows": address("/workflows", given)}


def _name(visit: Visit, names: dict[UUID, str], files: Iterable[File]) -> None:
    """Learn the names of the experiments of files: they are given once, so that each is asked for once.

    Who may read a file may know what its experiment is called.
    """
    known = visit.portal.names
    for uid in {file.experiment_uid for file in files} - set(names):
        with suppress(DmError):
            if uid not in known:
                if len(known) >= MOST_NAMES:
                    known.clear()
                known[uid] = visit.client.experiments.by_uid(uid).name
            names[uid] = known[uid]


def _values(visit: Visit, of: Shown | None, files: Sequence[File]) -> str | None:
    """Return where the values of the keys of these files are; None where they have none.

    They are asked for once the page is there: to count them takes as long as to find the files.
    """
    keys = list(dict.fromkeys(key for file in files for key in leaves(file.metadata)))[:MOST_FACETS]
    return address(f"{where(of)}/values", {**visit.query, "after": None, "keys": " ".join(keys)}) if keys else None


def leaves(metadata: Metadata, above: str = "") -> Iterable[str]:
    """Yield the dotted paths of single values, as far as a query can name them."""
    for key, value in metadata.items():
        if not _PLAIN_PART.match(key):
            continue
        if isinstance(value, dict) and set(value) != {"value", "unit"}:
            yield from leaves(value, f"{above}{key}.")
        elif not isinstance(value, list) and value is not None:
            yield f"{above}{key}"


def browse(visit: Visit) -> Response:
    """Walk through the directories of an experiment."""
    of = shown(visit)
    client = visit.at(of.experiment.station)
    here = directory(visit)
    query = FileQuery(
        experiment_uid=of.experiment.uid,
        filter={"directory": show_path(here)},
        order=FileOrder.PATH,
        limit=visit.page_size(PAGE, MOST),
    )

    below = _below_table(visit, of, here)
    counts = list(client.files.directories(of.experiment.uid, here or None))

    def read(after: str | None) -> Rows[File]:
        if not any(bytes(count.relpath) == here for count in counts):
            return Rows([])  # to look through all that lies below for nothing takes long
        page = client.files.page(query.model_copy(update={"after": after}))
        return Rows(page.items, page.next)

    empty = "No file lies in this directory itself." if here else "Choose a directory."
    table = Table(of.experiment.name, columns({}, [], is_in_experiment=True), read, empty)
    lines = rows_after(_below(counts, here), _name_of, visit.query.get("below"), PAGE)
    more = visit.with_query(below=lines.next) if lines.next else None
    values = {"of": of, "here": show_path(here), "above": above(here), "below": below, "lines": lines, "more": more}
    return table.answer(visit, "files/browse.html", is_top=not here, **values)


def directories(visit: Visit) -> Response:
    """List the directories just below one, with what is in them."""
    of = shown(visit)
    return _below_table(visit, of, directory(visit)).answer(visit, "")


def _below_table(visit: Visit, of: Shown, here: bytes) -> Table[Mapping[str, Any]]:
    """Return the table of the directories just below one, which stands on the page of that one."""
    columns: Sequence[Column[Mapping[str, Any]]] = (
        Column("name", "Directory", lambda one: one["name"], "code", lambda one: f"{of.path}/files{one['to']}"),
        Column("files", "Files", lambda one: one["files"], "count"),
        Column("bytes", "Size", lambda one: one["bytes"], "size"),
        Column("verified", "Verified", lambda one: one["verified"], "count"),
    )

    limit = visit.page_size(PAGE, MOST)

    def read(after: str | None) -> Rows[Mapping[str, Any]]:
        counts = visit.at(of.experiment.station).files.directories(of.experiment.uid, here or None)
        return rows_after(_below(counts, here), _name_of, after, limit)

    empty = "Nothing is stored yet: start a DAQ or an upload." if not here else "No directory lies in this one."
    return Table(f"{of.experiment.name}-directories", columns, read, empty, at=f"{of.path}/directories")


def directory(visit: Visit) -> bytes:
    """Return the directory that the address names; nothing is the top."""
    text = visit.query.get("dir", "")
    if b64 := visit.query.get("dir_b64"):
        with suppress(ValueError):
            return bytes(RelPath(from_b64(b64)))
        raise NotFoundError("there is no such directory: the address has a wrong name")
    return bytes(RelPath(os.fsencode(text.strip("/")))) if text.strip("/") else b""


def above(here: bytes) -> list[tuple[str, str]]:
    """Return the directories above, each with its address."""
    parts = here.split(b"/") if here else []
    return [(show_path(part), _at(b"/".join(parts[: end + 1]))) for end, part in enumerate(parts)]


def _at(path: bytes) -> str:
    return address("", {"dir_b64": to_b64(path)})


def _name_of(line: Mapping[str, Any]) -> bytes:
    own: bytes = line["key"]
    return own


def _below(counts: Iterable[DirectoryCount], here: bytes) -> list[dict[str, Any]]:
    """Return the directories just below one, with what is in each and all below it."""
    top = here + b"/" if here else b""
    found: dict[bytes, dict[str, Any]] = {}
    for count in counts:
        path = bytes(count.relpath)
        if path == here or not path.startswith(top):
            continue
        name = path[len(top) :].split(b"/")[0]
        new = {"key": name, "name": f"{show_path(name)}/", "to": _at(top + name), "files": 0, "bytes": 0, "verified": 0}
        line = found.setdefault(name, new)
        for key in ("files", "bytes", "verified"):
            line[key] += getattr(count, key)
    return [found[name] for name in sorted(found)]


def show(visit: Visit) -> Response:
    """Show everything about a file."""
    uid = visit.uid()
    known, client = _at_its_station(visit, lambda client: client.files.record(uid))
    file, of = known.file, shown_of(visit, known.file.experiment_uid)
    areas = {area.uid: area.name for area in _areas(client)}
    return visit.page(
        "files/show.html",
        of=of,
        file=file,
        name=show_path(file.relpath),
        directory=address(f"{of.path}/files", {"dir_b64": to_b64(os.path.dirname(file.relpath))}),
        history=known,
        areas=areas,
        changes=known.changes,
        made_from=drawing.provenance(known.made_from),
        made_into=drawing.provenance(known.made_into),
        curl=_curl(visit, client, file),
        state=_state(file),
    )


def _areas(client: Client) -> Sequence[Any]:
    try:
        return client.storage_areas.list()
    except DmError:
        return []


def _curl(visit: Visit, client: Client, file: File) -> str:
    """Return the line that gets a file without a browser, with an API key of one's own."""
    from beamkeeper.domain.status import Service

    where_ = f"{client.http(Service.STORAGE).url}/api/v1/experiments/{file.experiment_uid}/content"
    return (
        f"curl --fail --remote-name -H \"Authorization: Bearer $BEAMKEEPER_TOKEN\" '{where_}?path_b64={file.path_b64}'"
    )


def uid_of(text: str) -> UUID:
    """Return the uid of a file that a form has."""
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidError(f'"{text[:40]}" is no uid of a file') from error


def meant(visit: Visit) -> tuple[File, Client, Shown]:
    """Return the file that the address names, with the client of its station and its experiment."""
    file, client = meant_by(visit, visit.uid())
    return file, client, shown_of(visit, file.experiment_uid)


def meant_by(visit: Visit, uid: UUID) -> tuple[File, Client]:
    """Return a file, with the client of its station."""
    return _at_its_station(visit, lambda client: client.files.get(uid))


def _at_its_station(visit: Visit, ask: Callable[[Client], FoundT]) -> tuple[FoundT, Client]:
    """Ask for something of a file at one station after the other, and return it with the client of its own."""
    stations = [visit.portal.settings.station.name]
    stations += [one.name for one in visit.portal.clients.stations() if one.name not in stations]
    for station in stations:
        client = visit.at(station)
        try:
            return ask(client), client
        except NotFoundError:
            continue
    raise NotFoundError("there is no such file that you may read")


ROUTES = (
    *listing("/files", find),
    *listing("/experiments/{uid}/find", find),
    *listing("/experiments/{uid}/files", browse),
    *forms("/experiments/{uid}/directories", directories),
    get("/files/{uid}", show),
)
