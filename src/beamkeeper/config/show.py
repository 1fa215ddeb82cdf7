"""Showing the settings: effective values without secrets, and an example file with all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue, SecretStr

from beamkeeper.config.load import Loaded, dotted
from beamkeeper.config.tree import Settings

HIDDEN = "***"
_SECRET_NAME = re.compile(r"(password|passphrase|secret|token|credentials?|key)$", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^:/?#@]*):.*@", re.DOTALL)  # to the last @: a password may hold one
_SECRET_QUERY = re.compile(r"(?<=[?&])([^=&]*(?:password|secret|key)[^=&]*)=[^&]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """A setting: its dotted key, its effective value without secrets, and where it comes from."""

    key: str
    value: JsonValue
    origin: str


def rows(loaded: Loaded) -> list[Row]:
    """Return every setting in the order of the tree."""
    return [
        Row(name, value, loaded.origin_of(name)) for key, value in _leaves(loaded.settings) for name in (dotted(key),)
    ]


def mask_url(url: str) -> str:
    """Return a URL whose password does not show, wherever in it it stands."""
    return _SECRET_QUERY.sub(rf"\1={HIDDEN}", _PASSWORD.sub(rf"\1:{HIDDEN}@", url))


def example(data_dir: Path = Path("/var/lib/beamkeeper")) -> str:
    """Return a file with every setting as a comment: what it does, and its default."""
    settings = Settings.model_validate({"data_dir": data_dir, "station": {"agent": "hutch-pc"}})
    lines = ["# Every setting of Beamkeeper with its default. Take the # away from those that you change."]
    lines += _example_table(settings)
    for name, field in Settings.model_fields.items():
        section = getattr(settings, name)
        if isinstance(section, BaseModel):
            lines += ["", f"# {field.description}", f"[{name}]", *_example_table(section)]
        elif isinstance(section, Mapping):
            lines += ["", f"# {field.description}", f"# [{name}.NAME]"]
    return "\n".join(lines) + "\n"


def _example_table(table: BaseModel) -> list[str]:
    lines = []
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if not isinstance(value, (BaseModel, Mapping)):
            lines += ["", f"# {field.description}", f"# {name} = {_toml(_plain(name, value))}"]
    return lines


def _leaves(table: BaseModel, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*prefix, name))
        elif isinstance(value, Mapping):
            for plugin, options in value.items():
                for option, each in options.items():
                    yield (*prefix, name, plugin, option), _plain(option, each)
        else:
            yield (*prefix, name), _plain(name, value)


def _plain(name: str, value: Any) -> JsonValue:
    """Return a value as JSON has it, less the secrets in it."""
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(name, each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), each) for key, each in value.items()}
    if _SECRET_NAME.search(name):
        return HIDDEN
    return mask_url(value) if isinstance(value, str) and "://" in value else value


def _toml(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    return str(value)
