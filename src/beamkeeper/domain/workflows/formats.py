"""Definitions of workflows as text: Python literals, JSON, YAML and TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.json_text import parse_json
from beamkeeper.domain.workflows.literal import MAX_TEXT, parse_literal
from beamkeeper.domain.workflows.model import Definition

if TYPE_CHECKING:
    from yaml import Node, SafeLoader

MAX_DEPTH = 40


class FileFormat(StrEnum):
    """How a definition is written."""

    PYTHON = "python"
    JSON = "json"
    YAML = "yaml"
    TOML = "toml"


_SUFFIXES = {
    ".py": FileFormat.PYTHON,
    ".json": FileFormat.JSON,
    ".yaml": FileFormat.YAML,
    ".yml": FileFormat.YAML,
    ".toml": FileFormat.TOML,
}


def format_of(file_name: str, text: str) -> FileFormat:
    """Return how a file is written: by its suffix, otherwise by how it begins."""
    known = _SUFFIXES.get(PurePath(file_name).suffix.lower())
    if known is not None:
        return known
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    begin = lines[0].lstrip() if lines else ""
    if begin.startswith(("{", "(")):
        return FileFormat.PYTHON
    return FileFormat.TOML if begin.startswith("[") or "=" in begin.split(":")[0] else FileFormat.YAML


def parse_definition(text: str, file_format: FileFormat) -> Definition:
    """Return the workflow that a text defines; refuse it with the place of what is wrong."""
    if len(text) > MAX_TEXT:
        raise InvalidError(f"a definition of {len(text)} characters is refused: at most {MAX_TEXT}")
    value = _READERS[file_format](text)
    if not isinstance(value, dict):
        raise InvalidError("a definition is a dictionary with the keys name and stages")
    return checked_definition(value)


def checked_definition(value: Mapping[str, JsonValue]) -> Definition:
    """Return the workflow that a document defines; refuse unknown keys and wrong values by their place.

    The id under which another system kept it means nothing here.
    """
    kept = {key: item for key, item in value.items() if key not in ("id", "_id")}
    try:
        return Definition.model_validate(kept)
    except ValidationError as error:
        raise InvalidError(_sentence(error), faults=[_place(found["loc"]) for found in error.errors()]) from error


def _sentence(error: ValidationError) -> str:
    told = []
    for fault in error.errors(include_url=False, include_input=False)[:5]:
        reason = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
        reason = "it is missing" if fault["type"] == "missing" else reason.removeprefix("Value error, ")
        told.append(f"{_place(fault['loc'])}: {reason}")
    more = f", and {error.error_count() - 5} more" if error.error_count() > 5 else ""
    return f"the definition cannot be taken: {'; '.join(told)}{more}"


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "the whole"


def _python(text: str) -> JsonValue:
    """Read JSON too, since its own words are not Python's, and what begins with a brace may be either."""
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except InvalidError:
        return parse_literal(text.lstrip("\ufeff"))


def _json(text: str) -> JsonValue:
    """Read JSON; a file of this name with quotes or commas as only Python takes them is common, and read as well."""
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except InvalidError:
        try:
            return parse_literal(text.lstrip("\ufeff"))
        except InvalidError:
            pass
        raise


def _toml(text: str) -> JsonValue:
    try:
        return _plain(tomllib.loads(text), 0)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidError(f"the TOML cannot be taken: {error}") from error


def _plain(value: object, depth: int) -> JsonValue:
    if depth > MAX_DEPTH:
        raise InvalidError(f"the definition is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _yaml(text: str) -> JsonValue:
    """Read YAML by its nodes: no tags that make objects, no aliases that grow without end, no key twice."""
    try:
        import yaml
    except ImportError as error:
        raise InvalidError("YAML needs a library: pip install 'beamkeeper[yaml]'") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _from_node(node, loader, set(), 0)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidError(f"the YAML cannot be taken: {' '.join(str(error).split())}") from error


def _from_node(node: Node, loader: SafeLoader, seen: set[int], depth: int) -> JsonValue:
    import yaml

    where = f"line {node.start_mark.line + 1}"
    if id(node) in seen:
        raise InvalidError(f"the YAML, {where}: write it out where an alias stands")
    seen.add(id(node))
    if depth > MAX_DEPTH:
        raise InvalidError(f"the YAML, {where}: it is nested deeper than {MAX_DEPTH} levels")
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise InvalidError(f"the YAML, {where}: the tag {node.tag} is refused")
    if isinstance(node, yaml.SequenceNode):
        return [_from_node(item, loader, seen, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, JsonValue] = {}
        for key, item in node.value:
            if key.value in found:
                raise InvalidError(f'the YAML, {where}: the key "{key.value[:80]}" stands twice')
            found[str(key.value)] = _from_node(item, loader, seen, depth + 1)
        return found
    value = loader.construct_object(node)
    return value if isinstance(value, str | int | float | bool | None) else str(node.value)


_READERS: Mapping[FileFormat, Callable[[str], JsonValue]] = {
    FileFormat.PYTHON: _python,
    FileFormat.JSON: _json,
    FileFormat.YAML: _yaml,
    FileFormat.TOML: _toml,
}
