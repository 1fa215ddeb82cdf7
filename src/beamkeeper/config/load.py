"""Reading the settings: defaults, then the file, then the environment, then flags; each value knows its origin."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from beamkeeper.config import file as settings_file
from beamkeeper.config.file import SettingsFile
from beamkeeper.config.tree import Settings, default_data_dir
from beamkeeper.domain.errors import SettingsError

Key = tuple[str, ...]

PREFIX = "BEAMKEEPER_"
FILE_NAME = "beamkeeper.toml"
RESERVED_ENVIRONMENT: Mapping[str, str] = {
    "BEAMKEEPER_CONFIG": "The file of settings.",
    "BEAMKEEPER_PROFILE": "The profile of `dm` and of the Python client.",
    "BEAMKEEPER_URL": "The address of the storage service, for `dm` and the Python client.",
    "BEAMKEEPER_STATION": "The station, for `dm` and the Python client.",
    "BEAMKEEPER_CA": "A file with the certificate authority to believe, for `dm` and the Python client.",
    "BEAMKEEPER_TOKEN": "The token of a session, for `dm` and the Python client.",
    "BEAMKEEPER_EXPERIMENT": "The experiment, for `dm`.",
    "BEAMKEEPER_MIRROR": "Set for commands of jobs: how far services must have followed to know the token.",
    "BEAMKEEPER_JOB": "Set for commands of jobs: the job.",
    "BEAMKEEPER_ATTEMPT": "Set for commands of jobs: which try of the command it is.",
    "BEAMKEEPER_PASSWORD": "The password of `dm login`.",
    "BEAMKEEPER_FAILPOINT": "Where the services die, for the tests.",
    "BEAMKEEPER_REAL_DATA": "A directory of real files, for the tests.",
    "BEAMKEEPER_SUPERVISOR_PID": "Set by the supervisor for the process that it keeps alive.",
}
"""The names that begin like a setting's and are none."""

PLUGIN_TABLES = ("transfer", "processor", "facility", "proposals", "oidc")
"""Tables whose keys are a plugin's name and then its own options."""

_WORDS = {
    "float_type": "it should be a number",
    "int_type": "it should be a whole number",
    "path_type": "it should be a path",
    "string_type": "it should be text",
    "tuple_type": 'it should be a list, such as ["a", "b"]',
}
"""What pydantic calls by the names of Python's types, in a reader's words."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each that was set comes from, and the file that was read."""

    settings: Settings
    origin: Mapping[str, str]
    file: Path | None = None

    def origin_of(self, key: str) -> str:
        """Return where a dotted key's value comes from."""
        return self.origin.get(key, "default")


