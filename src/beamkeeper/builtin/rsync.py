"""Transfer by rsync, over ssh (`rsync+ssh://USER@HOST/PATH`) or to a daemon (`rsync://USER@HOST/MODULE/PATH`)."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, unquote

from pydantic import Field

from beamkeeper.builtin.held import growing
from beamkeeper.builtin.outside import OutsideOptions, OutsideTransfer, Refused, classified
from beamkeeper.builtin.ssh import Connections
from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.plugins import programs
from beamkeeper.plugins.api import Ahead, Options, Stop, TransferItem

OLDEST = (3, 2)
CONNECT_S = 15
SSH_PORT = 22
AGAIN_S = 0.5
_APPENDING = ("--append", "--inplace")
"""On trust: whatever this makes of a file, it is compared when that is finished."""

_MENDING = ("--inplace", "--no-whole-file", "--ignore-times")
"""What is there is compared by rsync's blocks, and only what differs goes over the network."""

BROKEN = frozenset({10, 12, 30, 35, 255})
"""Exit states of a connection that broke or said nothing: what has arrived is gone on with."""

_KNOWN = {
    r"host key verification failed|remote host identification has changed|no .* host key is known": (
        "host_key",
        "compare its key with the host's administrator, then renew known_hosts",
    ),
    r"permission denied \(|auth failed|password file|could not read password": (
        "credential",
        "see key_file or password_file of the transfer, and the far side's list of keys",
    ),
    r"no space left|disk quota exceeded|\(28\)|\(122\)": ("full", "free space or quota there"),
    r"read-only file system|module is read only": ("read_only", "make it writable"),
    r"permission denied": ("failed", "let the account on the far side write there"),
    r"connection refused|no route to host|could not resolve|timed out|network is unreachable|unknown module|"
    r"mkdir .* no such file or directory|change_dir#?\d* .* failed|connection reset|connection closed|broken pipe": (
        "unreachable",
        "see that the far side is up, and the storage mounted there",
    ),
}


_SILENT = {11: "mkdir failed, no such file or directory"}
"""What it means where the far side's last words are lost on the way."""


class RsyncOptions(OutsideOptions):
    """How rsync is run. Secrets are named by file, and never given on a command line."""

    rsync: str = Field(default="rsync", description="The program.")
    ssh: str = Field(default="ssh", description="The program that connects.")
    key_file: Path | None = Field(default=None, description="The private key for ssh; its owner's only.")
    known_hosts: Path | None = Field(
        default=None, description="The host keys that are accepted, and no others; without it those of our account."
    )
    password_file: Path | None = Field(default=None, description="The password for a daemon; its owner's only.")
    bytes_s: int | None = Field(default=None, ge=1024, description="At most so many bytes a second, of each batch.")
    compress: bool = Field(default=False, description="Compress on the way, for slow links and text.")
    far_rsync: str | None = Field(default=None, description="The program on the far side, where it is not on its path.")
    tries: int = Field(default=4, ge=1, le=100, description="How often a connection that broke is made again.")


