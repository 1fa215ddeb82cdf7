"""Write the reference pages that follow from the code; `--check` only compares."""

from __future__ import annotations

import difflib
import html
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import click
from pydantic.fields import FieldInfo

from beamkeeper.cli.app import COMMANDS, EXIT_CODES, EXIT_INTERRUPTED, EXIT_WANTING, GROUPS, dm
from beamkeeper.cli.lazy import Lazy
from beamkeeper.cli.tables import SUBGROUPS
from beamkeeper.config import RESERVED_ENVIRONMENT, example
from beamkeeper.domain.errors import DmError, error_classes
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import TRANSFERS
from beamkeeper.library.entries import entries
from beamkeeper.plugins.load import find
from beamkeeper.server.errors import STATUS

MATRIX = Path(__file__).parents[1] / "tests" / "server" / "matrix.toml"
REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
GENERATED = "<!-- Written by scripts/gen_docs.py: change the code, and run `make docs`. -->"


def cell(text: str) -> str:
    """Return text that stays in one cell of a table."""
    return re.sub(r"\s+", " ", text).strip()


def code(text: str) -> str:
    """Return words of the command line for a cell; a bar in them would end the cell for some readers of Markdown."""
    return (
        f"<code>{html.escape(cell(text), quote=False).replace('|', '&#124;')}</code>"
        if "|" in text
        else f"`{cell(text)}`"
    )


