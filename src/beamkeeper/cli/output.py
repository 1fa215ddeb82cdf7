"""Everything that `dm` prints: tables or JSON, sentences, questions; the only place that prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from pydantic import BaseModel, TypeAdapter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.names import show_path

JSON = TypeAdapter(Any)


def is_json() -> bool:
    """Whether JSON was asked for."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.find_root().obj and ctx.find_root().obj.get("json"))


UNCUT = 10_000
"""The width of what goes to a file or a pipe: no path is cut there."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that never takes a name for markup, and keeps long names whole where nobody looks."""
    is_tty = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=not is_tty, width=None if is_tty else UNCUT
    )


def safe(value: object) -> str:
    """Return a value as text that cannot steer a terminal."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, bytes):
        return show_path(value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)
    return "".join(c if c.isprintable() else "\\x" + c.encode("utf-8", "surrogatepass").hex() for c in text)


def size(count: int) -> str:
    """Return a number of bytes for people: powers of 1000, as disks are sold."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


def say(sentence: str) -> None:
    """Print a sentence for a person; nothing where JSON was asked for."""
    if not is_json():
        console().print(Text(safe(sentence)))


def note(sentence: str) -> None:
    """Print a sentence beside the answer, on standard error."""
    console(stderr=True).print(Text(safe(sentence)))


def raw(text: str) -> None:
    """Print what a program wrote; where somebody looks, what could steer the terminal is shown instead."""
    if sys.stdout.isatty():
        text = "".join(
            c if c in "\n\t" or c.isprintable() else "\\x" + c.encode("utf-8", "surrogatepass").hex() for c in text
        )
    sys.stdout.write(text)
    sys.stdout.flush()


def data(value: object) -> None:
    """Print a value as JSON."""
    sys.stdout.write(JSON.dump_json(value, indent=2).decode("utf-8", "replace") + "\n")


def rows(
    items: Iterable[BaseModel], columns: Mapping[str, Any], *, title: str | None = None, empty: str = "nothing yet"
) -> None:
    """Print models as a table, or as a JSON list.

    `columns` maps a heading to a field's name, or to a function of the model.
    """
    if is_json():
        data(list(items))
        return
    found = [[_cell(item, column) for column in columns.values()] for item in items]
    if not found:
        say(empty)
        return
    table = Table(title=title, header_style="bold", box=None, pad_edge=False)
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in found:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def table(headings: Sequence[str], lines: Sequence[Sequence[object]], *, empty: str = "nothing yet") -> None:
    """Print lines of values under headings."""
    if not lines:
        say(empty)
        return
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for line in lines:
        shown.add_row(*(Text(safe(value)) for value in line))
    console().print(shown)


def _cell(item: BaseModel, column: Any) -> str:
    return safe(column(item) if callable(column) else getattr(item, column))


def record(item: BaseModel, fields: Mapping[str, Any]) -> None:
    """Print one model, a line a field, or as JSON."""
    if is_json():
        data(item)
        return
    pairs([(heading, _cell(item, column)) for heading, column in fields.items()])


def pairs(lines: Sequence[tuple[str, object]], *, title: str | None = None) -> None:
    """Print headings with their values; empty ones are left out."""
    table = Table(title=title, show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for heading, value in lines:
        if (text := safe(value)) != "":
            table.add_row(heading, Text(text))
    console().print(table)


def error(fault: DmError, *, as_json: bool) -> None:
    """Print what went wrong: one sentence, or its code and facts."""
    if as_json:
        plain = {"code": fault.code, "message": fault.message, "details": dict(fault.details)}
        sys.stderr.write(json.dumps(plain, default=str) + "\n")
    else:
        console(stderr=True).print(Text(f"dm: {safe(fault.message)}", style="red" if sys.stderr.isatty() else ""))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot easily be undone; ends the command where the answer is no."""
    if yes:
        return
    try:
        is_wanted = click.confirm(safe(question), default=False, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise InvalidError("there is nobody to ask, so nothing was done: give --yes to go on") from None
    if not is_wanted:
        note("nothing was done.")
        raise click.exceptions.Exit(1)
