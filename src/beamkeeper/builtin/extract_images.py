"""Metadata of detector images that fabio reads: shape, and what the detector wrote into the header."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fabio import fabioformats

from beamkeeper.builtin.extractors import ImageExtractor
from beamkeeper.builtin.known import with_attributes, with_energy
from beamkeeper.builtin.values import MAX_ITEMS, json_safe, nameable, quantity_or_text, text
from beamkeeper.plugins.extractors import ExtractionError, recognise

if TYPE_CHECKING:
    from pydantic import JsonValue

READERS = {
    "EDF": "edfimage",
    "MarCCD": "marccdimage",
    "mar345": "mar345image",
    "ADSC": "dtrekimage",
    "Bruker": "brukerimage",
    "Oxford": "oxdimage",
    "Esperanto": "esperantoimage",
    "R-AXIS": "raxisimage",
    "GE": "geimage",
    "HiPiC": "hipicimage",
    "SPE": "speimage",
}
"""Named by hand and not left to fabio's own guess, which would follow a file into HDF5 and others."""

_SIZES = (("SIZE2", "SIZE1"), ("nslow", "nfast"), ("Dim_2", "Dim_1"), ("NROWS", "NCOLS"))
"""What headers call the size, where fabio learns it from the data only."""


def read_image(path: str) -> dict[str, JsonValue]:
    """Return the metadata of an image; only its header is read."""
    logging.disable(logging.CRITICAL)  # fabio warns of what is then told in its place
    known = recognise(path.encode("utf-8", "surrogateescape"), {"images": ImageExtractor.formats})
    if known is None:
        raise ExtractionError("it is of none of the formats that are known")
    image = fabioformats.factory(READERS[known.format])
    with nameable(path) as name:
        image.readheader(name)
    header = {str(key): value for key, value in image.header.items()}
    found: dict[str, JsonValue] = {"format": known.format, **_size(image, header)}
    if not found.get("shape") and not header:
        raise ExtractionError(f"{known.format} cannot be read: it has no header")
    translate = _TRANSLATORS.get(known.format, _plain)
    return with_energy(found | translate(header))


def _size(image: Any, header: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return shape, type and number of frames, as far as the header alone tells them."""
    found: dict[str, JsonValue] = {}
    shape = _of(lambda: image.shape)
    for slow, fast in _SIZES:
        if not shape and str(header.get(slow, "")).isdigit() and str(header.get(fast, "")).isdigit():
            shape = int(str(header[slow])), int(str(header[fast]))
    if shape and all(isinstance(length, int) for length in shape):
        found["shape"] = json_safe(list(shape))
    dtype = _of(lambda: image.dtype)
    if dtype is not None:
        found["dtype"] = text(str(dtype))
    frames = _of(lambda: image.nframes)
    found["frames"] = frames if isinstance(frames, int) else 1
    return found


def _of(get: Callable[[], object]) -> Any:
    """Return what a property of fabio's says; None where only the data would tell."""
    try:
        return get()
    except Exception:
        return None


def _plain(header: Mapping[str, object]) -> dict[str, JsonValue]:
    attributes = {
        text(key, 200): quantity_or_text(str(json_safe(value)))
        for key, value in list(header.items())[:MAX_ITEMS]
        if not isinstance(value, bytes)
    }
    return with_attributes(attributes)


def _edf(header: Mapping[str, object]) -> dict[str, JsonValue]:
    """EDF of the ESRF gives its quantities in SI units, where no unit stands beside them."""
    found = _plain(header)
    for name, key, unit in (("WaveLength", "wavelength", "m"), ("SampleDistance", "distance", "m")):
        value = quantity_or_text(str(header.get(name, "")))
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = {"value": value, "unit": unit}
    return found


def _marccd(header: Mapping[str, object]) -> dict[str, JsonValue]:
    """MarCCD counts the wavelength in femtometres, and times in milliseconds."""
    found = _plain({key: value for key, value in header.items() if str(value).strip() not in ("", "0")})
    for name, key, unit in (
        ("source_wavelength", "wavelength", "fm"),
        ("exposure_time", "exposure_time", "ms"),
        ("xtal_to_detector", "distance", "um"),
    ):
        value = json_safe(header.get(name))
        found.pop(key, None)
        if isinstance(value, int | float) and value > 0:
            is_wave = unit == "fm"
            found[key] = {"value": value / 1e5 if is_wave else value, "unit": "angstrom" if is_wave else unit}
    return found


def _adsc(header: Mapping[str, object]) -> dict[str, JsonValue]:
    """ADSC and its kin write angstrom, seconds and millimetres, without saying so."""
    found = _plain(header)
    for name, key, unit in (
        ("WAVELENGTH", "wavelength", "angstrom"),
        ("TIME", "exposure_time", "s"),
        ("DISTANCE", "distance", "mm"),
    ):
        value = quantity_or_text(str(header.get(name, "")))
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = {"value": value, "unit": unit}
    return found


_TRANSLATORS = {"EDF": _edf, "MarCCD": _marccd, "ADSC": _adsc}
