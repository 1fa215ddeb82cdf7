"""What a file holds, in the words of h5grove: h5web, which draws it in the browser, asks for it at these addresses."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from beamkeeper.client.arrays import ArrayFile, Dataset
from beamkeeper.domain.arrays import Node, NodeKind
from beamkeeper.domain.errors import (
    DmError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from beamkeeper.domain.slices import Selection, parse, shape_of, size_of
from beamkeeper.portal import grove_types
from beamkeeper.portal.files import meant
from beamkeeper.portal.routes import get
from beamkeeper.portal.visits import Page, Visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_MEMBERS = 10_000
MOST_FOLLOWED = 20
"""So many links into other files are followed of one group; the others are told as links."""

LARGEST_BYTES = 128 * 1024 * 1024
"""So much of a dataset is sent at once: a frame of the largest detectors, and no scan of many."""

MOST_TEXTS = 100_000
TEXT_BYTES = 256
AT_ONCE = BoundedSemaphore(2)
"""Two readers at a time hold values here: what others ask for waits."""

WAITS_S = 10.0
"""And not for ever: who waits keeps a thread from everybody who looks at a page."""


def _told(page: Page) -> Page:
    """Return a page whose errors are told as the viewer shows them."""

    def answer(visit: Visit) -> Response:
        try:
            return page(visit)
        except NotAuthenticatedError:
            raise
        except KeyError as error:
            return JSONResponse({"message": str(error.args[0])}, 404)
        except DmError as error:
            return JSONResponse({"message": error.message}, _STATUS.get(type(error), 422))

    return answer


_STATUS: Mapping[type[DmError], int] = {NotFoundError: 404, TooLargeError: 413, UnavailableError: 503}


def _opened(visit: Visit) -> ArrayFile:
    file, client, _ = meant(visit)
    return client.files.open(file)


def _path(visit: Visit) -> str:
    path = visit.query.get("path") or "/"
    return path if path.startswith("/") else f"/{path}"


def meta(visit: Visit) -> Response:
    """Tell what stands at a name, and what is in it."""
    opened, path = _opened(visit), _path(visit)
    found = opened.members(path, limit=MOST_MEMBERS)
    node, *members = found.nodes
    told = grove_types.entity(node, path.rpartition("/")[2])
    if node.kind is NodeKind.GROUP:
        children = [grove_types.entity(one, one.name.rpartition("/")[2]) for one in _followed(opened, path, members)]
        if found.is_cut:
            children.append({"name": f"more than {len(members)}: not shown", "kind": "other"})
        told["children"] = children
    return JSONResponse(told)


def _followed(opened: ArrayFile, path: str, members: Sequence[Node]) -> list[Node]:
    """Return members, with what links into other files lead to in their place where that can be had."""
    followed, left = [], MOST_FOLLOWED
    for member in members:
        shown = member
        if member.kind is NodeKind.EXTERNAL and left:
            left -= 1
            shown = _behind(opened, f"{path.rstrip('/')}/{member.name.rpartition('/')[2]}") or member
        followed.append(shown.model_copy(update={"name": member.name}))
    return followed


def _behind(opened: ArrayFile, name: str) -> Node | None:
    try:
        return opened.members(name, limit=1).nodes[0]
    except (DmError, KeyError):
        return None


def attributes(visit: Visit) -> Response:
    """Tell the values of the attributes of what stands at a name."""
    return JSONResponse(_opened(visit).members(_path(visit), limit=1).nodes[0].attrs)


def paths(visit: Visit) -> Response:
    """Tell all names of a file, for those who search."""
    return JSONResponse([node.name for node in _opened(visit).tree(_path(visit), limit=MOST_MEMBERS).nodes])


def values(visit: Visit) -> Response:
    """Send values of a dataset: as numbers in a row, as JSON, or as a file to keep."""
    dataset = _opened(visit).at(_path(visit))
    if not isinstance(dataset, Dataset):
        raise InvalidError("there are no values here: it is a group")
    selection = parse(visit.query.get("selection", ""), dataset.shape)
    form = visit.query.get("format", "json")
    if form not in _FORMS:
        raise InvalidError(f"format is one of {', '.join(_FORMS)}")
    _check_size(dataset, selection)
    with room():
        taken = dataset[tuple(axis.key for axis in selection)]
        return _FORMS[form](taken, dataset)


@contextmanager
def room(waits_s: float = WAITS_S) -> Iterator[None]:
    """Have room for values while the block lasts; raises UnavailableError where others need it for too long."""
    if not AT_ONCE.acquire(timeout=waits_s):
        raise UnavailableError("others are being sent large data: try again in a moment")
    try:
        yield
    finally:
        AT_ONCE.release()


def _check_size(dataset: Dataset, selection: Selection) -> None:
    is_text = dataset.dtype.hasobject
    size = size_of(selection) * (TEXT_BYTES if is_text else dataset.dtype.itemsize)
    if size > LARGEST_BYTES or (is_text and math.prod(shape_of(selection)) > MOST_TEXTS):
        shape = " × ".join(map(str, shape_of(selection)))
        raise TooLargeError(
            f"{shape} values ({size / 1e6:.0f} MB) are more than is drawn at once: choose a part, or read slices with "
            "client.files.open in Python"
        )


def _raw(taken: Any, _: Dataset) -> Response:
    return Response(grove_types.plain(taken).tobytes(), media_type="application/octet-stream")


def _json(taken: Any, _: Dataset) -> Response:
    return JSONResponse(grove_types.listed(taken))


def _npy(taken: Any, dataset: Dataset) -> Response:
    import numpy as np

    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(taken), allow_pickle=False)
    return _kept(content, dataset, "npy")


def _tiff(taken: NDArray[Any], dataset: Dataset) -> Response:
    import tifffile

    content = io.BytesIO()
    tifffile.imwrite(content, grove_types.plain(taken))
    return _kept(content, dataset, "tiff")


def _kept(content: io.BytesIO, dataset: Dataset, ending: str) -> Response:
    name = "".join(letter for letter in dataset.name.rpartition("/")[2] if letter.isascii() and letter.isalnum())
    headers = {"content-disposition": f'attachment; filename="{name or "data"}.{ending}"'}
    return Response(content.getvalue(), media_type="application/octet-stream", headers=headers)


_FORMS: Mapping[str, Callable[[Any, Dataset], Response]] = {"bin": _raw, "json": _json, "npy": _npy, "tiff": _tiff}


def explore(visit: Visit) -> Response:
    """Show a file in the viewer."""
    file, client, of = meant(visit)
    message = ""
    try:
        client.files.open(file)
    except DmError as error:
        message = error.message
    return visit.page("files/explore.html", file=file, of=of, message=message, path=visit.query.get("name") or "/")


ROUTES = (
    get("/files/{uid}/explore", explore),
    get("/files/{uid}/grove/meta", _told(meta)),
    get("/files/{uid}/grove/attr", _told(attributes)),
    get("/files/{uid}/grove/data", _told(values)),
    get("/files/{uid}/grove/paths", _told(paths)),
)
