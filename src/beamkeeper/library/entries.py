"""What is in the library: each workflow with its definition, and what its programs need where they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.workflows import ArgumentType, Definition, FileFormat, checked_value, parse_definition


@dataclass(frozen=True, slots=True)
class Needs:
    """An extra of Beamkeeper, and the modules by which one sees that it is installed."""

    extra: str
    modules: tuple[str, ...]

    @property
    def missing(self) -> Sequence[str]:
        """The modules that are not installed here."""
        return [name for name in self.modules if find_spec(name) is None]


_ARRAYS = Needs("server", ("h5py", "numpy", "tifffile"))
ENTRIES: Mapping[str, Needs] = {
    "quality": _ARRAYS,
    "powder": Needs("powder", ("h5py", "pyFAI")),
    "calibrate": Needs("powder", ("h5py", "pyFAI")),
    "convert": Needs("formats", ("h5py", "hdf5plugin")),
    "tomography": Needs("tomography", ("h5py", "skimage")),
    "xpcs": Needs("xpcs", ("h5py", "skbeam")),
    "xpcs-8id": Needs("xpcs", ("h5py", "skbeam")),
    "second-copy": Needs("", ()),
}
"""Every workflow of the library by its name."""

FIXED: Mapping[str, Sequence[str]] = {
    "second-copy": ("to", "mail", "mailServer", "url"),
    "xpcs-8id": ("cluster", "directory", "scheduler", "queue"),
}
"""Arguments that say where jobs write or whom they tell: only who installs a workflow chooses them, and no job."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A workflow of the library."""

    name: str
    needs: Needs
    definition: Definition
    text: str
    """The definition as it is written, with its comments: what one copies to change it."""


def entry(name: str) -> Entry:
    """Return a workflow by its name."""
    if name not in ENTRIES:
        raise NotFoundError(f'the library has no workflow "{name}": it has {", ".join(ENTRIES)}', name=name)
    text = (files("beamkeeper.library") / "definitions" / f"{name}.toml").read_text()
    return Entry(name, ENTRIES[name], parse_definition(text, FileFormat.TOML), text)


def entries() -> Sequence[Entry]:
    """Return the whole library."""
    return [entry(name) for name in ENTRIES]


def adapted(found: Entry, name: str | None, defaults: Mapping[str, JsonValue]) -> Definition:
    """Return a definition under another name, with a beamline's own values as defaults of its arguments.

    Arguments that are fixed get this one value for ever.
    """
    definition = found.definition
    arguments = dict(definition.arguments or {})
    for key, value in defaults.items():
        if key not in arguments:
            raise InvalidError(f'the workflow has no argument "{key}": it takes {", ".join(arguments) or "none"}')
        checked_value(key, arguments[key], value)
        arguments[key] = arguments[key].model_copy(update={"default": value, "required": False})
    for key in FIXED.get(found.name, ()):
        if arguments[key].required:
            raise InvalidError(f"say {key}:VALUE ({arguments[key].help}): jobs cannot choose it")
        only = "" if arguments[key].default is None else str(arguments[key].default)
        change = {"type": ArgumentType.CHOICE, "choices": (only,), "default": only}
        arguments[key] = arguments[key].model_copy(update=change)
    return definition.model_copy(update={"name": name or definition.name, "arguments": arguments})
