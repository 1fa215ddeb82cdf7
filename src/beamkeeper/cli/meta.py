"""`dm ... meta`: the metadata of files, datasets, runs and experiments, and how it came about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

import click
from pydantic import JsonValue

from beamkeeper.cli import common, output
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.metadata import MetadataChange, dotted, joined, patched, removal
from beamkeeper.domain.names import Metadata

if TYPE_CHECKING:
    from beamkeeper.client import Client

EXPERIMENT = click.option("--experiment", metavar="NAME", help="Which experiment; else that of `dm experiment use`.")
CHANGES = click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
KEY = click.argument("key", required=False)
UNIT = click.option("--unit", metavar="UNIT", help="The unit of the numbers: keV, angstrom, deg, mA ...")
FROM = click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Merge the JSON object in this file too."
)
REMOVE = click.option("--remove", metavar="KEY", multiple=True, help="Remove this key. May be repeated.")
HISTORY_LIMIT = click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="At most so many changes; 0 is all."
)


class Described(Protocol):
    """What has metadata."""

    @property
    def metadata(self) -> Metadata:
        """All of it."""


DescribedT = TypeVar("DescribedT", bound=Described)
CommandT = TypeVar("CommandT", bound=Callable[..., None])


@dataclass(frozen=True)
class Commands(Generic[DescribedT]):
    """The commands that change and show the metadata of one kind, and how they came about."""

    whose: str
    argument: str
    meant: Callable[[Client, str, str | None], DescribedT]
    """Finds what is named, in the experiment that is given."""
    changed: Callable[[Client, DescribedT, Metadata], DescribedT]
    """Makes a patch."""
    changes: Callable[[Client, DescribedT], Iterable[MetadataChange]]
    note: str = "."
    """What the help of `set` says after its sentence."""
    is_in_experiment: bool = True

    def set(self) -> click.Command:
        """Return the command that changes metadata."""

        @click.command("set", help=f"Change {self.whose} metadata{self.note}")
        @self._named
        @CHANGES
        @UNIT
        @REMOVE
        @FROM
        @self._within
        def set_(
            name: str,
            changes: tuple[str, ...],
            unit: str | None,
            *,
            remove: tuple[str, ...],
            source: Path | None = None,
            experiment: str | None = None,
        ) -> None:
            client = common.client()
            subject = self.meant(client, name, experiment)
            given = {} if source is None else object_in(source)
            if patch := joined(given, whole_patch(subject.metadata, changes, unit, remove)):
                subject = self.changed(client, subject, patch)
            show(subject.metadata)

        return set_

    def get(self) -> click.Command:
        """Return the command that shows metadata."""

        @click.command("get", help=f"Show {self.whose} metadata, or what stands at KEY.")
        @self._named
        @KEY
        @self._within
        def get(name: str, key: str | None, experiment: str | None = None) -> None:
            show(self.meant(common.client(), name, experiment).metadata, key)

        return get

    def history(self) -> click.Command:
        """Return the command that shows what was changed."""
        what = f"Show who changed {self.whose} metadata when, and what stood there before; newest first."

        @click.command("history", help=what)
        @self._named
        @HISTORY_LIMIT
        @self._within
        def history(name: str, limit: int, experiment: str | None = None) -> None:
            client = common.client()
            show_history(self.changes(client, self.meant(client, name, experiment)), limit)

        return history

    def _named(self, command: CommandT) -> CommandT:
        return click.argument("name", metavar=self.argument)(command)

    def _within(self, command: CommandT) -> CommandT:
        return EXPERIMENT(command) if self.is_in_experiment else command


def value_of(text: str) -> JsonValue:
    """Return what was typed as a number, true, false, null or anything else of JSON; else as the text it is."""
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_number)
    except ValueError:
        return text
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def patch_of(changes: Sequence[str], unit: str | None = None) -> Metadata:
    """Return the merge patch that `KEY=VALUE` and `KEY:=JSON` words mean; numbers get the unit, where one is given."""
    patch: Metadata = {}
    for change in changes:
        key, equals, text = change.partition("=")
        is_json = key.endswith(":")
        key = key.removesuffix(":")
        if not key or not equals:
            raise InvalidError(f'"{change}" is not KEY=VALUE')
        value = _json(change, text) if is_json else value_of(text)
        if value is None:
            raise InvalidError(f'"{change}" would remove the key: say --remove {key}')
        if unit is not None:
            value = _with_unit(change, value, unit)
        for part in reversed(dotted(key)):
            value = {part: value}
        patch = patched(patch, value if isinstance(value, dict) else {})
    return patch


def whole_patch(metadata: Metadata, changes: Sequence[str], unit: str | None, remove: Sequence[str]) -> Metadata:
    """Return the patch that removes keys and then makes changes."""
    patch: Metadata = {}
    for key in remove:
        patch = joined(patch, removal(metadata, key))
    return joined(patch, patch_of(changes, unit))


def _json(change: str, text: str) -> JsonValue:
    from beamkeeper.domain.json_text import parse_json

    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except InvalidError as error:
        raise InvalidError(f'"{change}": {error.message}') from error


def object_in(file: Path) -> Metadata:
    """Return the JSON object that a file holds."""
    from beamkeeper.domain.json_text import parse_json

    try:
        value = parse_json(file.read_bytes())
    except OSError as error:
        raise InvalidError(f"cannot read {file} ({error.strerror}): name a file with a JSON object") from error
    except InvalidError as error:
        raise InvalidError(f"{file}: {error.message}") from error
    if not isinstance(value, dict):
        raise InvalidError(f"{file} holds no JSON object: metadata has keys and values")
    return value


def _with_unit(change: str, value: JsonValue, unit: str) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidError(f'"{change}" is no number, and only numbers have a unit: set it by a command of its own')
    return {"value": value, "unit": unit}


def flat(metadata: Mapping[str, JsonValue], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield metadata as lines, each with the path under which it can be searched."""
    for key, value in sorted(metadata.items()):
        if isinstance(value, dict) and set(value) == {"value", "unit"}:
            yield f"{before}{key}", f"{value['value']} {value['unit'] or ''}".rstrip()
        elif isinstance(value, dict) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if value is not None else "null"


