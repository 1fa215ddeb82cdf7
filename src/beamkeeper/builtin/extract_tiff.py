"""Metadata of TIFF files: shape, pages, and what the detector's software wrote into their tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile

from beamkeeper.builtin.known import with_attributes, with_energy
from beamkeeper.builtin.pilatus import pilatus
from beamkeeper.builtin.values import from_lines, json_safe

if TYPE_CHECKING:
    from pydantic import JsonValue

AREADETECTOR_TAGS = range(65010, 65500)
"""Where areaDetector's NDFileTIFF writes the attributes of a frame, each as `name:value`."""

_AREADETECTOR_COUNTERS = {65000: "NDTimeStamp", 65001: "NDUniqueId"}
_TEXT_TAGS = {
    "description": "ImageDescription",
    "software": "Software",
    "datetime": "DateTime",
    "make": "Make",
    "model": "Model",
    "artist": "Artist",
}


def read_tiff(path: str) -> dict[str, JsonValue]:
    """Return the metadata of a TIFF file."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        found: dict[str, JsonValue] = {
            "format": "TIFF",
            "shape": json_safe(page.shape),
            "dtype": str(page.dtype),
            "pages": len(file.pages),
        }
        tags = {tag.code: tag for tag in page.tags}
        for key, name in _TEXT_TAGS.items():
            tag = page.tags.get(name)
            if tag is not None and isinstance(tag.value, str | bytes) and (value := json_safe(tag.value)):
                found[key] = value
        lines = _lines(tags)
        attributes = from_lines(lines) | {
            name: json_safe(tags[code].value) for code, name in _AREADETECTOR_COUNTERS.items() if code in tags
        }
        pilatus_lines = [line for line in lines if line.startswith("# ")]
        return with_energy(found | with_attributes(attributes) | pilatus(pilatus_lines))


def _lines(tags: dict[int, tifffile.TiffTag]) -> list[str]:
    """Return the lines of the description, unless it is JSON or XML, and the attributes that areaDetector wrote."""
    texts = [tags[270].value] if 270 in tags else []
    texts += [tags[code].value for code in sorted(tags) if code in AREADETECTOR_TAGS]
    plain = [value for value in texts if isinstance(value, str) and not value.lstrip().startswith(("{", "<"))]
    return [line for value in plain for line in value.splitlines()]
