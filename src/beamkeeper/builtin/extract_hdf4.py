"""Metadata of HDF4 files: attributes, what is known of the named values, and the shape of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyhdf.SD import SD, SDC

from beamkeeper.builtin.known import known, with_attributes
from beamkeeper.builtin.values import json_safe, nameable, text

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_DATASETS = 500
MAX_LISTED = 20
MAX_ELEMENTS = 4096
_TYPES = {
    SDC.CHAR: "S1",
    SDC.UCHAR: "uint8",
    SDC.INT8: "int8",
    SDC.UINT8: "uint8",
    SDC.INT16: "int16",
    SDC.UINT16: "uint16",
    SDC.INT32: "int32",
    SDC.UINT32: "uint32",
    SDC.FLOAT32: "float32",
    SDC.FLOAT64: "float64",
}
_UNITS = ("units", "unit")


def read_hdf4(path: str) -> dict[str, JsonValue]:
    """Return the metadata of an HDF4 file."""
    with nameable(path) as name:
        file = SD(name, SDC.READ)
    try:
        attributes = json_safe(file.attributes())
        found: dict[str, JsonValue] = {"format": "HDF4"}
        values: dict[str, JsonValue] = {}
        listed: list[JsonValue] = []
        for index in range(min(file.info()[0], MAX_DATASETS)):
            _take(file.select(index), values, listed)
    finally:
        file.end()
    found |= with_attributes((attributes if isinstance(attributes, dict) else {}) | values) | known(values)
    if "facility_name" in values:
        found["source"] = values["facility_name"]
    if listed:
        found["datasets"] = listed[:MAX_LISTED]
    return found


def _take(dataset: SD, values: dict[str, JsonValue], listed: list[JsonValue]) -> None:
    """Take in a dataset: its value where it is one, its shape where it holds data."""
    name, _, dimensions, kind, _ = dataset.info()
    shape = dimensions if isinstance(dimensions, list) else [dimensions]
    size = 1
    for length in shape:
        size *= length
    if kind in (SDC.CHAR, SDC.UCHAR) and size <= MAX_ELEMENTS:
        values[text(name)] = text(_joined(dataset.get()))
    elif size == 1:
        value = json_safe(dataset.get())
        unit = next((text(str(dataset.attributes()[key])) for key in _UNITS if key in dataset.attributes()), None)
        values[text(name)] = {"value": value, "unit": unit} if unit else value
    else:
        listed.append({"path": text(name), "shape": json_safe(shape), "dtype": _TYPES.get(kind, str(kind))})
    dataset.endaccess()


def _joined(value: object) -> str:
    """Return characters as one text, however they come: as a list of codes, of letters, or as bytes."""
    if isinstance(value, str | bytes):
        return text(value)
    parts = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(parts, list):
        return text(str(parts))
    letters = (part.decode("latin-1") if isinstance(part, bytes) else part for part in parts)
    return "".join(part if isinstance(part, str) else chr(int(part) & 0xFF) for part in letters)
