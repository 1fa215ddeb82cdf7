"""Logins that last from one command to the next: kept in a file that only its owner may read."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.names import UtcTime
from beamkeeper.domain.status import StationServices


class Profile(BaseModel):
    """An address and, once logged in, who one is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    username: str = ""
    token: SecretStr | None = None
    expires_at: UtcTime | None = None
    experiment: str = ""
    experiment_uid: str = ""
    station: str = ""
    mirror: str = ""
    ca: str = ""
    stations: tuple[StationServices, ...] = ()
    """Where the services of stations are, as the site told last: they are asked when it cannot be reached."""


_PROFILES = TypeAdapter(dict[str, Profile])
DEFAULT = "default"
LOGIN_FILE = "DM_LOGIN_FILE"
"""The variable that names a login file; scripts of the original system set it."""


def config_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of a user's own settings."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config") / "beamkeeper"


def read_login_file(path: Path) -> tuple[str, SecretStr]:
    """Return who logs in by a file of one line `user|password`, which nobody else may read."""
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
            line = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the login file {path} ({error}): it has one line, user|password") from error
    username, bar, password = line.partition("|")
    if not bar or not username or not password:
        raise SettingsError(f"{path} is no login file: it has one line, user|password")
    return username.strip(), SecretStr(password)


class Logins:
    """The file of profiles; written whole, under a lock, with mode 0600."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_home() / "logins.json"

    def get(self, name: str) -> Profile | None:
        """Return a profile, or None where there is none of that name."""
        return self._read().get(name)

    def all(self) -> dict[str, Profile]:
        """Return every profile by its name."""
        return self._read()

    def put(self, name: str, profile: Profile) -> None:
        """Keep a profile."""
        with self._locked():
            self._write({**self._read(), name: profile})

    def remove(self, name: str) -> None:
        """Forget a profile; one that is not there is no error."""
        with self._locked():
            profiles = self._read()
            if profiles.pop(name, None) is not None:
                self._write(profiles)

    def _read(self) -> dict[str, Profile]:
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_IMODE(mode) & 0o077:
                    raise SettingsError(f"{self.path} can be read by others: make it private with `chmod 600`")
                return _PROFILES.validate_json(file.read())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SettingsError(f"cannot read {self.path} ({error.strerror}): logins are kept there") from error
        except ValidationError as error:
            raise SettingsError(f"{self.path} is damaged: remove it and log in again") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise SettingsError(f"cannot write {self.path} ({error.strerror}): logins are kept there") from error

    def _write(self, profiles: Mapping[str, Profile]) -> None:
        plain = {
            name: {
                **profile.model_dump(mode="json"),
                "token": profile.token.get_secret_value() if profile.token else None,
            }
            for name, profile in profiles.items()
        }
        new = self.path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
