"""`dm config`: what the settings are, where each comes from, and whether they can be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from pydantic import BaseModel, JsonValue, ValidationError

from beamkeeper import config
from beamkeeper.cli import output
from beamkeeper.config.load import Loaded
from beamkeeper.domain.errors import NotFoundError, SettingsError
from beamkeeper.plugins import load as plugins
from beamkeeper.plugins.api import PROCESSORS, TRANSFERS
from beamkeeper.plugins.people import ACCOUNTS, AUTHENTICATORS, DIRECTORIES, IDENTITY_PROVIDERS, PROPOSALS

FILE = click.Path(path_type=Path)
GROUPS = {
    "transfer": (TRANSFERS,),
    "processor": (PROCESSORS,),
    "facility": (AUTHENTICATORS, DIRECTORIES, ACCOUNTS),
    "proposals": (PROPOSALS,),
    "oidc": (IDENTITY_PROVIDERS,),
}
"""Of which plugins each table has the options: of the first of these groups that has one of its name."""


class Setting(BaseModel):
    """A setting as it is shown."""

    key: str
    value: JsonValue
    origin: str


@click.command()
@click.option("--config", "file", type=FILE, metavar="FILE", help="The file of settings.")
@click.option("--data", type=FILE, metavar="DIR", help="The data directory.")
@click.option("--example", is_flag=True, help="Print a file with every setting as a comment.")
def show(file: Path | None, data: Path | None, example: bool) -> None:
    """Show every setting, and where it comes from: default, file and line, environment. Passwords do not show."""
    if example:
        output.say(config.example().rstrip("\n")) if not output.is_json() else output.data(
            {"example": config.example()}
        )
        return
    loaded = config.load(file, overrides={"data_dir": data})
    found = [Setting(key=row.key, value=row.value, origin=row.origin) for row in config.rows(loaded)]
    output.rows(found, {"setting": "key", "value": "value", "from": "origin"})


@click.command()
@click.argument("file", required=False, type=FILE)
@click.option("--data", type=FILE, metavar="DIR", help="The data directory.")
def check(file: Path | None, data: Path | None) -> None:
    """Say whether the settings can be used: of FILE, or those that a beamline here would start with."""
    loaded = config.load(file, overrides={"data_dir": data})
    check_plugins(loaded)
    if output.is_json():
        output.data({"file": loaded.file, "is_ok": True})
    elif loaded.file:
        output.say(f"{loaded.file} can be used.")
    else:
        output.say("There is no file of settings; the defaults and the environment can be used.")


def check_plugins(loaded: Loaded) -> None:
    """Refuse plugins that are not installed here, and options that they do not have."""
    settings = loaded.settings
    for name in settings.acquisition.processors:
        _find(loaded, (PROCESSORS,), name, "acquisition.processors")
    for table, groups in GROUPS.items():
        for name, options in getattr(settings, table).items():
            first = f"{table}.{name}.{next(iter(options))}"
            model = _find(loaded, groups, "oidc" if table == "oidc" else name, first)
            try:
                if model is not None:
                    model.model_validate(options)
            except ValidationError as error:
                wrong = error.errors(include_input=False)[0]
                key = ".".join([table, name, *(str(part) for part in wrong["loc"])])
                origin = loaded.origin.get(".".join(key.split(".")[:3]), loaded.origin[first])
                raise SettingsError(
                    f'{origin.removeprefix("file ")}: setting "{key}" is wrong: {wrong["msg"]}', key=key
                ) from None


def _find(loaded: Loaded, groups: Sequence[str], name: str, key: str) -> type[BaseModel] | None:
    """Return the options model of a plugin; None where its own packages are not installed here."""
    group = next((group for group in groups if name in plugins.names(group)), groups[0])
    try:
        factory = plugins.find(group, name).load()
    except NotFoundError as error:
        origin = loaded.origin_of(key).removeprefix("file ")
        raise SettingsError(f'{origin}: setting "{key}" is wrong: {error.message}', key=key) from error
    except ImportError:
        return None
    model: type[BaseModel] = factory.options
    return model
