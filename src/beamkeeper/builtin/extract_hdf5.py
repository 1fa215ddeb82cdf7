"""Metadata of HDF5 and NeXus files: who measured what, with which beam, and how large the data are.

Only what lies inside the file is read. Links to other files are named and not followed, and no value is
read of a dataset whose bytes lie elsewhere (external storage, virtual datasets): with those, a file could
have the service show any other file that it may read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import h5py

from beamkeeper.builtin.known import with_energy
from beamkeeper.builtin.nexus import DETECTOR_NAMES, GENERIC_NAMES, RULES, Rule, class_of
from beamkeeper.builtin.values import json_safe, text
from beamkeeper.domain.masters import EXTERNAL_FILES, EXTERNAL_FILES_UNREAD
from beamkeeper.plugins.hdf5 import is_shape_elsewhere

if TYPE_CHECKING:
    from pydantic import JsonValue

MAX_OBJECTS = 5000
MAX_IN_GROUP = 2000
MAX_LISTED = 20
BIG = 100
"""From how many elements on a dataset is listed that is no signal."""

MAX_EXTERNAL_BYTES = 32 * 1024
"""So many bytes of names of other files are told: they must leave room for the rest."""

MAX_NAME = 4096
MAX_VALUE_BYTES = 64 * 1024

_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, MemoryError)
"""What h5py raises where a part of a file is damaged, or of a type that it does not know."""


def read_hdf5(path: str) -> dict[str, JsonValue]:
    """Return the metadata of an HDF5 file; what cannot be read of it is counted."""
    with _open(path) as file:
        survey = _Survey()
        survey.walk(file)
        return survey.metadata()


def _open(path: str) -> h5py.File:
    """Open a file without locking it: its writer must never find that it is locked."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        try:
            return h5py.File(path, "r", locking=False, swmr=True)  # a snapshot, taken while it was written
        except (OSError, ValueError):
            raise error from None


@dataclass(slots=True)
class _Survey:
    """What has been found in a file so far, each with how sure we are that it is meant."""

    best: dict[tuple[str, ...], tuple[int, JsonValue]] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    detectors: list[str] = field(default_factory=list)
    data_of: list[str] = field(default_factory=list)
    datasets: list[tuple[bool, int, dict[str, JsonValue]]] = field(default_factory=list)
    external: set[str] = field(default_factory=set)
    seen: set[tuple[int, int]] = field(default_factory=set)
    is_nexus: bool = False
    damaged: int = 0
    left: int = MAX_OBJECTS

    def walk(self, file: h5py.File) -> None:
        """Visit the objects of a file level by level, so that a huge group hides nothing above it."""
        self.seen.add(_address(file))
        self.offer_attributes(file)
        waiting: deque[tuple[h5py.Group, str]] = deque([(file, "NXroot")])
        while waiting and self.left > 0:
            group, group_class = waiting.popleft()
            try:
                names = list(islice(group, MAX_IN_GROUP))
                default = _attribute(group, "default")
            except _DAMAGE:
                self.damaged += 1
                continue
            for name in sorted(names, key=lambda name: name != default):
                below = self.visit(group, name, group_class)
                if below is not None:
                    waiting.append(below)

    def visit(self, group: h5py.Group, name: str, group_class: str) -> tuple[h5py.Group, str] | None:
        """Take in one object; return it where it is a group to be walked."""
        self.left -= 1
        try:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                self.links_to(link.filename)
            if self.left < 0 or not isinstance(link, h5py.HardLink):
                return None  # what a soft link means is visited by its own name, or lies outside
            found = group[name]
            address = _address(found)
            if address in self.seen:
                return None
            self.seen.add(address)
            if isinstance(found, h5py.Group):
                return self.take_group(found, name)
            if isinstance(found, h5py.Dataset):
                self.take_dataset(found, name, group, group_class)
        except _DAMAGE:
            self.damaged += 1
        return None

    def take_group(self, group: h5py.Group, name: str) -> tuple[h5py.Group, str]:
        """Take in a group's class, and its name where that tells something."""
        declared = text(_attribute(group, "NX_class") or "")
        self.is_nexus = self.is_nexus or declared == "NXentry"
        group_class = declared or class_of(name)
        if group_class == "NXinstrument":
            self.offer(("instrument",), 10, text(_attribute(group, "short_name") or ""))
            self.offer(("instrument",), 20, "" if name == "instrument" else text(name))
        if group_class == "NXdetector":
            self.detectors.append(_called(group, DETECTOR_NAMES) or text(name))
        elif group_class == "NXdata" and (called := _called(group, DETECTOR_NAMES[:1])):
            self.data_of.append(called)  # areaDetector's templates say there whose data they are
        return group, group_class

    def take_dataset(self, dataset: h5py.Dataset, name: str, group: h5py.Group, group_class: str) -> None:
        """Take in a dataset: its value where a rule wants it, its shape where it holds data."""
        if dataset.is_virtual:
            for source in dataset.virtual_sources():
                if "%b" not in source.file_name:  # a pattern for as many files as there will be
                    self.links_to(source.file_name)
        if is_shape_elsewhere(dataset):
            return
        size = dataset.size or 0
        if size > 1:
            is_signal = _attribute(dataset, "signal") is not None or _attribute(group, "signal") == name
            shown: dict[str, JsonValue] = {
                "path": text(dataset.name or name),
                "shape": json_safe(dataset.shape),
                "dtype": text(str(dataset.dtype)),
            }
            if is_signal or size >= BIG:
                self.datasets.append((is_signal, size, shown))
            return
        for rule in RULES:
            rank = rule.rank(name, group_class)
            if rank is not None:
                self.offer(rule.key, rank, _value(dataset, rule))

    def links_to(self, name: str) -> None:
        """Take in that another file belongs to this one."""
        if name not in ("", "."):
            self.external.add(text(name, MAX_NAME))

    def offer(self, key: tuple[str, ...], rank: int, value: JsonValue) -> None:
        """Keep a value unless there is a better one."""
        if value is None or value == "":
            return
        if key == ("user",):
            self.users.append(str(value))
        elif key not in self.best or rank < self.best[key][0]:
            self.best[key] = rank, value

    def offer_attributes(self, file: h5py.File) -> None:
        """Take in what NeXus writes into the root's attributes."""
        for key in ("creator", "file_time"):
            self.offer((key,), 0, text(_attribute(file, key) or ""))
        if user := text(_attribute(file, "user") or ""):
            self.users.append(user)
        self.is_nexus = _attribute(file, "NX_class") == "NXroot"

    def metadata(self) -> dict[str, JsonValue]:
        """Return what was found."""
        found: dict[str, JsonValue] = {"format": "NeXus" if self.is_nexus else "HDF5"}
        for (first, *rest), (_, value) in self.best.items():
            if rest:
                inner = found.setdefault(first, {})
                if isinstance(inner, dict):
                    inner[rest[0]] = value
            else:
                found[first] = value
        if self.users:
            found["user"] = text(", ".join(dict.fromkeys(self.users)))
        if self.data_of and GENERIC_NAMES.issuperset(self.detectors):
            self.detectors = self.data_of
        if self.detectors:
            found["detectors"] = json_safe(list(dict.fromkeys(self.detectors))[:MAX_LISTED])
        if self.datasets:
            largest = sorted(self.datasets, key=lambda row: (not row[0], -row[1], str(row[2]["path"])))
            found["datasets"] = [shown for _, _, shown in largest[:MAX_LISTED]]
        if self.external:
            named = sorted(self.external)
            room = accumulate(len(name.encode()) + 8 for name in named)
            fitting = zip(named, room, strict=True)
            names: list[JsonValue] = [name for name, used in fitting if used <= MAX_EXTERNAL_BYTES]
            found[EXTERNAL_FILES] = names
            if len(names) < len(named):
                found[EXTERNAL_FILES_UNREAD] = len(named) - len(names)
        if self.damaged:
            found["extraction"] = {"error": f"{self.damaged} objects in the file cannot be read"}
        is_light = "x-ray" in f"{found.get('probe')} {found.get('source_type')}".lower()
        return with_energy(found) if is_light else found


