"""The commands of a stage as they are run: values reach the shell in its environment, never as text of a command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from beamkeeper.domain.errors import UnsafeValueError
from beamkeeper.domain.workflows.model import ArgumentType, Definition, StageDefinition
from beamkeeper.domain.workflows.names import PER_FILE, RESERVED, SUPPLIED
from beamkeeper.domain.workflows.patterns import names_in
from beamkeeper.domain.workflows.rereads import judge
from beamkeeper.domain.workflows.shell import read
from beamkeeper.domain.workflows.words import Form, Quote, Reading, Reference, refusal

PLAIN = re.compile(r"[A-Za-z0-9._/+:=@%,-]*")
"""What a value may be where it is read again: nothing that any shell, or awk, or Python, takes for more than itself."""

NUMBER = re.compile(r"[+-]?\d{0,18}")
MAX_VALUE = 32 * 1024
MAX_ENVIRONMENT = 512 * 1024
REMOTE_SCRIPT = "DM_REMOTE_SCRIPT"

_TEMPLATE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a job runs on: the path that the stage can open, and what earlier stages said about it."""

    path: str
    experiment_path: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """What one child process runs: `text` by a shell, in this environment; `shown` is for people, and never run."""

    text: str
    environment: Mapping[str, str]
    working_dir: str
    outputs: tuple[str, ...]
    shown: str
    file: int | None = None


def expand(template: str, values: Mapping[str, str]) -> str:
    """Return a text with each variable replaced; for paths and for people, never for a shell."""
    return _TEMPLATE.sub(lambda found: values.get(found[1] or found[2], ""), template)


def names_used(stage: StageDefinition) -> frozenset[str]:
    """Return the variables that a stage's command and paths name."""
    templates = [stage.working_dir, stage.data_dir, *stage.outputs, *stage.environment.values()]
    found = {match[1] or match[2] for template in templates for match in _TEMPLATE.finditer(template)}
    return frozenset(found | {ref.name for ref in reading_of(stage.command).references if ref.form is not Form.SPECIAL})


def is_per_file(stage: StageDefinition) -> bool:
    """Whether a stage is run once for each file."""
    return bool(names_used(stage) & PER_FILE)


@lru_cache(maxsize=1024)
def reading_of(command: str) -> Reading:
    """Return a command as the shell will read it."""
    return judge(read(command))


def commands_for(
    definition: Definition, stage_id: str, variables: Mapping[str, str], files: Sequence[InputFile]
) -> tuple[Command, ...]:
    """Return what a stage runs: one command for each file where it names `$filePath`, otherwise one."""
    stage = definition.stages[stage_id]
    if not is_per_file(stage):
        return (_command(definition, stage_id, dict(variables), None),)
    return tuple(
        _command(
            definition,
            stage_id,
            {**variables, **file.variables, "filePath": file.path, "experimentFilePath": file.experiment_path},
            place,
        )
        for place, file in enumerate(files)
    )


def _command(definition: Definition, stage_id: str, values: dict[str, str], file: int | None) -> Command:
    stage = definition.stages[stage_id]
    if stage.data_dir:
        values["dataDir"] = expand(stage.data_dir, values)
    _check_values(stage_id, values)
    known = frozenset(values) | known_names(definition)
    own = {name: expand(text, values) for name, text in stage.environment.items()}
    text = rewritten(stage.command, known, _words(definition))
    _check_rereads(stage_id, stage.command, values)
    environment = {**values, **own}
    if stage.remote:
        environment = {REMOTE_SCRIPT: _remote_script(text, environment)}
        text = (
            f"""printf '%s' "${REMOTE_SCRIPT}" | ssh -o BatchMode=yes -- {shlex.quote(stage.remote)} 'exec bash -s'"""
        )
    return Command(
        text=text,
        environment=environment,
        working_dir=expand(stage.working_dir, values),
        outputs=tuple(expand(output, values) for output in stage.outputs),
        shown=shown(stage.command, values, known),
        file=file,
    )


