"""Transfer by GridFTP: `gsiftp://HOST/PATH` with a credential, `ftp://HOST/PATH` without; by globus-url-copy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, unquote

from pydantic import Field

from beamkeeper.builtin.outside import OutsideOptions, OutsideTransfer, Refused, classified
from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.plugins import programs
from beamkeeper.plugins.api import Options, Stop, TransferItem

PACKAGE = "the package globus-gass-copy-progs"
LARGE = 64 * 1024 * 1024
"""From so many bytes on a file gets parallel streams, which cost a small one more than they give."""

_KNOWN = {
    r"credential.*expired|certificate has expired|proxy.*expired|remaining lifetime": (
        "credential",
        "get a new proxy, such as by grid-proxy-init or myproxy-logon",
    ),
    r"can't get the local trusted ca|cannot verify|certificate verify failed|untrusted|unable to get local issuer|"
    r"could not verify credential|trusted certificates directory|self.signed certificate|signing.?policy|"
    r"unexpected gatekeeper|expected name for the remote": (
        "certificate",
        "see that it is the right host, and ca_dir of the transfer: the CAs that it trusts",
    ),
    r"mapping|login incorrect|530|no valid credential|could not find.*credential|credential|"
    r"permission.{0,3}denied for|authentication": (
        "credential",
        "see proxy_file of the transfer, and the gridmap of the far side",
    ),
    r"no space left|disk quota exceeded|quota|errno: 28|errno: 122": ("full", "free space or quota there"),
    r"read-only file system|errno: 30": ("read_only", "make it writable"),
    r"permission denied": ("failed", "let the account that the credential stands for write there"),
    r"connection refused|no route to host|unable to connect|name or service|timed out|network is unreachable|"
    r"connection reset|end-of-file|eof|path_not_found|no such file": (
        "unreachable",
        "see that the far side is up, and the storage mounted there",
    ),
}


class GridFTPOptions(OutsideOptions):
    """How globus-url-copy is run. Credentials are named by file."""

    program: str = Field(default="globus-url-copy", description="The program.")
    proxy_file: Path | None = Field(default=None, description="The short-lived credential; its owner's only.")
    cert_file: Path | None = Field(default=None, description="A certificate to use where there is no proxy.")
    key_file: Path | None = Field(default=None, description="Its private key; its owner's only.")
    ca_dir: Path | None = Field(default=None, description="The certificates of CAs that are trusted, and no others.")
    concurrent: int = Field(default=4, ge=1, le=64, description="How many files move at once.")
    pipelining: bool = Field(default=True, description="Ask for the next file before the one before has ended.")
    streams: int = Field(default=4, ge=1, le=64, description="Parallel streams of each large file.")
    private: bool = Field(default=False, description="Encrypt the bytes on the way.")
    tries: int = Field(default=4, ge=1, le=100, description="How often a file that broke off is gone on with.")


class GridFTPTransfer(OutsideTransfer):
    """Sends batches by globus-url-copy, which goes on by itself in the middle of a file that broke off."""

    options: ClassVar[type[Options]] = GridFTPOptions
    summary: ClassVar[str] = "Sends by GridFTP: several files and streams at once, with a grid credential or none."

    def __init__(self, options: GridFTPOptions) -> None:
        super().__init__(options.checksums)
        self._options = options

    def move(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop) -> Refused:
        """Run globus-url-copy, with the files of a batch in a list."""
        url = programs.parts_of(staging)
        base = _base(url)
        program = programs.require(self._options.program, PACKAGE)
        self._see_parent(program, url, base, stop)
        with tempfile.NamedTemporaryFile("w", prefix="beamkeeper-gridftp-", encoding="ascii") as pairs:
            for item in items:
                name = _quoted(item.target)
                pairs.write(f"file://{farm}/{name} {base}/{name}\n")
            pairs.flush()
            argv = [program, "-create-dest", *self._flags(items), "-f", pairs.name]
            self._run(argv, url, stop)
        return {}

    def _flags(self, items: Sequence[TransferItem]) -> list[str]:
        options = self._options
        flags = ["-concurrency", str(options.concurrent), "-restart", "-rst-interval", "1"]
        flags += ["-rst-retries", str(options.tries), "-stall-timeout", str(int(options.stall_s))]
        if options.pipelining:
            flags.append("-pipeline")
        if max(item.identity.size for item in items) >= LARGE:
            flags += ["-fast", "-parallel", str(options.streams)]
        if options.private:
            flags.append("-dcpriv")
        return flags

    def _see_parent(self, program: str, url: SplitResult, base: str, stop: Stop) -> None:
        """See that the directory of stagings is there: the program would make it in the place of a missing mount."""
        parent = base.rpartition("/")[0]
        try:
            self._run([program, "-list", parent + "/"], url, stop)
        except DestinationError as error:
            if "no such file" in error.message.lower() or "path_not_found" in error.message.lower():
                why = f"GridFTP to {url.hostname}: {parent} is not there; see that the storage is mounted"
                raise DestinationError(why, code="unreachable") from error
            raise

    def _run(self, argv: Sequence[str], url: SplitResult, stop: Stop) -> None:
        ended = programs.run(argv, env=self._environment(), stop=stop, stall_s=self._options.stall_s + 5)
        if ended.code != 0:
            raise classified(ended.complaint or ended.output, _KNOWN, f"GridFTP to {url.hostname}")

    def _environment(self) -> dict[str, str]:
        options = self._options
        given = {
            "X509_USER_PROXY": options.proxy_file,
            "X509_USER_CERT": options.cert_file,
            "X509_USER_KEY": options.key_file,
            "X509_CERT_DIR": options.ca_dir,
        }
        return programs.environment(**{name: str(value) for name, value in given.items() if value})


def _base(url: SplitResult) -> str:
    path = unquote(url.path)
    if url.scheme not in ("gsiftp", "ftp") or not url.hostname or path.strip("/") == "" or "\0" in path:
        raise InvalidError(f'"{url.geturl()}" is no address for GridFTP: use gsiftp://HOST/PATH')
    return f"{url.scheme}://{url.netloc}{_quoted(os.path.normpath('/' + path.lstrip('/')).encode())}"


def _quoted(path: bytes) -> str:
    """Return a path for a URL: what could end a word of the list, or is not ASCII, is percent-encoded."""
    plain = frozenset(b"/-._~+=@,:0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in path)
