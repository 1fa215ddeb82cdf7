"""`dm plugin`: the plugins of the station."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.acquisition import PluginInfo


@click.command("list")
def list_() -> None:
    """List the plugins that are installed at the station, and which of them its settings use."""
    columns = {
        "kind": _kind,
        "name": "name",
        "in use": "is_active",
        "package": lambda plugin: f"{plugin.package} {plugin.version}".strip(),
        "what it does": "summary",
    }
    output.rows(common.client().plugins.list(), columns, empty="no plugins are installed.")


def _kind(plugin: PluginInfo) -> str:
    return plugin.group.rpartition(".")[2].removesuffix("s")
