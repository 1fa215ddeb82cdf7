"""Commands and groups that are known by name and one line, and imported when they are run."""

from __future__ import annotations

import importlib
from typing import cast

import click


class Lazy(click.Command):
    """A command whose module is imported when it is asked for more than its one line."""

    def __init__(self, name: str, target: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help, help=short_help)
        self._target = target
        self._command: click.Command | None = None

    @property
    def real(self) -> click.Command:
        """The command itself."""
        if self._command is None:
            module, _, attribute = self._target.partition(":")
            self._command = cast(click.Command, getattr(importlib.import_module(f"beamkeeper.cli.{module}"), attribute))
        return self._command


class LazyGroup(click.Group):
    """A group that knows its commands' names and lines without importing them."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module unless only words are completed."""
        command = super().get_command(ctx, cmd_name)
        if isinstance(command, Lazy) and not ctx.resilient_parsing and not _is_listing(ctx):
            real = command.real
            real.name, real.short_help = command.name, command.short_help
            return real
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        ctx.meta["beamkeeper.listing"] = True
        super().format_commands(ctx, formatter)
        ctx.meta.pop("beamkeeper.listing", None)


def _is_listing(ctx: click.Context) -> bool:
    return bool(ctx.meta.get("beamkeeper.listing"))
