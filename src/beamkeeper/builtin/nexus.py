"""Where NeXus, and HDF5 files that resemble it, keep what people search for."""

from __future__ import annotations

from dataclasses import dataclass

_INFERRED = {
    "entry": "NXentry",
    "measurement": "NXentry",
    "instrument": "NXinstrument",
    "monochromator": "NXmonochromator",
    "source": "NXsource",
    "beam": "NXbeam",
    "sample": "NXsample",
    "detector": "NXdetector",
    "user": "NXuser",
    "experimenter": "NXuser",
}
"""What a group without a class is by its name, as in APS Data Exchange."""

DETECTOR_NAMES = ("local_name", "description", "name", "model", "Model")
"""Where a detector says what it is, best first."""

ANY = "*"


def class_of(name: str) -> str:
    """Return the NeXus class that a group's name suggests; empty where none."""
    return _INFERRED.get(name.rstrip("0123456789_"), "")


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing to be found: what it is called, and in groups of which classes, best first.

    The classes matter: `energy` of an NXsource is the ring's, not the beam's.
    """

    key: tuple[str, ...]
    names: frozenset[str]
    classes: tuple[str, ...]
    has_unit: bool = False

    def rank(self, name: str, group_class: str) -> int | None:
        """Return how well a dataset fits, the less the better; None where it does not."""
        if name not in self.names:
            return None
        if group_class in self.classes:
            return self.classes.index(group_class)
        return len(self.classes) if ANY in self.classes else None


def _rule(key: str, names: str, classes: str, *, has_unit: bool = False) -> Rule:
    return Rule(tuple(key.split(".")), frozenset(names.split()), tuple(classes.split()), has_unit)


GENERIC_NAMES = frozenset({"detector"})
"""Names of detectors that tell nothing."""

_BEAM = "NXmonochromator NXbeam NXchopper NXcrystal NXsample NXinstrument NXentry NXdata NXmonitor NXdetector NXroot"

_DETECTOR = "NXdetector NXinstrument NXentry NXdata NXmonitor NXcollection"

RULES = (
    _rule("title", "title", "NXentry NXroot"),
    _rule("definition", "definition", "NXentry"),
    _rule("start_time", "start_time", "NXentry NXroot"),
    _rule("end_time", "end_time", "NXentry NXroot"),
    _rule("cycle", "run_cycle APS_run_cycle", "NXentry NXcollection"),
    _rule("proposal", "proposal_number proposal_id proposal GUPNumber", "NXuser NXentry NXsample *"),
    _rule("proposal", "experiment_identifier", "NXentry"),
    _rule("user", "name", "NXuser"),
    _rule("instrument", "name", "NXinstrument"),
    _rule("beamline", "beamline facility_beamline", "NXinstrument NXsource NXentry *"),
    _rule("source", "name", "NXsource"),
    _rule("source", "facility_name", "* NXsource"),
    _rule("sample.name", "name", "NXsample"),
    _rule("sample.description", "description", "NXsample"),
    _rule("sample.chemical_formula", "chemical_formula", "NXsample"),
    _rule("sample.temperature", "temperature", "NXsample", has_unit=True),
    _rule("energy", "energy incident_energy photon_energy", _BEAM, has_unit=True),
    _rule("exposure_time", "exposure_time count_time frame_time acquire_time AcquireTime", _DETECTOR, has_unit=True),
    _rule("distance", "distance detector_distance", "NXdetector", has_unit=True),
    _rule("run", "entry_identifier run_number run_uid scan_number", "NXentry"),
    _rule("probe", "probe", "NXsource"),
    _rule("source_type", "type", "NXsource"),
    _rule("wavelength", "wavelength incident_wavelength", _BEAM, has_unit=True),
)
"""What is looked for in a file; the keys are dotted paths in its metadata."""
