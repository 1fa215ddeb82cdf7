"""Definitions of workflows: a name, its arguments and its stages, with the keys that users of the original know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints
from pydantic.alias_generators import to_camel

from beamkeeper.domain.workflows.names import check_environment_name, check_variable

MAX_STAGES = 200
MAX_COMMAND = 32 * 1024
MAX_PATTERNS = 100
MAX_ARGUMENTS = 200
MAX_SECONDS = 366 * 86400.0

_BYTES = re.compile(r"(\d{1,15})\s*([kMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def _bytes(value: Any) -> Any:
    """Take `4GB` and `512MiB` as well as a number."""
    found = _BYTES.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2]] if found else value


def _plain(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL can stand in no command and no path")
    return value


Text = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_plain)]
CommandText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_COMMAND), AfterValidator(_plain)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
StageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")]
WorkflowName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Owner = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
Account = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$")]
Host = Annotated[str, StringConstraints(pattern=r"^([A-Za-z_][A-Za-z0-9_.-]{0,31}@)?[A-Za-z0-9][A-Za-z0-9.-]{0,252}$")]
VariableName = Annotated[str, AfterValidator(check_variable)]
EnvironmentName = Annotated[str, AfterValidator(check_environment_name)]
Version = Annotated[str, StringConstraints(max_length=64), BeforeValidator(lambda v: str(v) if type(v) is int else v)]
Expression = Annotated[str, StringConstraints(max_length=4096)]


class _Part(BaseModel):
    """A part of a definition: keys as users write them, and no others."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )


class ArgumentType(StrEnum):
    """What an argument's value may be."""

    STRING = "string"
    INTEGER = "int"
    NUMBER = "float"
    BOOLEAN = "bool"
    PATH = "path"
    CHOICE = "choice"
    MULTIPLE_CHOICE = "multiple_choice"
    WORDS = "words"


class Argument(_Part):
    """An argument that is given when a job is submitted."""

    type: ArgumentType = Field(
        default=ArgumentType.STRING,
        description="`multiple_choice` is a list with commas; `words` become several words where they stand unquoted.",
    )
    required: bool = False
    choices: tuple[str | int | float, ...] = Field(default=(), max_length=200)
    default: JsonValue = None
    help: Text = ""


class Retries(_Part):
    """When a stage that failed is tried again: how often, after which exit codes, and how long after."""

    max: int = Field(ge=1, le=100)
    exit_codes: tuple[Annotated[int, Field(ge=1, le=255)], ...] = Field(default=(), description="Empty for any.")
    delay: float = Field(default=10.0, ge=0, le=86400, description="Seconds before the first.")
    back_off: float = Field(default=2.0, ge=1, le=10, description="Each delay is so many times the one before.")


class Resources(_Part):
    """What a stage may use, each of its processes together."""

    memory: Annotated[int, BeforeValidator(_bytes), Field(gt=0)] | None = Field(
        default=None, description="Bytes, or text such as 4GB."
    )
    processes: int | None = Field(default=None, ge=1, le=1_000_000, description="How many at once.")
    cpus: int | None = Field(
        default=None, ge=1, le=100_000, description="How many threads its libraries start: OMP_NUM_THREADS."
    )


class StageDefinition(_Part):
    """One command of a workflow, and how it is run."""

    command: CommandText
    working_dir: Text = ""
    data_dir: Text = ""
    output_variable_regex_list: tuple[Annotated[str, StringConstraints(max_length=1000)], ...] = Field(
        default=(), max_length=MAX_PATTERNS
    )
    parallel_exec: bool = False
    run_if: Expression | None = None
    repeat_period: Annotated[float, Field(ge=0, le=MAX_SECONDS)] | None = None
    repeat_until: Expression | None = None
    max_repeats: int | None = Field(default=None, ge=1, le=10_000_000)
    needs: tuple[StageId, ...] | None = None
    timeout: Seconds | None = Field(default=None, description="Seconds that one process may take.")
    retries: Annotated[Retries | None, BeforeValidator(lambda v: {"max": v} if type(v) is int and v else v or None)] = (
        None
    )
    idempotent: bool = Field(default=False, description="May be run again where it is unknown whether it has run.")
    outputs: tuple[Text, ...] = Field(default=(), max_length=100)
    executor: Literal[""] | Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = ""
    resources: Resources = Resources()
    environment: Mapping[EnvironmentName, Text] = Field(default_factory=dict)
    remote: Host | Literal[""] = Field(default="", description="The host that runs the command, by ssh.")


class Definition(_Part):
    """A workflow as its author wrote it."""

    name: WorkflowName
    owner: Owner | None = None
    description: Text = ""
    version: Version = ""
    user_account: Account | Literal[""] = ""
    arguments: Mapping[VariableName, Argument] | None = Field(default=None, max_length=MAX_ARGUMENTS)
    stages: Mapping[StageId, StageDefinition] = Field(min_length=1, max_length=MAX_STAGES)
