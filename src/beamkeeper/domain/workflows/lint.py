"""What is wrong or dangerous in a definition, each in a sentence that says how to write it instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.names import Model
from beamkeeper.domain.workflows.arguments import checked_value, settled, wanted
from beamkeeper.domain.workflows.commands import is_per_file, known_names, names_used, reading_of, rewritten
from beamkeeper.domain.workflows.expressions import condition
from beamkeeper.domain.workflows.graph import graph, order_surprise
from beamkeeper.domain.workflows.model import Definition, StageDefinition
from beamkeeper.domain.workflows.patterns import check_pattern, names_in
from beamkeeper.domain.workflows.words import Form, Reading


class Severity(StrEnum):
    """Whether a definition is refused for it."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Model):
    """One thing that is wrong or dangerous, and where."""

    severity: Severity
    stage: str = ""
    message: str


def lint(definition: Definition) -> tuple[Finding, ...]:
    """Return all that is wrong or dangerous in a definition; the errors first."""
    found = [*_whole(definition)]
    for id_, stage in definition.stages.items():
        found += _stage(definition, id_, stage)
    return tuple(sorted(found, key=lambda finding: finding.severity is Severity.WARNING))


def check(definition: Definition) -> tuple[Finding, ...]:
    """Return the warnings of a definition; refuse one with errors, with all of them."""
    found = lint(definition)
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    if errors:
        told = "; ".join(f'stage "{e.stage}": {e.message}' if e.stage else e.message for e in errors[:5])
        raise InvalidError(
            f'workflow "{definition.name}" cannot be taken: {told}',
            findings=[e.model_dump(mode="json") for e in errors],
        )
    return found


def _error(message: str, stage: str = "") -> Finding:
    return Finding(severity=Severity.ERROR, stage=stage, message=message)


def _warning(message: str, stage: str = "") -> Finding:
    return Finding(severity=Severity.WARNING, stage=stage, message=message)


def _refused(check: Callable[[], object], stage: str = "") -> Iterator[Finding]:
    try:
        check()
    except DmError as error:
        yield _error(error.message, stage)


def _whole(definition: Definition) -> Iterator[Finding]:
    yield from _refused(lambda: graph(definition))
    surprise = order_surprise(definition)
    if surprise:
        yield _warning(
            f'stage "{surprise[0]}" runs before "{surprise[1]}", since ids are in the order of text: write numbers of '
            "equal length, such as 02 and 10, or say `needs`"
        )
    if all(stage.needs is not None and stage.needs for stage in definition.stages.values()):
        yield _error("every stage needs another: none could begin")
    yield from _arguments(definition)


def _arguments(definition: Definition) -> Iterator[Finding]:
    for name, argument in (definition.arguments or {}).items():
        default = argument.default
        if default is not None:
            yield from _refused(lambda n=name, a=argument, d=default: checked_value(n, a, d))  # type: ignore[misc]
        if argument.type.value.endswith("choice") and not argument.choices:
            yield _error(f'the argument "{name}" is a choice without `choices`: list them')
        try:
            used = any(name in wanted(stage) or name in names_used(stage) for stage in definition.stages.values())
        except InvalidError:
            continue  # said at its stage
        if not used:
            yield _warning(f'no stage uses the argument "{name}": take it out, or look for a misspelt name')


def _stage(definition: Definition, id_: str, stage: StageDefinition) -> Iterator[Finding]:
    found = [*_refused(lambda: reading_of(stage.command), id_)]
    for text in (stage.run_if, stage.repeat_until):
        if text is not None:
            found += _refused(lambda t=text: condition(t), id_)  # type: ignore[misc]
    found += [*_patterns(id_, stage), *_repeats(id_, stage)]
    yield from found
    if any(finding.severity is Severity.ERROR for finding in found):
        return
    yield from _refused(lambda: rewritten(stage.command, known_names(definition), None), id_)
    yield from _variables(definition, id_, stage)
    yield from _rereads(definition, id_, reading_of(stage.command))