def option_rows(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a row for each argument and option of a command."""
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Argument):
            yield f"| {code(parameter.make_metavar(context))} | {'' if parameter.required else 'May be left out.'} |"
        elif isinstance(parameter, click.Option) and not parameter.hidden:
            record = parameter.get_help_record(context)
            if record is not None and "--help" not in parameter.opts:
                yield f"| {code(record[0])} | {cell(record[1]).replace('|', '&#124;')} |"


def command_text(path: Sequence[str], command: click.Command) -> Iterator[str]:
    """Yield the section of one command."""
    parent = click.Context(dm, info_name=" ".join(path[:-1]))
    context = click.Context(command, info_name=path[-1], parent=parent)
    usage = " ".join([*path, *command.collect_usage_pieces(context)])
    yield f"### {' '.join(path)}\n\n```\n{usage}\n```\n"
    yield inspect.cleandoc(command.help or "").replace("\b", "") + "\n"
    rows = list(option_rows(command, context))
    if rows:
        yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"


def real(command: click.Command | None) -> click.Command:
    """Return a command with its options: the one that a lazy one stands for."""
    if command is None:
        raise SystemExit("a command of the table is not there")
    return command.real if isinstance(command, Lazy) else command


def cli_page() -> str:
    """Return the page of all commands."""
    context = click.Context(dm, info_name="dm")
    parts = [
        f"# Command line\n\n{GENERATED}\n",
        "`dm` has commands, and nouns with verbs. Every one has `--help`. What it ends with is in "
        "[errors and exit statuses](errors.md).\n",
        "## Options of every command\n",
        "\n".join(["| | |", "|---|---|", *option_rows(dm, context)]) + "\n",
        "## Commands\n",
    ]
    for name in COMMANDS:
        parts += command_text(["dm", name], real(dm.commands[name]))
    for name, (line, verbs) in GROUPS.items():
        group = cast(click.Group, dm.commands[name])
        parts.append(f"## dm {name}\n\n{line}\n")
        for verb in verbs:
            parts += command_text(["dm", name, verb], real(group.commands[verb]))
        for noun, part in SUBGROUPS:
            if noun == name:
                inner = cast(click.Group, group.commands[part])
                for verb in inner.commands:
                    parts += command_text(["dm", name, part, verb], real(inner.commands[verb]))
    parts.append(
        "## Completion\n\nFor bash, put this into `~/.bashrc`; zsh and fish have their own word in place of `bash`.\n\n"
        '```sh\neval "$(_DM_COMPLETE=bash_source dm)"\n```\n'
    )
    return "\n".join(parts)


def library_page() -> str:
    """Return the page of the workflows that come with Beamkeeper, with their arguments."""
    parts = [
        f"# Workflows of the library\n\n{GENERATED}\n",
        "`dm workflow library` lists them, `dm workflow install NAME` adds one to the station. "
        "[Use the library](../how-to/use-the-library.md) says how.\n",
    ]
    for one in entries():
        definition = one.definition
        parts.append(f"## {one.name}\n\n{definition.description} [How, with a picture](../library/{one.name}.md).\n")
        needed = f"the extra `{one.needs.extra}`" if one.needs.extra else "nothing more"
        parts.append(f"It needs {needed} where its jobs run, and takes:\n")
        rows = [
            f"| `{name}` | {a.type.value}{', required' if a.required else ''} | {shown(a.default)} | {cell(a.help)} |"
            for name, a in (definition.arguments or {}).items()
        ]
        parts.append("\n".join(["| argument | type | default | |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def shown(value: object) -> str:
    """Return a default for a cell."""
    return "" if value in (None, "") else f"`{value}`"


def settings_page() -> str:
    """Return the page of all settings."""
    variables = [f"| `{name}` | {cell(text)} |" for name, text in RESERVED_ENVIRONMENT.items()]
    return "\n".join(
        [
            f"# Settings\n\n{GENERATED}\n",
            "A setting is taken from the last of these that has it: its default, the file, the environment, a flag.\n",
            "The file is the first of: the one that `BEAMKEEPER_CONFIG` names, `beamkeeper.toml` in the data "
            "directory, `~/.config/beamkeeper/beamkeeper.toml`. The variable of `log.level` is "
            "`BEAMKEEPER_LOG__LEVEL`: upper case, with two underscores in place of the dot.\n",
            "`dm config show` prints what holds and where each value comes from; `dm config check` says whether it "
            "can be used. A setting that is wrong or not known keeps the services from starting: the message names "
            "file, key and line.\n",
            f"## The file\n\n```toml\n{example()}```\n",
            "## Variables that are not settings\n",
            "\n".join(["| variable | |", "|---|---|", *variables]) + "\n",
        ]
    )


def default(field: FieldInfo) -> str:
    """Return the default of an option for a cell; empty where it has none."""
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def transfers_page() -> str:
    """Return the page of the shipped transfers and their options."""
    parts = [
        f"# Transfers\n\n{GENERATED}\n",
        "How files get to a storage area is chosen by the scheme of its address, or by the transfer that it names. The "
        "options of one stand in a table `[transfer.NAME]` of the station's settings; a table of another name says by "
        "`plugin` which it is for.\n\n"
        "Every transfer, of other packages too, also takes `average_bytes_s`: at most so many bytes a second go to a "
        "storage area, on the average of some batches. A batch moves as fast as it can, and the next one begins once "
        "its bytes would have taken so long.\n",
        "\n".join(["| address | transfer |", "|---|---|", *(f"| `{s}:` | `{t}` |" for s, t in TRANSFERS.items())])
        + "\n",
    ]
    for name in dict.fromkeys(TRANSFERS.values()):
        factory = find("beamkeeper.transfers", name).load()
        rows = [
            f"| `{key}` | {cell(str(field.get_default(call_default_factory=True)))} | {cell(field.description or '')} |"
            for key, field in factory.options.model_fields.items()
        ]
        parts += [
            f"## {name}\n\n{factory.summary}\n",
            "\n".join(["| option | default | |", "|---|---|---|", *rows]) + "\n",
        ]
    return "\n".join(parts)


def depth(cls: type[DmError]) -> int:
    """Return how far below the root of the tree an error is."""
    return len([base for base in cls.__mro__ if issubclass(base, DmError)]) - 1


def errors_page() -> str:
    """Return the page of errors and exit statuses."""
    rows = [
        f"| {'&emsp;' * depth(cls)}`{cls.__name__}` | `{code}` | {STATUS[cls]} | {EXIT_CODES[code]} "
        f"| {cell((cls.__doc__ or '').splitlines()[0])} |"
        for code, cls in in_tree_order(error_classes())
    ]
    return "\n".join(
        [
            f"# Errors and exit statuses\n\n{GENERATED}\n",
            "An error is one sentence for people, a `code` that never changes for programs, and the facts as data. "
            'Over HTTP it is `{"code": ..., "message": ..., "details": {...}}`. The Python client raises the class.\n',
            "| class | code | HTTP | exit status of `dm` | |\n|---|---|---|---|---|",
            "\n".join(rows) + "\n",
            "## Other exit statuses\n",
            "| | |\n|---|---|",
            "| 0 | It is done. |",
            "| 2 | The command line is wrong: an option or an argument. |",
            f"| {EXIT_WANTING} | What was asked for was done and found wanting, such as an upload with files "
            "that were not delivered. |",
            f"| {EXIT_INTERRUPTED} | It was stopped by Ctrl-C. |\n",
        ]
    )


def in_tree_order(classes: Mapping[str, type[DmError]]) -> Iterator[tuple[str, type[DmError]]]:
    """Yield the errors so that each stands below the one that it derives from."""

    def below(cls: type[DmError]) -> Iterator[tuple[str, type[DmError]]]:
        yield cls.code, cls
        for child in cls.__subclasses__():
            if classes.get(child.code) is child:
                yield from below(child)

    return below(DmError)


def rights_page() -> str:
    """Return the matrix of rights, as the tests try it."""
    table = tomllib.loads(MATRIX.read_text())
    lines = [
        "# Who may call which route",
        "",
        GENERATED,
        "",
        "Every route is tried by the tests with every kind of caller, on an experiment of one's own, on another one of "
        "the same station, on one of another station, and on one that does not exist. An experiment's people may on "
        "their experiment, a station's staff and services on that station's, administrators everywhere. Whom the table "
        "does not name is refused: with 403 where they may know of the object, else with 404, as where there is none.",
        "",
        "| group | who | roles | scopes of an API key, of which one is needed |",
        "|---|---|---|---|",
    ]
    for name, group in table["groups"].items():
        roles, keys = (", ".join(group.get(key, [])) or "none" for key in ("may", "keys"))
        lines.append(f"| {name} | {cell(group['says'])} | {roles} | {keys} |")
    for service in Service:
        lines += ["", f"## {service}", "", "| route | group | of |", "|---|---|---|"]
        for route, rule in table[service].items():
            group, _, kind = rule.partition(" of ")
            lines.append(f"| {code(route)} | {group} | {kind} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or say which differ from the code."""
    stale = 0
    pages = {
        "cli.md": cli_page,
        "settings.md": settings_page,
        "library.md": library_page,
        "errors.md": errors_page,
        "transfers.md": transfers_page,
        "rights-matrix.md": rights_page,
    }
    for name, make in pages.items():
        text = make()
        page = REFERENCE / name
        before = page.read_text() if page.exists() else ""
        if before == text:
            continue
        stale += 1
        if "--check" in arguments:
            sys.stderr.writelines(
                difflib.unified_diff(before.splitlines(True), text.splitlines(True), name, "the code")
            )
        else:
            page.write_text(text)
    return stale if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
