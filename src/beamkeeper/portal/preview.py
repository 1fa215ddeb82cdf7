"""Looking into files: frames as pictures, curves, texts, and the contact sheet of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from beamkeeper.client import Client
from beamkeeper.client.arrays import ArrayFile, Dataset
from beamkeeper.domain.arrays import Node, NodeKind
from beamkeeper.domain.errors import InvalidError, NotFoundError, TooLargeError
from beamkeeper.domain.files import File
from beamkeeper.domain.names import show_path
from beamkeeper.plugins import pictures
from beamkeeper.plugins.pictures import ColourMap, Scale
from beamkeeper.portal import drawing
from beamkeeper.portal.files import meant
from beamkeeper.portal.routes import get
from beamkeeper.portal.visits import Visit, address, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS = (".h5", ".hdf5", ".nxs", ".nx", ".hdf", ".tif", ".tiff", ".cbf", ".edf", ".mccd", ".img", ".mda")
"""Files with these endings are asked whether they hold arrays; of others the first lines are shown."""

FORMATS = frozenset({"HDF5", "NeXus", "HDF4", "TIFF", "CBF", "EDF", "ADSC", "MDA"})
"""And those whose metadata say that they are of these, whatever their names."""

LARGEST_SIDE = 1200
SMALL_SIDE = 200
MOST_POINTS = 5000
TEXT_BYTES = 65_536
MOST_NODES = 2000
FEWEST = 4
KEEP_S = 86_400


@dataclass(frozen=True)
class Frames:
    """A dataset that can be looked at: its name, its shape, and which way its frames lie."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_curve(self) -> bool:
        """Whether it is one number after another."""
        return len(self.shape) == 1

    @property
    def count(self) -> int:
        """How many frames it has."""
        product = 1
        for axis in self.shape[:-2]:
            product *= axis
        return product

    def select(self, number: int, most: int) -> tuple[Any, ...]:
        """Return what takes a frame out of it, with no more than `most` pixels along a side."""
        if not 0 <= number < self.count:
            raise NotFoundError(f"{self.name} has frames 0 to {self.count - 1}, and no {number}")
        picked = []
        for axis in reversed(self.shape[:-2]):
            number, at = divmod(number, axis)
            picked.append(at)
        return (*reversed(picked), *(slice(None, None, -(-axis // most)) for axis in self.shape[-2:]))


def is_array(file: File) -> bool:
    """Whether a file may hold arrays, by what it was found to be or by its name."""
    return file.metadata.get("format") in FORMATS or show_path(file.relpath).lower().endswith(ARRAYS)


def candidates(opened: ArrayFile) -> list[Frames]:
    """Return the datasets of a file that can be shown: those that look like detector's frames first."""
    nodes = [node for node in opened.tree(limit=MOST_NODES).nodes if _is_shown(node)]
    found = [Frames(node.name, tuple(node.shape or ())) for node in nodes]
    return sorted(found, key=lambda one: (one.is_curve, _is_table(one), _is_color(one), -_product(one.shape)))


def _is_shown(node: Node) -> bool:
    if node.kind is not NodeKind.DATASET or not node.shape or node.is_text or not isinstance(node.descr, str):
        return False
    return node.descr[1:2] in "uifb" and 0 not in node.shape and (len(node.shape) > 1 or node.shape[0] > 1)


def _is_table(one: Frames) -> bool:
    """Whether it is a few columns rather than a picture."""
    return not one.is_curve and min(one.shape[-2:]) < FEWEST and not _is_color(one)


def _is_color(one: Frames) -> bool:
    return len(one.shape) > 2 and one.shape[-1] in (3, 4)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for axis in shape:
        product *= axis
    return product


def _opened(visit: Visit) -> tuple[File, Client, ArrayFile]:
    file, client, _ = meant(visit)
    return file, client, client.files.open(file)


def _chosen(visit: Visit, shown_: list[Frames]) -> Frames:
    if not shown_:
        raise InvalidError("there is nothing in this file that can be drawn")
    wanted = visit.query.get("name")
    for one in shown_:
        if wanted in (None, "", one.name):
            return one
    raise NotFoundError(f'the file has no numbers at "{wanted}"')


def _whole(visit: Visit, key: str) -> int:
    number = whole(visit.query.get(key, "") or "0")
    if number is None:
        raise InvalidError(f"{key} is a whole number")
    return number


def _number(visit: Visit, key: str) -> float | None:
    text = visit.query.get(key, "")
    try:
        return float(text) if text else None
    except ValueError as error:
        raise InvalidError(f"{key} is a number") from error


def _choice(visit: Visit, key: str, of: type[Scale] | type[ColourMap]) -> Any:
    try:
        return of(visit.query.get(key) or next(iter(of)))
    except ValueError as error:
        raise InvalidError(f"{key} is one of {', '.join(of)}") from error


def part(visit: Visit) -> Response:
    """Draw the part of a file's page that looks into it."""
    file, client, _ = meant(visit)
    if not is_array(file):
        return _text(visit, client, file)
    shown_: list[Frames] = []
    try:
        opened = client.files.open(file)
        shown_ = candidates(opened)
        if not shown_:
            return _drawn(visit, kind="nothing", file=file)
        one = _chosen(visit, shown_)
        looked = _curve(opened, one) if one.is_curve else _image(visit, file, opened, one)
    except (InvalidError, TooLargeError) as error:
        # Of a file that is whole, another dataset may be shown.
        chosen = _chosen(visit, shown_) if shown_ else None
        return _drawn(visit, kind="refused", file=file, one=chosen, choices=shown_, message=error.message)
    return _drawn(visit, file=file, one=one, choices=shown_, **looked)


def _curve(opened: ArrayFile, one: Frames) -> dict[str, Any]:
    step = -(-one.shape[0] // MOST_POINTS)
    points = _taken(opened, one, (slice(None, None, step),)).astype(float).tolist()
    return {"kind": "curve", "curve": drawing.curve(points, one.name)}


def _image(visit: Visit, file: File, opened: ArrayFile, one: Frames) -> dict[str, Any]:
    number = _whole(visit, "frame")
    range_ = pictures.look(_taken(opened, one, one.select(number, LARGEST_SIDE)))
    low, high = _number(visit, "low"), _number(visit, "high")
    kept = {key: visit.query.get(key) for key in ("low", "high", "scale", "colours")}
    meant_ = {**kept, "name": one.name, "frame": str(number), "v": str(file.version)}
    return {
        "kind": "image",
        "number": number,
        "range": range_,
        "low": range_.low if low is None else low,
        "high": range_.high if high is None else high,
        "scales": list(Scale),
        "maps": list(ColourMap),
        "picture": address(f"/files/{file.uid}/frame.png", meant_),
    }


def _drawn(visit: Visit, *, file: File, one: Frames | None = None, **values: Any) -> Response:
    """Return a look into a file: in its place on the file's page, or by itself."""
    is_part = "hx-request" in visit.request.headers
    template = "files/part.html" if is_part else "files/preview.html"
    return visit.page(template, file=file, one=one, is_array=is_array(file), **values)


def _taken(opened: ArrayFile, one: Frames, key: tuple[Any, ...]) -> NDArray[Any]:
    dataset = opened[one.name]
    if not isinstance(dataset, Dataset):
        raise NotFoundError(f'"{one.name}" is no dataset any more')
    taken: NDArray[Any] = dataset[key]
    return taken


def _text(visit: Visit, client: Client, file: File) -> Response:
    """Show the beginning of a file that is text."""
    head = b""
    for chunk in client.downloads.read(file):
        head += chunk
        if len(head) >= TEXT_BYTES:
            break
    head = head[:TEXT_BYTES]
    if b"\0" in head:
        return _drawn(visit, kind="nothing", file=file)
    text = head.decode("utf-8", "replace")
    return _drawn(visit, kind="text", file=file, text=text, is_cut=file.size > TEXT_BYTES)


def frame(visit: Visit) -> Response:
    """Return a frame as a PNG."""
    file, _, opened = _opened(visit)
    one = _chosen(visit, [one for one in candidates(opened) if not one.is_curve])
    side = SMALL_SIDE if visit.query.get("small") else LARGEST_SIDE
    taken = _taken(opened, one, one.select(_whole(visit, "frame"), side))
    low, high = _number(visit, "low"), _number(visit, "high")
    if low is None or high is None:
        range_ = pictures.look(taken)
        low, high = range_.low if low is None else low, range_.high if high is None else high
    picture = pictures.png(taken, low, high, _choice(visit, "scale", Scale), _choice(visit, "colours", ColourMap))
    # What a version holds never changes; the address names it.
    kept = f"private, max-age={KEEP_S}, immutable" if visit.query.get("v") == str(file.version) else "no-cache"
    return Response(picture, media_type="image/png", headers={"cache-control": kept})


ROUTES = (
    get("/files/{uid}/preview", part),
    get("/files/{uid}/frame.png", frame),
)