def _patterns(id_: str, stage: StageDefinition) -> Iterator[Finding]:
    for pattern in stage.output_variable_regex_list:
        try:
            yield from _refused(lambda p=pattern: check_pattern(p), id_)  # type: ignore[misc]
        except ImportError:
            yield _warning(
                f"the pattern {pattern[:80]!r} is checked only where it is added: google-re2 is not here", id_
            )
        if r"\n" in pattern:
            yield _warning(f"the pattern {pattern[:80]!r} has a line break: each line is matched alone", id_)


def _repeats(id_: str, stage: StageDefinition) -> Iterator[Finding]:
    keys = {
        "repeatPeriod": stage.repeat_period is not None,
        "repeatUntil": stage.repeat_until is not None,
        "maxRepeats": stage.max_repeats is not None,
    }
    missing = [key for key, is_there in keys.items() if not is_there]
    if missing and len(missing) < len(keys):
        yield _error(f"{' and '.join(missing)} is missing: repeatPeriod, repeatUntil and maxRepeats go together", id_)
    if stage.parallel_exec and not _is_per_file(stage):
        yield _warning("parallelExec does nothing: the command names no $filePath, and runs once", id_)


def _is_per_file(stage: StageDefinition) -> bool:
    try:
        return is_per_file(stage)
    except InvalidError:
        return True  # said already


def _variables(definition: Definition, id_: str, stage: StageDefinition) -> Iterator[Finding]:
    try:
        known = settled(definition)[id_]
    except InvalidError:
        return  # the graph is wrong, which is said already
    later = frozenset().union(*(names_in(other.output_variable_regex_list) for other in definition.stages.values()))
    for name in sorted(wanted(stage) - known - set(definition.arguments or ())):
        if name in later:
            yield _warning(f"${name} is set only by a stage that has not ended then: it may be empty", id_)
        elif definition.arguments is not None:
            yield _error(f"${name} is no argument, and no stage sets it: declare it under `arguments`", id_)


def _rereads(definition: Definition, id_: str, reading: Reading) -> Iterator[Finding]:
    told: set[tuple[str, str]] = set()
    for ref in reading.references:
        if not ref.reread or ref.form is Form.SPECIAL or (ref.name, ref.reread) in told:
            continue
        told.add((ref.name, ref.reread))
        is_workflows = ref.name in known_names(definition) or (
            definition.arguments is None and ref.name in wanted(definition.stages[id_])
        )
        if ref.is_command and is_workflows and not _is_chosen(definition, ref.name):
            yield _error(
                f"${ref.name} says which program is run, and whoever submits a job says what it is: declare it under "
                "`arguments` with `choices`",
                id_,
            )
        elif is_workflows and ref.name not in reading.locals:
            yield _warning(f"${ref.name} is read again by {ref.reread}, as code: {_advice(ref.reread, ref.name)}", id_)
    for begin, end in reading.scripts:
        yield from _rereads(definition, id_, reading_of(reading.text[begin:end]))


def _is_chosen(definition: Definition, name: str) -> bool:
    argument = (definition.arguments or {}).get(name)
    return argument is not None and bool(argument.choices)


def _advice(reader: str, name: str) -> str:
    limit = "as it is, a value with anything but letters, digits and ._/+:=@%,- fails the stage before it begins"
    if reader in ("ssh", "rsh", "slogin"):
        return f"take the command without ssh, and say `remote: HOST` beside it; {limit}"
    if reader in ("bash", "sh", "dash", "zsh", "ksh"):
        return f"""write {reader} -c '... "${name}" ...', with the command in single quotes; {limit}"""
    if reader == "arithmetic":
        return "as it is, a value that is no whole number fails the stage before it begins"
    if reader in ("python", "perl", "ruby", "node"):
        return f'pass it behind the code, as "${name}", and read it there as an argument; {limit}'
    if reader.endswith("awk"):
        return f'write awk -v {name}="${name}" and use {name} in the program; {limit}'
    return limit
