"""What `dm up`, `dm serve`, `dm backup` and their like start as a process. Light until it knows what to do."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from beamkeeper.domain.errors import DmError
from beamkeeper.engine import upkeep
from beamkeeper.engine.supervise import REFUSED

LOCAL = {
    "backup": "save the databases and the settings to a directory",
    "restore": "bring back what backup saved",
    "db-upgrade": "bring the databases to this version's schema",
    "db-copy": "copy the databases to those of another file of settings",
    "session": "leave a session for this machine's operator in the data directory",
}


def main(words: Sequence[str]) -> int:
    """Run one of the commands and return the exit status."""
    if words and words[0] in upkeep.VERBS:
        return upkeep.main(words)
    options = _parser().parse_args(words)
    try:
        if options.command == "run":
            # What is imported lives on: looking through it for garbage again and again is a quarter of the start.
            gc.disable()
            from beamkeeper.serve.run import run

            return run(options.config, options.data, options.services)
        from beamkeeper.serve.local import run as run_local

        return run_local(options)
    except DmError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m beamkeeper.serve", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run services in the foreground")
    run.add_argument("services", nargs="*", help="storage, catalog, acquisition, processing, portal; none is all")
    made = [run]
    for name, line in LOCAL.items():
        command = commands.add_parser(name, help=line)
        made.append(command)
        if name in ("backup", "restore"):
            command.add_argument("directory", type=Path)
        if name == "db-copy":
            command.add_argument("--to", type=Path, required=True, metavar="FILE", help="settings that name the others")
    for command in made:
        command.add_argument("--config", type=Path, metavar="FILE", help="the file of settings")
        command.add_argument("--data", type=Path, metavar="DIR", help="the data directory")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