def show(metadata: Metadata, key: str | None = None) -> None:
    """Print metadata, or what stands at one key of it."""
    found: JsonValue = metadata
    if key is not None and key in metadata:
        found = metadata[key]
    elif key is not None:
        for part in dotted(key):
            if not isinstance(found, dict) or part not in found:
                raise NotFoundError(f'there is no metadata "{key}": without a key all of it is shown')
            found = found[part]
    if output.is_json():
        output.data(found)
    elif isinstance(found, dict) and key is None:
        output.pairs(list(flat(found)))
    else:
        output.pairs(list(flat({key or "": found})))


def show_history(changes: Iterable[MetadataChange], limit: int) -> None:
    """Print changes of metadata, newest first: a line for each key that changed."""
    found = list(islice(changes, limit + 1 if limit else None))
    shown = found[:limit] if limit else found
    if output.is_json():
        output.data(shown)
        return
    lines = [line for change in shown for line in _lines(change)]
    output.table(["when", "by", "key", "before", "now"], lines, empty="the metadata is as it came with the file")
    if len(found) > len(shown):
        output.note(f"there are more than these {limit}: --limit 0 lists all")


def _lines(change: MetadataChange) -> Iterator[Sequence[object]]:
    by = change.changed_by if change.version is None else f"version {change.version}"
    for path, now in _leaves(change.patch):
        before = _at(change.before, path)
        yield change.changed_at, by, ".".join(path), _shown(before), "removed" if now is None else _shown(now)


def _leaves(patch: Metadata, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    for key, value in sorted(patch.items()):
        if isinstance(value, dict) and value and set(value) != {"value", "unit"}:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _at(metadata: JsonValue, path: Sequence[str]) -> JsonValue:
    for part in path:
        if not isinstance(metadata, dict):
            return None
        metadata = metadata.get(part)
    return metadata


def _shown(value: JsonValue) -> object:
    if isinstance(value, dict) and set(value) == {"value", "unit"}:
        return f"{value['value']} {value['unit'] or ''}".rstrip()
    return value
