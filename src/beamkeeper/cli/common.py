"""What commands share: the client that the options name, and which experiment is meant."""

from __future__ import annotations

from typing import Any

import click

from beamkeeper.client import Client
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.experiments import Experiment


def client() -> Client:
    """Return the client that the options for all commands name."""
    options: dict[str, Any] = click.get_current_context().find_root().obj or {}
    opened = Client(options.get("url"), profile=options.get("profile"), station=options.get("station"))
    click.get_current_context().find_root().call_on_close(opened.close)
    return opened


def experiment(of: Client, name: str | None) -> Experiment:
    """Return the experiment that is meant: by name, or the one of `dm experiment use`."""
    meant = name or of.profile.experiment
    if not meant:
        raise InvalidError("say which experiment: --experiment NAME, or once `dm experiment use NAME`")
    return of.experiments.get(meant)


def key_values(words: tuple[str, ...]) -> dict[str, Any]:
    """Return trailing key:value words as metadata, split at the first colon."""
    found: dict[str, Any] = {}
    for word in words:
        key, colon, value = word.partition(":")
        if not key or not colon:
            raise InvalidError(f'"{word}" is not key:value')
        found[key] = value
    return found