def load(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """Read the settings; the last of defaults, file, environment and `overrides` (by dotted key) counts.

    The file is `path`, or $BEAMKEEPER_CONFIG, or beamkeeper.toml in the data directory, or in the user's own
    configuration (~/.config/beamkeeper), or none. An override of None is none.
    """
    reader = _Reader(environ)
    above = {**reader.environment(), **reader.flags(overrides or {})}
    directory = above[("data_dir",)].value if ("data_dir",) in above else default_data_dir(environ)
    file = settings_file.find(path, environ, Path(str(directory)) / FILE_NAME)
    given = {**(reader.file(file) if file else {}), **above}
    return Loaded(
        settings=_build(given, file, environ),
        origin={dotted(key): each.origin for key, each in given.items()},
        file=file.path if file else None,
    )


def dotted(key: Key) -> str:
    """Return a key as it is written in the file, with quotes where a part needs them."""
    return ".".join(part if part.replace("-", "").replace("_", "").isalnum() else f'"{part}"' for part in key)


def known_fields(model: type[BaseModel] = Settings, prefix: Key = ()) -> Iterator[tuple[Key, FieldInfo]]:
    """Return every key but those of the plugins' tables, with its field."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_fields(field.annotation, (*prefix, name))
        elif prefix or name not in PLUGIN_TABLES:
            yield (*prefix, name), field


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that was set, and where."""

    value: object
    origin: str


class _Reader:
    """Reads each layer into values by key; refuses keys that there are not."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._fields = dict(known_fields())

    def file(self, file: SettingsFile) -> dict[Key, _Given]:
        found: dict[Key, _Given] = {}

        def visit(table: Mapping[str, object], prefix: Key) -> None:
            for name, value in table.items():
                key = (*prefix, name)
                if self._is_known(key):
                    found[key] = self._given(key, value, f"file {file.place(key)}", file.path.parent)
                elif not self._is_table(key):
                    _refuse_unknown(key, file.place(key))
                elif isinstance(value, dict):
                    visit(value, key)
                else:
                    what = f'setting "{dotted(key)}" is wrong: it is a table, so write [{dotted(key)}]'
                    raise SettingsError(f"{file.place(key)}: {what}", key=dotted(key), where=file.place(key))

        visit(file.values, ())
        return found

    def environment(self) -> dict[Key, _Given]:
        found = {}
        for name, text in sorted(self._environ.items()):
            # An empty variable counts as none: service files and containers pass on what is not set as empty.
            if name.startswith(PREFIX) and name not in RESERVED_ENVIRONMENT and text:
                key = tuple(name.removeprefix(PREFIX).lower().split("__"))
                if not self._is_known(key):
                    _refuse_unknown(key, f"environment {name}")
                found[key] = self._given(key, self._parse(key, text), f"environment {name}", Path.cwd())
        return found

    def flags(self, overrides: Mapping[str, object]) -> dict[Key, _Given]:
        found = {}
        for name, value in overrides.items():
            key = tuple(name.split("."))
            if not self._is_known(key):
                _refuse_unknown(key, "flag")
            if value is not None:
                found[key] = self._given(key, value, "flag", Path.cwd())
        return found

    def _is_known(self, key: Key) -> bool:
        return key in self._fields or (key[0] in PLUGIN_TABLES and len(key) == 3 and all(key))

    def _is_table(self, key: Key) -> bool:
        return (key[0] in PLUGIN_TABLES and len(key) < 3) or any(each[: len(key)] == key for each in self._fields)

    def _parse(self, key: Key, text: str) -> object:
        """Return a variable's value: a TOML value if it reads as one, else the text."""
        value = settings_file.literal(text)
        field = self._fields.get(key)
        is_text = field is not None and field.annotation in (str, Path, SecretStr)  # BEAMKEEPER_STATION__NAME=8
        return text if value is None or (is_text and not isinstance(value, str)) else value

    def _kind(self, key: Key) -> object:
        """Return the type of a setting, or of its elements where it is a list."""
        field = self._fields.get(key)
        kind = (get_args(field.annotation) or (field.annotation,))[0] if field else None
        return getattr(kind, "__origin__", kind)

    def _given(self, key: Key, value: object, origin: str, base: Path) -> _Given:
        """Make a value's paths absolute: what a setting means must not depend on where a process was started."""
        if self._kind(key) is Path:
            if isinstance(value, (list, tuple)):
                value = [self._absolute(each, base) for each in value]
            else:
                value = self._absolute(value, base)
        if key[-1] == "database" and isinstance(value, str) and value.startswith("sqlite:///"):
            path = self._absolute(value.removeprefix("sqlite:///"), base)
            value = f"sqlite:///{path}"
        return _Given(value, origin)

    def _absolute(self, value: object, base: Path) -> object:
        if not isinstance(value, (str, Path)) or not str(value):
            return value  # left to validation
        text = str(value)
        if (text == "~" or text.startswith("~/")) and self._environ.get("HOME"):
            text = self._environ["HOME"] + text[1:]
        return Path(os.path.normpath(base / text))


def _build(given: Mapping[Key, _Given], file: SettingsFile | None, environ: Mapping[str, str]) -> Settings:
    tree: dict[str, Any] = {"data_dir": default_data_dir(environ)}
    for key, each in given.items():
        table = tree
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = each.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(each, given, file) for each in error.errors(include_input=False, include_url=False)]
        (name, text), *more = problems
        if more:
            text += f" (and {len(more)} more: {', '.join(other for other, _ in more)})"
        # The cause would show the values, and a value may be a password.
        raise SettingsError(text, key=name, problems=[each for _, each in problems]) from None


def _problem(error: Any, given: Mapping[Key, _Given], file: SettingsFile | None) -> tuple[str, str]:
    """Return the key that pydantic complains of, and a sentence that says where it stands and what is wrong."""
    loc = error["loc"] or tuple(error.get("ctx", {}).get("key", "").split("."))
    names = tuple(str(part) for part in loc)
    key = next((names[:n] for n in range(len(names), 0, -1) if names[:n] in given), names)
    where = given[key].origin if key in given else "default"
    if file and where.startswith("file "):
        where = file.place(loc)
    message = error["msg"].removeprefix("Value error, ")
    message = re.sub("^(Input|String|List|Value) should", "it should", message)
    return dotted(key), f'{where}: setting "{dotted(key)}" is wrong: {_WORDS.get(error["type"], message)}'


def _refuse_unknown(key: Key, where: str) -> NoReturn:
    keys = [dotted(each) for each, _ in known_fields()]
    keys += [*Settings.model_fields, *(f"{table}.NAME.OPTION" for table in PLUGIN_TABLES)]
    written = dotted(key)
    near = [each for each in keys if each.rpartition(".")[2] == key[-1]]
    from difflib import get_close_matches

    near = near or get_close_matches(written, keys, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "`dm config show` lists those that there are"
    raise SettingsError(f'{where}: there is no setting "{written}": {hint}', key=written, where=where)
