"""The language of workflows: definitions, their stages, variables and conditions, and commands without injection."""

from beamkeeper.domain.workflows.arguments import Arguments, checked_arguments, checked_value
from beamkeeper.domain.workflows.commands import (
    Command,
    InputFile,
    commands_for,
    expand,
    is_per_file,
    names_used,
)
from beamkeeper.domain.workflows.expressions import condition, holds
from beamkeeper.domain.workflows.formats import FileFormat, checked_definition, format_of, parse_definition
from beamkeeper.domain.workflows.graph import graph
from beamkeeper.domain.workflows.lint import Finding, Severity, check, lint
from beamkeeper.domain.workflows.model import (
    Argument,
    ArgumentType,
    Definition,
    Resources,
    Retries,
    StageDefinition,
)
from beamkeeper.domain.workflows.patterns import outputs_of

__all__ = [
    "Argument",
    "ArgumentType",
    "Arguments",
    "Command",
    "Definition",
    "FileFormat",
    "Finding",
    "InputFile",
    "Resources",
    "Retries",
    "Severity",
    "StageDefinition",
    "check",
    "checked_arguments",
    "checked_definition",
    "checked_value",
    "commands_for",
    "condition",
    "expand",
    "format_of",
    "graph",
    "holds",
    "is_per_file",
    "lint",
    "names_used",
    "outputs_of",
    "parse_definition",
]
