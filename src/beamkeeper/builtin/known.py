"""What headers call the things that people search for, whatever their format: brought under the keys of NeXus."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_ATTRIBUTES_BYTES = 24 * 1024
"""So much is kept of a header: it must leave room for the rest of a file's metadata."""

HC_KEV_ANGSTROM = 12.398419843320026

_ANGSTROM = {
    "a": 1.0,
    "å": 1.0,
    "ang": 1.0,
    "angstrom": 1.0,
    "angstroms": 1.0,
    "nm": 10.0,
    "pm": 0.01,
    "m": 1e10,
}

_QUANTITIES = {
    "energy": "energy photonenergy incidentenergy monoenergy beamenergy monoe xrayenergy monochromatorenergy",
    "wavelength": "wavelength incidentwavelength sourcewavelength lambda",
    "exposure_time": "exposuretime acquiretime counttime exposure exptime acquisitiontime integrationtime preset",
    "distance": "detectordistance sampledistance sampledetectordistance sdd camlen cameralength",
    "sample.temperature": "temperature sampletemperature temp",
}
_TEXTS = {
    "title": "title scantitle",
    "user": "user username experimenter operator",
    "proposal": "proposal proposalid proposalnumber gup gupnumber gupid",
    "sample.name": "samplename sample sampleid sampletitle",
    "instrument": "instrument",
    "beamline": "beamline facilitybeamline",
    "start_time": "starttime date datetime timestamp acquisitiondate scanstarttime",
}


def _names(table: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    return {name: (key, rank) for key, names in table.items() for rank, name in enumerate(names.split())}


_QUANTITY_OF, _TEXT_OF = _names(_QUANTITIES), _names(_TEXTS)


def with_attributes(attributes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a header as metadata: as it is, and what is known of it under the keys of NeXus."""
    found = known(attributes)
    kept, left = {}, MAX_ATTRIBUTES_BYTES
    for key, value in attributes.items():
        left -= len(key.encode()) + len(json.dumps(value)) + 4
        if left < 0:
            break
        kept[key] = value
    if kept:
        found["attributes"] = kept
    if len(kept) < len(attributes):
        found["attributes_left_out"] = len(attributes) - len(kept)
    return found


def known(attributes: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return what a header says that people search for."""
    best: dict[str, tuple[int, JsonValue]] = {}
    for name, value in attributes.items():
        folded = re.sub(r"[^a-z]", "", name.lower())
        if folded in _QUANTITY_OF:
            (key, rank), offered = _QUANTITY_OF[folded], _quantity(value)
        elif folded in _TEXT_OF:
            (key, rank), offered = _TEXT_OF[folded], value if isinstance(value, str | int) else None
        else:
            continue
        if offered not in (None, "") and (key not in best or rank < best[key][0]):
            best[key] = rank, str(offered) if folded in _TEXT_OF else offered
    found: dict[str, JsonValue] = {}
    for key, (_, value) in best.items():
        put(found, key, value)
    return found


def put(found: dict[str, JsonValue], key: str, value: JsonValue) -> None:
    """Put a value under a dotted path of at most two parts."""
    first, _, rest = key.partition(".")
    if not rest:
        found[first] = value
        return
    inner = found.setdefault(first, {})
    if isinstance(inner, dict):
        inner[rest] = value


def with_energy(found: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return metadata with the photons' energy where only their wavelength is known; `derived` says so."""
    wave = found.get("wavelength")
    if "energy" in found or not isinstance(wave, dict):
        return found
    value, factor = wave.get("value"), _ANGSTROM.get(str(wave.get("unit") or "").lower())
    if (
        factor is None
        or isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 1e-3 < value * factor < 1e4
    ):
        return found
    energy = float(f"{HC_KEV_ANGSTROM / (value * factor):.9g}")
    return found | {"energy": {"value": energy, "unit": "keV"}, "derived": ["energy"]}


def _quantity(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return value if set(value) == {"value", "unit"} else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return {"value": value, "unit": None}
