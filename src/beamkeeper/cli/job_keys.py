"""`dm job make-key`: keys of the job socket, for its two sides."""

from __future__ import annotations

from pathlib import Path

import click

from beamkeeper.cli import output
from beamkeeper.config import curve


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def make_key(file: Path) -> None:
    """Make a pair of keys, the secret one into FILE, and show the public one.

    Where FILE is there already, its public key is shown. The station and each of its clients have a file of their own.
    """
    public = curve.read(file)[0] if file.exists() else curve.make(file)
    if output.is_json():
        output.data({"file": str(file), "public_key": public})
        return
    output.note(f"{file} is secret; its public key is")
    output.raw(f"{public}\n")
