"""Transfer by rsync, over ssh (`rsync+ssh://USER@HOST/PATH`) or to a daemon (`rsync://USER@HOST/MODULE/PATH`)."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field

from beamkeeper.builtin.outside import OutsideOptions, OutsideTransfer, Refused, classified
from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.plugins import programs
from beamkeeper.plugins.api import Options, Stop, TransferItem

OLDEST = (3, 2)
CONNECT_S = 15
SSH_PORT = 22
AGAIN_S = 0.5
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

    def move(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop) -> Refused:
        """Run rsync until it has moved everything, or does not come on."""
        url = urlsplit(staging)
        self._check()
        # A command line is read by everybody: what ssh is to do goes into a file of ours alone.
        with tempfile.NamedTemporaryFile("w", prefix="beamkeeper-ssh-") as config:
            config.write(self._ssh_lines())
            config.flush()
            argv = [*self._argv(url, config.name), "--files-from=-", farm + "/", _destination(url)]
            self._move(argv, b"".join(item.target + b"\0" for item in items), url, stop)
        return {}

    def _move(self, argv: Sequence[str], names: bytes, url: SplitResult, stop: Stop) -> None:
        stall_s, tries = self._options.stall_s, self._options.tries
        for attempt in range(1, tries + 1):
            ended = programs.run(argv, env=programs.environment(), stop=stop, stall_s=stall_s, given=names)
            if ended.code == 0:
                return
            complaint = ended.complaint or _SILENT.get(ended.code, f"it ended with state {ended.code}")
            error = classified(complaint, _KNOWN, f"rsync to {url.hostname}")
            is_broken = ended.code in BROKEN and error.details["code"] in ("unreachable", "failed")
            if not is_broken:
                raise error
            if attempt == tries:
                raise DestinationError(error.message, code="unreachable")
            if stop():
                raise programs.ProgramStoppedError
            time.sleep(AGAIN_S)

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

    def _ssh_lines(self) -> str:
        lines = [
            *("BatchMode yes", "StrictHostKeyChecking yes", "UpdateHostKeys no", "LogLevel ERROR"),
            *("ForwardAgent no", "ForwardX11 no", "ClearAllForwardings yes", "PermitLocalCommand no"),
            *(f"ConnectTimeout {CONNECT_S}", "ServerAliveInterval 5", "ServerAliveCountMax 3"),
        ]
        if self._options.known_hosts:
            lines += [f'UserKnownHostsFile "{self._options.known_hosts}"', "GlobalKnownHostsFile /dev/null"]
        if self._options.key_file:
            lines += [f'IdentityFile "{self._options.key_file}"', "IdentitiesOnly yes"]
        return "\n".join(lines) + "\n"


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
