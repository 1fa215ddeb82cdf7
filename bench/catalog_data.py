"""Metadata as a beamline makes them: scans of an experiment, 25 keys a file, always the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SEED = 5
EXPERIMENTS = 200
LENGTHS = (20, 50, 100, 200, 500, 1000, 2000)
"""How many files a scan has: most are short, and most files are in long ones."""

INDEX_KEYS = (
    "sample.name",
    "sample.temperature",
    "energy",
    "scan.id",
    "technique",
    "user.name",
    "proposal",
    "instrument.detector.name",
    "attenuation",
    "frame",
)
"""What the experiment type of the bench names."""

START_US = 1_735_689_600_000_000  # 2025-01-01
SCAN_US = 3_600_000_000 // 12
TECHNIQUES = ("xpcs", "saxs", "waxs", "tomography", "diffraction", "xrf", "ptychography", "xas")
DETECTORS = ("lambda2m", "eiger4m", "eiger16m", "pilatus1m", "rigaku3m", "vortex", "oryx")
MATERIALS = ("Ag", "Au", "Cu", "Fe2O3", "SiO2", "TiO2", "LaB6", "CeO2", "NiTi", "graphite", "lysozyme", "silica")
FORMULAE = ("Ag", "Au", "Cu", "Fe2 O3", "Si O2", "Ti O2", "La B6")
MOTORS = ("th", "samx", "samy", "energy", "phi", "chi")
ENERGIES = (7.1, 8.05, 10.9, 11.0, 12.4, 16.9, 22.1, 30.0, 51.6)
SUFFIXES = ("h5", "h5", "h5", "h5", "h5", "h5", "tif", "tif", "cbf", "txt")


@dataclass(frozen=True, slots=True)
class Scan:
    """Files that one scan made: all but their numbers and a few values are alike."""

    number: int
    experiment: int
    files: int
    suffix: str
    metadata: dict[str, Any]
    at_us: int

    def path(self, frame: int) -> str:
        """Return where a file lies below its experiment."""
        return f"data/scan{self.number:06d}/{self.metadata['sample']['name']}_{frame:05d}.{self.suffix}"

    def size(self, frame: int) -> int:
        """Return how large a file is: from a kilobyte to some gigabytes."""
        return 1024 + (self.number * 7919 + frame * 104729) % (4_000_000 if self.number % 50 else 3_000_000_000)

    def modified_us(self, frame: int) -> int:
        """Return when a file was last modified."""
        return self.at_us + frame * 100_000

    def of(self, frame: int) -> dict[str, Any]:
        """Return the metadata of a file."""
        return {**self.metadata, "frame": frame, "theta": {"value": round(frame * 0.01, 4), "unit": "deg"}}

    def text(self) -> str:
        """Return the metadata of all of its files as JSON, with @1 for the frame and @2 for theta."""
        whole = {**self.metadata, "frame": "@1", "theta": {"value": "@2", "unit": "deg"}}
        return json.dumps(whole, separators=(",", ":")).replace('"@1"', "@1").replace('"@2"', "@2")


def scans(files: int, seed: int = SEED) -> Iterator[Scan]:
    """Yield the scans of so many files in the order of time; a few experiments have most of them."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) ** 0.9 for rank in range(EXPERIMENTS)]
    left, number, at = files, 0, START_US
    while left:
        experiment = rng.choices(range(EXPERIMENTS), weights)[0]
        count = min(left, rng.choice(LENGTHS))
        yield Scan(number, experiment, count, rng.choice(SUFFIXES), _metadata(rng, number, experiment, count), at)
        left, number, at = left - count, number + 1, at + int(SCAN_US * rng.uniform(0.2, 2))


def _metadata(rng: random.Random, number: int, experiment: int, points: int) -> dict[str, Any]:
    own = random.Random(experiment)
    energy = own.choice(ENERGIES) + round(rng.gauss(0, 0.02), 4)
    technique, detector = own.choice(TECHNIQUES), own.choice(DETECTORS)
    material = rng.choice(own.sample(MATERIALS, 4))
    motor = rng.choice(MOTORS)
    return {
        "format": "nexus",
        "title": f"{technique} of {material} in cell {rng.randrange(12)}",
        "start_time": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T08:00:00Z",
        "end_time": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}T08:20:00Z",
        "user": {"name": f"user{own.randrange(400):03d}"},
        "proposal": f"GUP-{70000 + own.randrange(3000)}",
        "technique": technique,
        "instrument": {
            "name": f"{1 + experiment % 35}-ID",
            "detector": {
                "name": detector,
                "count_time": {"value": rng.choice([0.01, 0.1, 0.5, 1.0]), "unit": "s"},
                "distance": {"value": round(own.uniform(0.1, 8.0), 3), "unit": "m"},
            },
        },
        "energy": {"value": round(energy, 4), "unit": "keV"},
        "wavelength": {"value": round(12.398419843 / energy, 5), "unit": "angstrom"},
        "sample": {
            "name": f"{material}-{rng.randrange(60):03d}",
            "temperature": {"value": round(rng.gauss(298, 40), 1), "unit": "K"},
            "environment": rng.choice(["air", "vacuum", "helium", "rheometer", "furnace"]),
            "chemical_formula": rng.choice(FORMULAE),
        },
        "scan": {
            "id": 1 + number,
            "command": f"ascan {motor} 0 1 {points - 1} 0.1",
            "motor": motor,
            "points": points,
        },
        "beam": {"current": {"value": round(rng.gauss(102, 0.3), 2), "unit": "mA"}},
        "attenuation": rng.randrange(12),
        "entry": "entry",
    }


QUERIES: Sequence[tuple[str, str]] = (
    ("the sample by its name", 'sample.name = "Ag-017"'),
    ("samples by the beginning of their names", 'sample.name ~ "LaB6-0*"'),
    ("an energy with its unit", "energy > 16.85keV and energy < 16.95keV"),
    ("an energy in another unit", "energy >= 51600eV"),
    ("a scan by its number", "scan.id = 117"),
    ("a range of scans", "scan.id >= 50 and scan.id <= 60"),
    ("a technique that many files have", "technique = tomography"),
    ("a technique and a detector", "technique = xpcs and instrument.detector.name = lambda2m"),
    ("a user's files", "user.name = user042"),
    ("a proposal", 'proposal ~ "GUP-7111*"'),
    ("hot samples", "sample.temperature > 420K"),
    ("cold samples of one kind", 'sample.temperature < 230K and sample.name ~ "Au-*"'),
    ("large files", "size > 2.9GB"),
    ("large files of one technique", "size > 2GB and technique = saxs"),
    ("files of some days", "modified >= 2025-02-01 and modified < 2025-02-03"),
    ("one of several samples", 'sample.name in ("Cu-001", "NiTi-002", "CeO2-003")'),
    ("words", 'text = "lysozyme rheometer"'),
    ("a path", 'path ~ "data/scan000042/*"'),
    ("one frame of many scans, with another condition", "frame = 1999 and attenuation = 7"),
    ("either of two conditions, and not a third", "(attenuation = 11 or scan.id = 3) and not technique = xrf"),
)
"""What people ask, in the short notation."""

FACETS = ("sample.name", "technique", "instrument.detector.name", "energy", "scan.id")
