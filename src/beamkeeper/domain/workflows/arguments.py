"""The arguments of a job: checked against what its workflow declares, or taken as they are where it declares none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows.commands import names_used, reading_of
from beamkeeper.domain.workflows.expressions import condition
from beamkeeper.domain.workflows.graph import before, graph
from beamkeeper.domain.workflows.model import Argument, ArgumentType, Definition, StageDefinition
from beamkeeper.domain.workflows.names import (
    FROM_THE_ACCOUNT,
    FROM_THE_SHELL,
    INPUTS,
    QUERY,
    RESERVED,
    SUPPLIED,
    SYSTEM,
    check_variable,
)
from beamkeeper.domain.workflows.patterns import names_in

_TRUE = frozenset({"true", "yes", "1", "on"})
_FALSE = frozenset({"false", "no", "0", "off"})


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a job begins with, and what its author should look at."""

    values: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def checked_arguments(definition: Definition, given: Mapping[str, JsonValue]) -> Arguments:
    """Return the values of a job's variables; refuse what is undeclared, missing or of the wrong type, by name.

    A definition without `arguments` takes every name, and what nobody sets is empty, with a warning, as in the
    original. The keys that say which files a job runs on are no variables, and are left out.
    """
    if QUERY in given:
        raise InvalidError(
            f'"{QUERY}" finds no files here: give them by `dm job submit --query`, or as filePathList', argument=QUERY
        )
    plain = {name: value for name, value in given.items() if name not in INPUTS}
    for name in plain:
        _check_name(name)
    if definition.arguments is None:
        values = {name: _text(name, value) for name, value in plain.items()}
        return Arguments(values, tuple(_unset(definition, values)))
    return Arguments(_declared(definition.arguments, plain))


def _check_name(name: str) -> None:
    if name in SUPPLIED:
        return
    try:
        check_variable(name)
    except ValueError as error:
        raise InvalidError(f"argument {error}", argument=name) from error


def _declared(arguments: Mapping[str, Argument], given: Mapping[str, JsonValue]) -> dict[str, str]:
    undeclared = [name for name in given if name not in arguments and name not in SUPPLIED]
    if undeclared:
        from difflib import get_close_matches

        near = get_close_matches(undeclared[0], arguments, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"it takes {', '.join(arguments) or 'none'}"
        raise InvalidError(f'the workflow has no argument "{undeclared[0]}": {hint}', argument=undeclared[0])
    values = {name: _text(name, value) for name, value in given.items() if name not in arguments}
    for name, argument in arguments.items():
        value = given.get(name)
        value = argument.default if value is None else value
        if value is None and argument.required:
            about = f" ({argument.help})" if argument.help else ""
            raise InvalidError(f'the argument "{name}"{about} is missing: give {name}:VALUE', argument=name)
        values[name] = "" if value is None else checked_value(name, argument, value)
    return values


def checked_value(name: str, argument: Argument, value: JsonValue) -> str:
    """Return the value of a declared argument as text; refuse one of another type, or that is not among the choices."""
    if argument.type is ArgumentType.MULTIPLE_CHOICE:
        parts = value if isinstance(value, list) else _text(name, value).split(",")
        return ",".join(_chosen(name, argument, _text(name, part).strip()) for part in parts)
    text = _text(name, value)
    try:
        text = _typed(argument.type, text)
    except ValueError as error:
        raise InvalidError(f'the argument "{name}" {error}, and not {text[:80]!r}', argument=name) from error
    return _chosen(name, argument, text)


def _typed(kind: ArgumentType, text: str) -> str:
    if kind is ArgumentType.INTEGER:
        return str(_number(text, int, "takes a whole number"))
    if kind is ArgumentType.NUMBER:
        if not math.isfinite(_number(text, float, "takes a number")):
            raise ValueError("takes a finite number")
        return text.strip()
    if kind is ArgumentType.BOOLEAN:
        if text.strip().lower() not in _TRUE | _FALSE:
            raise ValueError("takes True or False")
        return str(text.strip().lower() in _TRUE)
    if kind is ArgumentType.PATH and "\n" in text:
        raise ValueError("takes a path without line breaks")
    return text


def _number(text: str, kind: type[int] | type[float], why: str) -> int | float:
    if len(text) > 64 or "_" in text:
        raise ValueError(why)
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(why) from error


def _chosen(name: str, argument: Argument, text: str) -> str:
    choices = [str(choice) for choice in argument.choices]
    if choices and text not in choices:
        raise InvalidError(
            f'the argument "{name}" takes one of {", ".join(choices)}, and not {text[:80]!r}', argument=name
        )
    return text


def _text(name: str, value: JsonValue) -> str:
    """Return a value as the text that commands get; nothing is empty."""
    if isinstance(value, dict | list):
        raise InvalidError(
            f'the argument "{name}" is a list or an object: commands take texts and numbers', argument=name
        )
    text = "" if value is None else str(value)
    if "\0" in text:
        raise InvalidError(f'the argument "{name}" holds a NUL, which no command can take', argument=name)
    return text


def wanted(stage: StageDefinition) -> frozenset[str]:
    """Return the variables that a stage needs somebody else to set."""
    conditions = [condition(text).names for text in (stage.run_if, stage.repeat_until) if text]
    own = reading_of(stage.command).locals | FROM_THE_ACCOUNT | FROM_THE_SHELL | set(stage.environment)
    used = names_used(stage).union(*conditions)
    return frozenset(name for name in used if name not in own | SUPPLIED | SYSTEM)


def settled(definition: Definition) -> dict[str, frozenset[str]]:
    """Return which output variables may be set when each stage begins, its own repeats included."""
    own = {id_: names_in(stage.output_variable_regex_list) for id_, stage in definition.stages.items()}
    earlier: Mapping[str, Sequence[str] | frozenset[str]] = before(graph(definition))
    return {
        id_: frozenset().union(
            *(own[other] for other in needed), own[id_] if definition.stages[id_].repeat_until else ()
        )
        for id_, needed in earlier.items()
    }


def _unset(definition: Definition, values: Mapping[str, str]) -> Iterator[str]:
    known = settled(definition)
    for id_, names in known.items():
        for name in sorted(wanted(definition.stages[id_]) - names - set(values) - RESERVED):
            yield f'stage "{id_}": ${name} is not set, and empty'
