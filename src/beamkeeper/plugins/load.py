"""From a name in the settings to an object: entry point, validated options, built once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from beamkeeper.domain.acquisition import PluginInfo
from beamkeeper.domain.errors import NotFoundError, SettingsError
from beamkeeper.plugins.api import PROCESSORS, TRANSFERS, Transfer
from beamkeeper.plugins.executors import EXECUTORS, Executor
from beamkeeper.plugins.extractors import EXTRACTORS, missing_of
from beamkeeper.plugins.people import PEOPLE_GROUPS

GROUPS = (TRANSFERS, PROCESSORS, EXTRACTORS, EXECUTORS, *PEOPLE_GROUPS)
"""The entry point groups of all kinds of plugins."""


AVERAGE, LEAST_AVERAGE = "average_bytes_s", 1024
"""A setting that every transfer has, whatever plugin it is: what it sends to one storage area on the average."""


def find(group: str, name: str) -> EntryPoint:
    """Return the entry point of a plugin."""
    known = entry_points(group=group)
    try:
        return known[name]
    except KeyError:
        names = ", ".join(sorted(known.names)) or "none"
        raise NotFoundError(
            f'there is no plugin "{name}" of {group}: installed are {names}', group=group, name=name
        ) from None


def build(group: str, name: str, options: Mapping[str, object]) -> Any:
    """Build a plugin; a setting that its options model refuses is named."""
    factory, checked = checked_options(group, name, options)
    return factory(checked)


def checked_options(group: str, name: str, options: Mapping[str, object]) -> tuple[Any, Any]:
    """Return what builds a plugin, and its options; a setting that its options model refuses is named."""
    entry = find(group, name)
    try:
        factory = entry.load()
    except Exception as error:
        raise SettingsError(f'plugin "{name}" of {group} cannot be loaded: {error}') from error
    try:
        return factory, factory.options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f'plugin "{name}": setting "{key}" is wrong: {first["msg"]}', plugin=name, key=key
        ) from error


def executor_of(name: str, options: Mapping[str, object], directory: Path) -> Executor:
    """Build an executor, which may write into a directory."""
    factory, checked = checked_options(EXECUTORS, name, options)
    built: Executor = factory(checked, directory)
    return built


def transfer_of(tables: Mapping[str, Mapping[str, object]], name: str) -> Transfer:
    """Build the transfer of a name: a plugin, or a table of settings that says by `plugin` which it is for."""
    options = dict(tables.get(name, {}))
    average_of(tables, name)
    options.pop(AVERAGE, None)
    built: Transfer = build(TRANSFERS, str(options.pop("plugin", name)), options)
    return built


def average_of(tables: Mapping[str, Mapping[str, object]], name: str) -> int | None:
    """Return how many bytes a second a transfer may send on the average; None where its settings say nothing."""
    found = tables.get(name, {}).get(AVERAGE)
    if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < LEAST_AVERAGE):
        raise SettingsError(
            f"[transfer.{name}] {AVERAGE} is wrong: it should be a number of bytes from {LEAST_AVERAGE} on", key=AVERAGE
        )
    return found


def names(group: str) -> list[str]:
    """Return the names of the plugins of a group that are installed."""
    return sorted(entry_points(group=group).names)


def installed(active: frozenset[tuple[str, str]] = frozenset()) -> list[PluginInfo]:
    """List the plugins that are installed; `active` holds (group, name) of those in use."""
    found = []
    for group in GROUPS:
        for entry in sorted(entry_points(group=group), key=lambda e: e.name):
            dist = entry.dist
            try:
                summary = _summary(entry.load())
            except Exception as error:  # a broken package of somebody's must not hide the others
                summary = f"cannot be loaded: {error}"
            found.append(
                PluginInfo(
                    group=group,
                    name=entry.name,
                    package=dist.name if dist else "",
                    version=dist.version if dist else "",
                    summary=summary,
                    is_active=(group, entry.name) in active,
                )
            )
    return found


def _summary(factory: object) -> str:
    """Return what a plugin says of itself, and what it lacks here."""
    said = str(getattr(factory, "summary", ""))
    missing = [f"pip install '{package}'" for package in missing_of(getattr(factory, "requires", {}))]
    return f"{said} Not usable here: {', '.join(missing)}." if missing else said