class RsyncTransfer(OutsideTransfer):
    """Sends batches by rsync; a connection that breaks is made again, and goes on in the middle of a file."""

    options: ClassVar[type[Options]] = RsyncOptions
    summary: ClassVar[str] = "Sends by rsync 3.2 or newer, over ssh or to a daemon."

    def __init__(self, options: RsyncOptions) -> None:
        super().__init__(options.checksums)
        self._options = options
        self._lock = threading.Lock()
        self._is_checked = False
        self._connections = Connections()

    def move(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop) -> Refused:
        """Run rsync until it has moved everything, or does not come on."""
        how = _MENDING if any(item.ahead for item in items) else ()
        self._send(farm, items, staging, stop, how)
        return {}

    def stage_ahead(self, item: TransferItem, staging: str, stop: Stop) -> Ahead:
        """Append what a source has got; what broke off in the middle is there, and goes on."""
        with growing(item) as (farm, size), suppress(programs.ProgramStoppedError):
            self._send(farm, [item], staging, stop, _APPENDING)
            return Ahead(size)
        return item.ahead or Ahead()

    def fetch(self, place: str, into: Path, stop: Stop) -> None:
        """Bring the files of a directory back, with what broke off before as the basis."""
        # Without --files-from: the daemon of rsync 3.5.0 finds nothing that it is asked for by it.
        self._run(place, lambda far: ["--ignore-times", "--dirs", far, f"{into}/"], b"", stop)

    def remove(self, place: str) -> None:
        """Remove a directory: what stands beside it is left out, and what is in it is not here."""
        above, _, name = place.rstrip("/").rpartition("/")
        told = ["--recursive", "--delete", "--force", f"--include=/{unquote(name)}/***", "--exclude=*"]
        with tempfile.TemporaryDirectory(prefix="beamkeeper-empty-") as empty:
            self._run(above, lambda far: [*told, f"{empty}/", far], b"", lambda _=0: False)

    def _send(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop, how: Sequence[str]) -> None:
        names = b"".join(item.target + b"\0" for item in items)
        self._run(staging, lambda far: [*how, "--files-from=-", farm + "/", far], names, stop)

    def _run(self, place: str, words: Callable[[str], Sequence[str]], given: bytes, stop: Stop) -> None:
        """Run rsync with the words that are told of the far side's address."""
        url = programs.parts_of(place)
        self._check()
        for attempt in range(1, self._options.tries + 1):
            try:
                return self._try(url, words(_destination(url)), given, stop)
            except _BrokenError as error:
                if attempt == self._options.tries:
                    raise DestinationError(str(error), code="unreachable") from None
            if stop():
                raise programs.ProgramStoppedError
            time.sleep(AGAIN_S)
        return None

    def _try(self, url: SplitResult, words: Sequence[str], given: bytes, stop: Stop) -> None:
        # A command line is read by everybody: what ssh is to do goes into a file of ours alone.
        with (
            self._connections.one(url.netloc) as shared,
            tempfile.NamedTemporaryFile("w", prefix="beamkeeper-ssh-") as config,
        ):
            config.write("\n".join([*self._ssh_lines(), *shared]) + "\n")
            config.flush()
            argv, env = [*self._argv(url, config.name), *words], programs.environment()
            ended = programs.run(argv, env=env, stop=stop, stall_s=self._options.stall_s, given=given)
            if ended.code == 0:
                return
            complaint = ended.complaint or _SILENT.get(ended.code, f"it ended with state {ended.code}")
            error = classified(complaint, _KNOWN, f"rsync to {url.hostname}")
            if ended.code in BROKEN and error.details["code"] in ("unreachable", "failed"):
                raise _BrokenError(error.message)
            raise error

    def _argv(self, url: SplitResult, ssh_config: str) -> list[str]:
        options = self._options
        argv = [options.rsync, "--copy-links", "--times", "--perms", "--chmod=F600", "--from0", "--no-motd"]
        # A partial file is the basis of the next try, by rsync's own comparison of its blocks. Never --append: it
        # takes what is there on trust, and a file that is long enough already it does not look at.
        argv += ["--partial", "--protect-args", f"--timeout={int(options.stall_s) + 5}"]
        if options.bytes_s:
            argv.append(f"--bwlimit={max(1, options.bytes_s // 1024)}")
        if options.compress:
            argv.append("--compress")
        if options.far_rsync:
            argv.append(f"--rsync-path={options.far_rsync}")
        if url.scheme == "rsync+ssh":
            argv += ["--rsh", f"{options.ssh} -F {ssh_config} -p {url.port or SSH_PORT}"]
        elif options.password_file:
            argv.append(f"--password-file={options.password_file}")
        if url.scheme == "rsync":
            argv.append(f"--contimeout={CONNECT_S}")
        return argv

    def _check(self) -> None:
        """See once that rsync is here, and new enough."""
        with self._lock:
            if self._is_checked:
                return
            program = programs.require(self._options.rsync, "the package rsync")
            said = programs.run([program, "--version"], env=programs.environment(), stall_s=CONNECT_S).output
            if programs.version_of(said) < OLDEST:
                first = said.splitlines()[0] if said else "nothing"
                raise DestinationError(f"rsync 3.2 or newer is needed here, and {program} says {first}", code="failed")
            self._is_checked = True

    def _ssh_lines(self) -> list[str]:
        lines = [
            *("BatchMode yes", "StrictHostKeyChecking yes", "UpdateHostKeys no", "LogLevel ERROR"),
            *("ForwardAgent no", "ForwardX11 no", "ClearAllForwardings yes", "PermitLocalCommand no"),
            *(f"ConnectTimeout {CONNECT_S}", "ServerAliveInterval 5", "ServerAliveCountMax 3"),
        ]
        if self._options.known_hosts:
            lines += [f'UserKnownHostsFile "{self._options.known_hosts}"', "GlobalKnownHostsFile /dev/null"]
        if self._options.key_file:
            lines += [f'IdentityFile "{self._options.key_file}"', "IdentitiesOnly yes"]
        return lines


class _BrokenError(Exception):
    """A connection broke, or said nothing: what has arrived is gone on with."""


def _destination(url: SplitResult) -> str:
    path = unquote(url.path)
    if url.scheme not in ("rsync", "rsync+ssh") or not url.hostname or path.strip("/") == "" or "\0" in path:
        raise InvalidError(f'"{url.geturl()}" is no address for rsync: use rsync+ssh://USER@HOST/PATH')
    user = f"{unquote(url.username)}@" if url.username else ""
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    path = os.path.normpath("/" + path.lstrip("/")) + "/"
    if url.scheme == "rsync":
        return f"rsync://{user}{host}:{url.port or 873}{path}"
    return f"{user}{host}:{path}"
