"""The file of settings: where it is looked for, and its values with the line of each key."""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from beamkeeper.config.toml_lines import KeyPath, key_lines
from beamkeeper.domain.errors import SettingsError

LARGEST_FILE = 1_000_000
"""Bytes: a file beyond it was not written as settings."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file that has been read: its values, and the line of each key."""

    path: Path
    values: Mapping[str, object]
    lines: Mapping[KeyPath, int]

    def line(self, key: KeyPath) -> int:
        """Return the line of a key, or of the nearest table or list that holds it."""
        return next((self.lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self.lines), 1)

    def place(self, key: KeyPath) -> str:
        """Return file and line of a key, for a sentence."""
        return f"{self.path}:{self.line(key)}"


def find(path: Path | None, environ: Mapping[str, str], beside_data: Path) -> SettingsFile | None:
    """Return the first file of: `path`, $BEAMKEEPER_CONFIG, the data directory's, the user's own; else None."""
    if path is not None:
        return read(path)
    if named := environ.get("BEAMKEEPER_CONFIG"):
        return read(Path(named), hint=", which BEAMKEEPER_CONFIG names")
    for candidate in (beside_data, user_config_dir(environ) / beside_data.name):
        if candidate.exists():
            return read(candidate)
    return None


def user_config_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory of a user's own configuration (XDG base directories)."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "beamkeeper"
    return Path(environ.get("HOME") or Path.home()) / ".config" / "beamkeeper"


def read(path: Path, *, hint: str = "") -> SettingsFile:
    """Read a file; what is wrong with it is said with its line."""
    path = path.absolute()
    try:
        with path.open("rb") as opened:
            raw = opened.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}{hint}", file=str(path)) from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", file=str(path)) from error
    if len(raw) > LARGEST_FILE:
        raise SettingsError(f"{path} is larger than {LARGEST_FILE} bytes: is it a file of settings?", file=str(path))
    text = _decode(path, raw)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        _refuse(path, _line_of(error, text), str(error))
    except RecursionError:
        _refuse(path, 1, "it is nested too deeply")
    return SettingsFile(path, values, key_lines(text))


def literal(text: str) -> object | None:
    """Return the value of a text that is one TOML value, else None."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    return values["value"] if len(values) == 1 else None


def _decode(path: Path, raw: bytes) -> str:
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse(path, 1, "it begins with a byte-order mark: save it as plain UTF-8, without one")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(
            path, raw.count(b"\n", 0, error.start) + 1, f"byte 0x{raw[error.start]:02x} is not UTF-8: save it as UTF-8"
        )


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    # The line is in the message only, until Python 3.14.
    match = re.search(r"\(at line (\d+), column \d+\)$", str(error))
    return int(match.group(1)) if match else text.count("\n") + (not text.endswith("\n"))


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise SettingsError(f"{path}:{line}: {what}", file=str(path), line=line)
