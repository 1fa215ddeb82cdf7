"""The services of this machine as processes: asking `python -m beamkeeper.serve`, and turning into it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from beamkeeper.config import Loaded
from beamkeeper.domain.errors import InternalError, SettingsError, UnavailableError, error_classes
from beamkeeper.domain.status import PORTAL, Service

_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
_TAIL_BYTES = 16_384


def command(verb: str, loaded: Loaded, *words: str) -> list[str]:
    """Return the command of a verb of `beamkeeper.serve`, for these settings."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("sqlalchemy") is None:
        raise SettingsError("the services are not installed here: `pip install 'beamkeeper[server]'` brings them")
    config = ["--config", str(loaded.file)] if loaded.file else []
    # -P: no module is ever to be imported from the directory that somebody happens to be in.
    return [sys.executable, "-P", "-m", "beamkeeper.serve", verb, *words, *_data(loaded), *config]


def call(verb: str, loaded: Loaded, *words: str) -> str:
    """Run a verb and return what it told; its error is raised as the class that its code names."""
    done = subprocess.run(command(verb, loaded, *words), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    told = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    code, sentence = _split(told)
    if not code:
        raise InternalError(f"`beamkeeper.serve {verb}` failed: {sentence}")
    raise error_classes()[code](sentence)


def ask(verb: str, loaded: Loaded, *words: str) -> Any:
    """Run a verb that answers in JSON, and return its answer."""
    return json.loads(call(verb, loaded, *words))


def _split(line: str) -> tuple[str, str]:
    """Return the code and the sentence of a line `code: sentence`; no code where it is another line."""
    code, _, sentence = line.partition(": ")
    return (code, sentence) if code in error_classes() else ("", line)


def become(verb: str, loaded: Loaded, *words: str) -> NoReturn:
    """Go on as a verb of `beamkeeper.serve`: its output, its signals and its exit status are ours."""
    argv = command(verb, loaded, *words)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)  # noqa: S606 - there is no shell to go through


def running(loaded: Loaded) -> dict[str, Any] | None:
    """Return what runs on a data directory; None where nothing does."""
    found: dict[str, Any] | None = ask("running", _without_file(loaded))
    return found


def stop(loaded: Loaded) -> bool:
    """Stop what runs on a data directory; tell whether anything did."""
    return bool(ask("down", _without_file(loaded))["was_running"])


def served(loaded: Loaded) -> list[str]:
    """Return what `dm up` runs."""
    return [*Service, PORTAL] if loaded.settings.portal.enabled else [*Service]


def refuse_taken_ports(loaded: Loaded) -> None:
    """Refuse addresses that cannot be listened on, before anything is started."""
    for service in served(loaded):
        host, port = loaded.settings.listen(service)
        key = f"{service}.listen"
        if port == 0:
            raise SettingsError(f"{key} is port 0: give a port, so that the beamline is found again", key=key)
        try:
            family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port} for {service}: {error.strerror} "
                f"(another program may have it: stop that, or set another {key})",
                key=key,
            ) from error


def answers(loaded: Loaded, service: str) -> bool:
    """Whether a service of this machine answers, and is that service."""
    host, port = loaded.settings.listen(service)
    connection = _connection(loaded, service, _WILDCARDS.get(host, host), port)
    try:
        connection.request("GET", "/health")
        found = json.loads(connection.getresponse().read(4096))
        return isinstance(found, dict) and found.get("service") == service
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _connection(loaded: Loaded, service: str, host: str, port: int) -> http.client.HTTPConnection:
    if not loaded.settings.certificate(service)[0]:
        return http.client.HTTPConnection(host, port, timeout=2)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # to our own machine, and nothing is told
    return http.client.HTTPSConnection(host, port, timeout=2, context=context)


def restarts(data_dir: Path) -> int | None:
    """Return how often the services had to be started again; None where the supervisor has ended."""
    try:
        return int(json.loads((data_dir / "run" / "supervisor.json").read_text())["restarts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def log_file(data_dir: Path) -> Path:
    """Return the file that takes what the services write."""
    return data_dir / "log" / "beamkeeper.log"


def last_words(data_dir: Path, since: int) -> str:
    """Return the last error that the log tells, of what was written after its first `since` bytes."""
    try:
        with log_file(data_dir).open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since if since <= end else 0, end - _TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    told = [line for line in lines if " supervisor: " not in line]
    return _split(told[-1])[1] if told else ""


def log_size(data_dir: Path) -> int:
    """Return how long the log is now."""
    try:
        return log_file(data_dir).stat().st_size
    except OSError:
        return 0


def _data(loaded: Loaded) -> list[str]:
    return ["--data", str(loaded.settings.data_dir)]


def _without_file(loaded: Loaded) -> Loaded:
    """Return settings for verbs that take the data directory and nothing else."""
    return Loaded(loaded.settings, loaded.origin)
