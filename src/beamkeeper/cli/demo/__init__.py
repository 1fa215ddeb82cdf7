"""`dm demo`: a beamline on this machine, a simulated detector, and a check of every file on its own."""

from __future__ import annotations

from pathlib import Path

import click

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_REAL = click.Path(exists=True, file_okay=False, readable=True, path_type=Path)


@click.command()
@click.option("--torture", is_flag=True, help="Add hostile names, links, a pipe, empty and sparse files.")
@click.option("--data", "data", multiple=True, type=_REAL, help="Add a copy of these files; may be repeated.")
@click.option("--frames", type=click.IntRange(1), default=300, show_default=True, help="How many TIFF frames.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 10_000), default=100.0, show_default=True, help="TIFF frames a second."
)
@click.option("--stop", is_flag=True, help="Stop the demo's beamline; what it keeps stays on disk.")
@click.option("--resume", is_flag=True, help="Finish a demo that was interrupted (what a plain `dm demo` does, too).")
@click.option("--keep/--fresh", "keep", default=None, help="Go on with the demo's beamline, or begin from nothing.")
@click.option(
    "--database",
    multiple=True,
    metavar="URL",
    help="PostgreSQL in place of SQLite: one URL, to which _storage, _catalog, _acquisition and _processing "
    "are added, or four. The databases must be there, and be empty. Leave the password to ~/.pgpass.",
)
@click.option("--directory", type=_DIRECTORY, help="Where the demo keeps everything.  [default: XDG data directory]")
def demo(
    *,
    torture: bool,
    data: tuple[Path, ...],
    frames: int,
    rate: float,
    stop: bool,
    resume: bool,
    keep: bool | None,
    database: tuple[str, ...],
    directory: Path | None,
) -> int:
    """Show everything: a beamline, a simulated detector, a workflow on its frames, and a check of all files.

    The exit status is 0 only where every file is stored, verified and catalogued as it was written, and
    every job has made its curve.
    """
    from beamkeeper.cli.demo.place import Place, default_directory
    from beamkeeper.cli.demo.run import Wish, run, stop_beamline

    place = Place((directory or default_directory()).absolute())
    if stop:
        return stop_beamline(place)
    wish = Wish(
        torture=torture,
        copies=tuple(path.resolve() for path in data),
        frames=frames,
        rate=rate,
        resume=resume,
        keep=keep,
        databases=database,
    )
    return run(place, wish)