def _address(found: h5py.HLObject) -> tuple[int, int]:
    """Return what tells one object from another, whatever links lead to it."""
    info = h5py.h5o.get_info(found.id)
    return info.fileno, info.addr


def _attribute(found: h5py.HLObject, name: str) -> str | None:
    """Return a short attribute of one value as text; None where there is none."""
    if name not in found.attrs:
        return None
    attribute = found.attrs.get_id(name)
    if (
        attribute.shape is None
        or attribute.dtype.itemsize > MAX_VALUE_BYTES
        or attribute.get_storage_size() > MAX_VALUE_BYTES
    ):
        return None
    value = json_safe(found.attrs[name])
    return value if isinstance(value, str) else None if value is None else str(value)


def _called(group: h5py.Group, keys: Sequence[str]) -> str:
    """Return what the first of these datasets says that says something; empty where none does."""
    names = (text(str(_scalar(group[key]))) for key in keys if _is_dataset(group, key))
    return next((name for name in names if name), "")


def _is_dataset(group: h5py.Group, name: str) -> bool:
    """Whether a name in a group is a dataset of this file."""
    return isinstance(group.get(name, getlink=True), h5py.HardLink) and isinstance(group[name], h5py.Dataset)


def _scalar(dataset: h5py.Dataset) -> JsonValue:
    """Return the value of a dataset of one element; None where it has none that lies in this file."""
    plan = dataset.id.get_create_plist()
    is_elsewhere = plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count() > 0
    if is_elsewhere or dataset.size != 1 or dataset.dtype.itemsize > MAX_VALUE_BYTES:
        return None
    return json_safe(dataset[()])


def _value(dataset: h5py.Dataset, rule: Rule) -> JsonValue:
    """Return a dataset's value as its rule wants it: with its unit, or as text."""
    value = _scalar(dataset)
    if not rule.has_unit:
        return None if value is None else text(str(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    unit = _attribute(dataset, "units") or _attribute(dataset, "unit")
    return {"value": value, "unit": unit or None}
