"""The contact sheet of an experiment or a query: small pictures made on arrival, block after block as one scrolls."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice

from pydantic import JsonValue
from starlette.responses import Response

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import File, FileOrder, FileQuery
from beamkeeper.domain.frames import FRAME
from beamkeeper.domain.metadata import EXTRACTION
from beamkeeper.domain.thumbnails import THUMBNAIL_LIMIT, ThumbnailQuery
from beamkeeper.portal.experiments import shown
from beamkeeper.portal.preview import ARRAYS, KEEP_S
from beamkeeper.portal.routes import get
from beamkeeper.portal.visits import Visit

COMING_S = 60.0
"""A picture that is not there so soon after its file is waited for; later the frame is drawn."""

BLOCK = 60
"""So many pictures are on one page, and come by one request: of 9 kB at most each."""


def sheet(visit: Visit) -> Response:
    """Show small pictures of the frames of an experiment, as it was asked for; or the next block of them."""
    of = shown(visit)
    client = visit.at(of.experiment.station)
    text = visit.query.get("q", "").strip()
    endings = f"type in ({', '.join(ending[1:] for ending in ARRAYS)})"  # as "or" each would be worked out anew
    query = FileQuery(
        experiment_uid=of.experiment.uid,
        query=f"({text}) and ({endings})" if text else endings,
        order=FileOrder.PATH,
        after=visit.query.get("after"),
        limit=visit.number("limit", BLOCK, THUMBNAIL_LIMIT),
    )
    message, files, next_ = "", list[File](), None
    try:
        page = client.files.page(query)
        files, next_ = list(islice(page.items, THUMBNAIL_LIMIT)), page.next
    except InvalidError as error:
        message = error.message
    is_part = "hx-request" in visit.request.headers and "after" in visit.query
    return visit.page(
        "files/sheet_block.html" if is_part else "files/sheet.html",
        422 if message else 200,
        of=of,
        files=files,
        numbers={file.uid: _numbers(file) for file in files},
        coming={file.uid for file in files if _is_coming(file)},
        pictures=f"{of.path}/thumbnails",
        again=visit.with_query(),
        next_page=visit.with_query(after=next_) if next_ else None,
        message=message,
    )


def _numbers(file: File) -> str:
    """Return what is known of a file's first frame, in a line."""
    frame = file.metadata.get(FRAME)
    if not isinstance(frame, Mapping):
        return ""
    known = [f"{word} {_number(frame[key])}" for key, word in (("max", "max"), ("mean", "mean")) if key in frame]
    if frame.get("saturated"):
        known.append(f"{_number(frame['saturated'])} saturated")
    return ", ".join(known)


def _is_coming(file: File) -> bool:
    """Whether the picture of a file is still to be made, as far as it shows: soon after its arrival."""
    is_read = "format" in file.metadata and not file.metadata.keys() & {FRAME, EXTRACTION}
    return is_read and (datetime.now(UTC) - file.catalogued_at).total_seconds() < COMING_S


def _number(value: JsonValue) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else ""


def thumbnails(visit: Visit) -> Response:
    """Give the small pictures of versions, by their uids: many by one request, for the browser alone to keep."""
    of = shown(visit)
    wanted = ThumbnailQuery(versions=visit.query.get("versions", "")).uids
    found = visit.at(of.experiment.station).thumbnails.of(of.experiment.uid, wanted)
    told = json.dumps({uid.hex: base64.b64encode(png).decode() for uid, png in found.items()}).encode()
    # What a version holds never changes; a picture that is not there yet may come.
    is_whole = len(found) == len(wanted)
    headers = {"cache-control": f"private, max-age={KEEP_S}, immutable" if is_whole else "no-store"}
    if "gzip" in visit.request.headers.get("accept-encoding", ""):  # which takes away what base64 adds
        told = gzip.compress(told, 1)
        headers["content-encoding"] = "gzip"
    return Response(told, media_type="application/json", headers=headers)


ROUTES = (
    get("/experiments/{uid}/sheet", sheet),
    get("/experiments/{uid}/thumbnails", thumbnails),
)
