"""Types and values of arrays in the words of h5grove, which are those of HDF5: numbers for classes and orders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from beamkeeper.domain.arrays import Node, NodeKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

Told = dict[str, Any]

INTEGER, FLOAT, STRING, OPAQUE, COMPOUND, ENUM, ARRAY = 0, 1, 3, 5, 6, 8, 10
UNKNOWN: Told = {"class": -1, "size": 0}
TEXT: Told = {"class": STRING, "size": 8, "cset": 1, "strPad": 0, "vlen": True}
_BYTE: Told = {"class": INTEGER, "size": 1, "order": 0, "sign": 1}
BOOLEAN: Told = {"class": ENUM, "size": 1, "members": {"FALSE": 0, "TRUE": 1}, "base": _BYTE}
DOUBLE: Told = {"class": FLOAT, "size": 8, "order": 0}


def entity(node: Node, name: str) -> Told:
    """Return what stands at a name, without what is in it."""
    if node.kind is NodeKind.GROUP:
        return {"name": name, "kind": "group", "attributes": _attributes(node)}
    if node.kind is NodeKind.DATASET:
        return {
            "name": name,
            "kind": "dataset",
            "shape": node.shape,
            "type": TEXT if node.is_text else kind_of(node.descr),
            "chunks": node.chunks,
            "filters": [{"id": number, "name": filter_} for number, filter_ in enumerate(node.filters)] or None,
            "attributes": _attributes(node),
        }
    if node.kind is NodeKind.EXTERNAL:
        return {
            "name": name,
            "kind": "external_link",
            "target_file": node.target_file,
            "target_path": node.target_name,
        }
    return {"name": name, "kind": "soft_link", "target_path": node.target_name}


def kind_of(descr: Any) -> Told:
    """Return a type that numpy describes so."""
    if isinstance(descr, list):
        return {"class": COMPOUND, "size": 0, "members": [_member(*field) for field in descr]}
    if not isinstance(descr, str) or not descr[2:].isdigit():
        return UNKNOWN
    kind, size = descr[1], int(descr[2:])
    if kind in "ui":
        return {"class": INTEGER, "size": size, "order": 0, "sign": int(kind == "i")}
    if kind == "f":
        return {"class": FLOAT, "size": size, "order": 0}
    if kind == "c":
        part = {"class": FLOAT, "size": size // 2, "order": 0}
        return {"class": COMPOUND, "size": size, "members": [{"name": "r", **part}, {"name": "i", **part}]}
    if kind in "SU":
        return {"class": STRING, "size": size, "cset": int(kind == "U"), "strPad": 1, "vlen": False}
    return BOOLEAN if kind == "b" else {"class": OPAQUE, "size": size, "tag": ""} if kind == "V" else UNKNOWN


def _member(name: Any, descr: Any, shape: Any = None) -> Told:
    told = kind_of(descr)
    if shape:
        told = {"class": ARRAY, "size": 0, "dims": list(shape), "base": told}
    return {"name": str(name), **told}


def _attributes(node: Node) -> list[Told]:
    return [{"name": name, "shape": _shape(value), "type": _kind(value)} for name, value in node.attrs.items()]


def _shape(value: JsonValue) -> list[int] | None:
    """Return the shape of an attribute's value; None where there is no value."""
    if isinstance(value, list):
        return [len(value), *((_shape(value[0]) or []) if value else [])]
    return None if value is None else []


def _kind(value: JsonValue) -> Told:
    if isinstance(value, list):
        kinds = [_kind(one) for one in value]
        return kinds[0] if kinds and all(one == kinds[0] for one in kinds) else UNKNOWN
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return {"class": INTEGER, "size": 8, "order": 0, "sign": 1}
    return DOUBLE if isinstance(value, float) else TEXT if isinstance(value, str) else UNKNOWN


def plain(values: Any) -> NDArray[Any]:
    """Return numbers as browsers take them: little-endian, and of a size that they know."""
    import numpy as np

    taken = np.asarray(values)
    if taken.dtype.kind == "f" and taken.dtype.itemsize not in (4, 8):
        return taken.astype("<f4" if taken.dtype.itemsize < 4 else "<f8")
    return np.ascontiguousarray(taken, taken.dtype.newbyteorder("<"))


def listed(values: Any) -> Any:
    """Return values as JSON: of an array one after another, whatever its shape."""
    import numpy as np

    if isinstance(values, np.ndarray):
        return [listed(one) for one in values.ravel()]
    if isinstance(values, bytes):
        return values.decode("utf-8", "replace").rstrip("\0")
    if isinstance(values, np.void):
        return [listed(values[name]) for name in values.dtype.names] if values.dtype.names else values.tobytes().hex()
    if isinstance(values, np.generic):
        return listed(values.item())
    if isinstance(values, complex):
        return [listed(values.real), listed(values.imag)]
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    return values if isinstance(values, str | int | bool) or values is None else str(values)