def _check_values(stage_id: str, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if "\0" in value or len(value) > MAX_VALUE:
            raise UnsafeValueError(
                f'stage "{stage_id}": the value of {name} holds a NUL or more than {MAX_VALUE} characters: '
                "write it into a file, and pass its path",
                stage=stage_id,
                variable=name,
            )
    if sum(map(len, values.values())) > MAX_ENVIRONMENT:
        raise UnsafeValueError(
            f'stage "{stage_id}": its variables are larger than {MAX_ENVIRONMENT} characters together'
        )


def known_names(definition: Definition) -> frozenset[str]:
    """Return every variable of which the definition itself speaks."""
    outputs = {name for stage in definition.stages.values() for name in names_in(stage.output_variable_regex_list)}
    return frozenset(outputs | set(definition.arguments or ()) | SUPPLIED | RESERVED)


def _words(definition: Definition) -> frozenset[str] | None:
    """Return which variables become several words where they stand unquoted; None for all but the system's."""
    if definition.arguments is None:
        return None
    return frozenset(n for n, argument in definition.arguments.items() if argument.type is ArgumentType.WORDS)


def _is_split(name: str, words: frozenset[str] | None) -> bool:
    return name in words if words is not None else name not in SUPPLIED | RESERVED


@lru_cache(maxsize=2048)
def rewritten(command: str, known: frozenset[str], words: frozenset[str] | None) -> str:
    """Return a command in which each known variable is safe where it stands; the environment holds the values."""
    reading = reading_of(command)
    found: list[str] = []
    at = 0
    edits = [(r.start, r.end, _safe(r, known, words, reading)) for r in reading.references]
    inner = [(b, e, rewritten(command[b:e], known, words).replace("'", "'\\''")) for b, e in reading.scripts]
    for begin, end, text in sorted([*inner, *((b, e, t) for b, e, t in edits if t is not None)]):
        if begin >= at:
            found += [command[at:begin], text]
            at = end
    return "".join([*found, command[at:]])


def _safe(ref: Reference, known: frozenset[str], words: frozenset[str] | None, reading: Reading) -> str | None:
    """Return what takes the place of a variable; None where the shell's own reading is safe."""
    if ref.name not in known or ref.name in reading.locals or ref.form in (Form.IDENTIFIER, Form.SPECIAL):
        return None
    source = reading.text[ref.start : ref.end]
    if ref.quote is Quote.SINGLE:
        return f"'\"{source}\"'"
    if ref.quote in (Quote.LITERAL_HERE, Quote.ANSI):
        raise refusal(f"${ref.name} stands in a {ref.quote}: no shell puts a value there")
    if ref.quote is not Quote.BARE or ref.is_inner or '"' in source:
        return None
    if not ref.is_word:
        return f'"{source}"'
    if _is_split(ref.name, words):
        return None
    return f'${{{ref.name}:+"{source}"}}'


def _check_rereads(stage_id: str, command: str, values: Mapping[str, str]) -> None:
    """Refuse values that would be read as more than values."""
    reading = reading_of(command)
    for ref in reading.references:
        value = values.get(ref.name, "")
        if not ref.reread or ref.name in reading.locals:
            continue
        if ref.is_number and not NUMBER.fullmatch(value):
            raise _unsafe(stage_id, ref, "is no whole number")
        if not PLAIN.fullmatch(value):
            raise _unsafe(stage_id, ref, "holds more than letters, digits and ._/+:=@%,-")
        if ref.begins_word and value.startswith("-") and not ref.is_number:
            raise _unsafe(stage_id, ref, "begins with a -, as an option does")
    for begin, end in reading.scripts:
        _check_rereads(stage_id, command[begin:end], values)


def _unsafe(stage_id: str, ref: Reference, why: str) -> UnsafeValueError:
    return UnsafeValueError(
        f'stage "{stage_id}" was not begun: the value of {ref.name} {why}, and {ref.reread} reads it again as code',
        stage=stage_id,
        variable=ref.name,
    )


def _remote_script(command: str, environment: Mapping[str, str]) -> str:
    """Return what the shell at the other host reads: each value quoted once, and parsed once."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items()))
    return f"{exports}{{\n{command}\n}} </dev/null\n"


def shown(command: str, values: Mapping[str, str], known: frozenset[str]) -> str:
    """Return a command with its values in their places, as people want to see it."""
    reading = reading_of(command)
    found: list[str] = []
    at = 0
    for ref in reading.references:
        plain = ref.form in (Form.NAME, Form.BRACED) and ref.name in known and ref.name not in reading.locals
        if plain and ref.start >= at:
            found += [command[at : ref.start], values.get(ref.name, "")]
            at = ref.end
    return "".join([*found, command[at:]])
