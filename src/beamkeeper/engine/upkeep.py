"""The verbs of `python -m beamkeeper.serve` that bring a beamline up and down; light, as the supervisor must be."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from beamkeeper.domain.errors import DmError
from beamkeeper.engine.supervise import (
    GRACE_S,
    Running,
    find_running,
    log_file,
    start_detached,
    stop_running,
    supervise,
)

VERBS = ("up", "down", "running")


def main(words: Sequence[str]) -> int:
    """Run a verb and return the exit status; an answer is JSON on standard output, an error `code: sentence`."""
    options = _parser().parse_args(words)
    try:
        if options.verb == "up" and not options.detach:
            return supervise(_run(options), options.data, log=log_file(options.data) if options.log else None)
        if options.verb == "up":
            answer = _facts(start_detached([*_serve("up", options), "--log"], options.data))
        elif options.verb == "down":
            answer = {"was_running": stop_running(options.data, options.timeout)}
        else:
            answer = _facts(find_running(options.data))
    except DmError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m beamkeeper.serve", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="keep the services running")
    down = verbs.add_parser("down", help="stop them")
    running = verbs.add_parser("running", help="tell whether they run")
    for verb in (up, down, running):
        verb.add_argument("--data", type=_absolute, required=True, metavar="DIR", help="the data directory")
    up.add_argument("--config", type=_absolute, metavar="FILE", help="the file of settings")
    up.add_argument("--detach", action="store_true", help="start, and return")
    up.add_argument("--log", action="store_true", help="write to the data directory's log")
    down.add_argument("--timeout", type=float, default=GRACE_S + 5, metavar="S", help="then end them by force")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _run(options: argparse.Namespace) -> list[str]:
    return _serve("run", options)  # without names: all that the settings want


def _serve(verb: str, options: argparse.Namespace, *words: str) -> list[str]:
    # -P: no module is ever to be imported from the directory that somebody happened to be in.
    config = ["--config", str(options.config)] if options.config else []
    return [sys.executable, "-P", "-m", "beamkeeper.serve", verb, *words, "--data", str(options.data), *config]


def _facts(running: Running | None) -> dict[str, object] | None:
    if running is None:
        return None
    return {"pid": running.process.pid, "started_at": running.started_at, "restarts": running.restarts}
