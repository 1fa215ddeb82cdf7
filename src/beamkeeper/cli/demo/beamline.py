"""The demo's own beamline: its settings, and bringing it up and down with the commands that everybody uses."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import socket
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.errors import ConflictError, DmError, SettingsError, UnavailableError
from beamkeeper.domain.status import PORTAL, SERVED, Service

PROFILE = "demo"
STATION = "demo"
_DM = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()", "--profile", PROFILE)
_PORTS = range(20_000, 30_000)
"""Below the ports that the kernel hands to outgoing connections: one of those may be gone at the next start."""


def database_urls(given: Sequence[str]) -> Mapping[Service, str]:
    """Return the database of each service: of one URL four are made; none means SQLite."""
    if any(not url.startswith(("postgresql://", "postgresql+psycopg://")) for url in given):
        raise SettingsError("--database takes URLs such as postgresql://USER@HOST/NAME")
    if len(given) == 1:
        address, question, query = given[0].partition("?")
        return {service: f"{address}_{service}{question}{query}" for service in Service}
    if len(given) not in (0, len(Service)):
        raise SettingsError("--database takes one URL, or four: of storage, catalog, acquisition and processing")
    return dict(zip(Service, given, strict=False))


class Beamline:
    """A beamline in a directory, with the profile `demo`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._file = directory / "beamkeeper.toml"

    @property
    def databases(self) -> Mapping[Service, str]:
        """The databases that its settings name; none before it is made, and where SQLite serves."""
        settings = self._settings() if self.exists() else {}
        return {
            service: settings[service]["database"] for service in Service if "database" in settings.get(service, {})
        }

    @property
    def url(self) -> str:
        """The address of its storage service."""
        return f"http://{self._settings()[Service.STORAGE]['listen']}"

    def exists(self) -> bool:
        """Whether it was made before."""
        return self._file.exists()

    def make(self, databases: Mapping[Service, str]) -> None:
        """Write its settings: loopback, free ports, everything in its directory."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [
            f"data_dir = {json.dumps(str(self.directory))}",
            'site = "Demo"',
            "[station]",
            f'name = "{STATION}"',
            'title = "A beamline to try things on"',
        ]
        for service, port in zip(SERVED, _free_ports(len(SERVED)), strict=True):
            lines += [f"[{service}]", f'listen = "127.0.0.1:{port}"']
            if service != PORTAL and service in databases:
                lines.append(f"database = {json.dumps(databases[Service(service)])}")
        new = self._file.with_suffix(".new")
        # A database's URL may hold a password.
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(lines) + "\n")
        new.replace(self._file)

    def up(self) -> None:
        """Bring it up, unless it is; the profile `demo` is its administrator then."""
        self._take_profile()
        self._dm("up", "--data", str(self.directory))

    def down(self) -> None:
        """Stop it, if it runs."""
        if self.exists():
            self._dm("down", "--data", str(self.directory))

    def client(self) -> Client:
        """Return a client of it, as its administrator."""
        kept = Logins().get(PROFILE)
        token = kept.token.get_secret_value() if kept and kept.token else None
        # Given, not found: what the person has in the environment is for another beamline.
        return Client(self.url, profile=PROFILE, token=token, station=STATION)

    def _settings(self) -> Mapping[str, Mapping[str, str]]:
        try:
            return tomllib.loads(self._file.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(
                f"{self._file} cannot be read ({error}): repair it, or remove {self.directory}"
            ) from error

    def _take_profile(self) -> None:
        """Free the profile of a demo that is gone; refuse to take one that is somebody's login to another place."""
        logins = Logins()
        profile = logins.get(PROFILE)
        if profile is None or profile.url.rstrip("/") == self.url:
            return
        if not _is_loopback(profile.url) or _answers(profile.url):
            raise ConflictError(
                f'the profile "{PROFILE}" is for a beamline at {profile.url}, which this demo did not make: '
                f"stop that one, or free the name with `dm --profile {PROFILE} logout`"
            )
        logins.remove(PROFILE)

    def _dm(self, *words: str) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BEAMKEEPER_")}
        done = subprocess.run([*_DM, *words], env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            told = (done.stderr.strip() or done.stdout.strip()).splitlines()
            reason = told[-1].removeprefix("dm: ") if told else f"exit status {done.returncode}"
            raise UnavailableError(f"`dm {' '.join(words)}` failed: {reason}")


def _is_loopback(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False


def _answers(url: str) -> bool:
    with Client(url, profile=PROFILE) as client:
        try:
            client.health(Service.STORAGE)
        except UnavailableError:
            return False
        except DmError:
            return True
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SettingsError("no port between 20000 and 30000 is free on the loopback address")
