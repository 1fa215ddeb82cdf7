"""Certificates for a site that has no authority of its own: one is made, and issues those of its hosts.

The work is done by the program `openssl`, which every server has: a library for it would be larger than all of ours.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from beamkeeper.cli import output
from beamkeeper.domain.errors import AlreadyExistsError, InvalidError, NotFoundError, SettingsError

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
_HOST = re.compile(
    r"(?=.{1,64}\Z)(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", default="Beamkeeper site authority", show_default=True, help="What certificates call it.")
@click.option("--days", type=click.IntRange(1, 36500), default=3650, show_default=True, help="How long it holds.")
def make_ca(directory: Path, name: str, days: int) -> None:
    """Make a certificate authority: ca.pem for everybody, ca.key for nobody else."""
    if not _NAME.fullmatch(name):
        raise InvalidError(f'"{name}" is no name for an authority: use letters, digits, spaces and . _ -')
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificate, key = _new(directory / "ca.pem"), _private(directory / "ca.key")
    extensions = "basicConstraints = critical,CA:TRUE,pathlen:0\nkeyUsage = critical,keyCertSign,cRLSign\n"
    request = ("req", "-x509", *CURVE, "-sha256", "-days", str(days), "-extensions", "made")
    with _config(name, extensions) as config:
        _openssl([*request, "-config", config.name, "-keyout", str(key), "-out", str(certificate)], (certificate, key))
    output.say(f"{certificate}: give it to everybody, as tls.ca_file, BEAMKEEPER_CA or `dm login --ca`.")
    output.say(f"{key}: keep it where only you can read it, best on no server at all.")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--days", type=click.IntRange(1, 3650), default=397, show_default=True, help="How long it holds.")
def issue(directory: Path, hosts: Sequence[str], days: int) -> None:
    """Issue a certificate for a host, by all the names and addresses under which it is called."""
    names = ",".join(_alternative(host) for host in hosts)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    if not (ca.is_file() and ca_key.is_file()):
        raise NotFoundError(f"there is no authority in {directory}: make one with `dm tls make-ca {directory}`")
    stem = hosts[0].replace("*", "_").replace(":", "_")
    certificate, key = _new(directory / f"{stem}.pem"), _private(directory / f"{stem}.key")
    usage = (
        "keyUsage = critical,digitalSignature\nextendedKeyUsage = serverAuth\nbasicConstraints = critical,CA:FALSE\n"
    )
    with _config(hosts[0], f"subjectAltName = {names}\n{usage}") as config, tempfile.TemporaryDirectory() as scratch:
        request = str(Path(scratch) / "request.pem")
        made = (certificate, key)
        _openssl(["req", "-new", *CURVE, "-config", config.name, "-keyout", str(key), "-out", request], made)
        signing = ["x509", "-req", "-in", request, "-CA", str(ca), "-CAkey", str(ca_key), "-sha256"]
        serial = ["-set_serial", str(secrets.randbits(128)), "-days", str(days), "-extfile", config.name]
        _openssl([*signing, *serial, "-extensions", "made", "-out", str(certificate)], made)
    output.say(f'{certificate} and {key}: set tls.certificate_file and tls.key_file of "{hosts[0]}" to them.')


def _alternative(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is not None and "%" not in host:  # a zone may be any text, and means nothing to others
        return f"IP:{address}"
    if not _HOST.fullmatch(host):
        raise InvalidError(f'"{host}" is neither a name of a host nor an address')
    return f"DNS:{host}"


def _new(path: Path) -> Path:
    if path.exists():
        raise AlreadyExistsError(f"{path} is there already: move it away first, or choose another directory")
    return path


def _private(path: Path) -> Path:
    """Make an empty file that only its owner may read, which the key is then written into."""
    os.close(os.open(_new(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def _config(name: str, extensions: str) -> tempfile._TemporaryFileWrapper[str]:
    config = tempfile.NamedTemporaryFile("w", suffix=".cnf")  # noqa: SIM115 - the caller ends it
    config.write(f"[req]\nprompt = no\ndistinguished_name = who\n[who]\nCN = {name}\n[made]\n{extensions}")
    config.flush()
    return config


def _openssl(words: Sequence[str], made: Sequence[Path]) -> None:
    """Run it; what it was to make is removed where it fails, so that one can try again."""
    program = shutil.which("openssl")
    if program is None:
        _forget(made)
        raise SettingsError("there is no program openssl here: install the package openssl of the system")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, umask=0o077)
    if done.returncode:
        _forget(made)
        raise SettingsError(f"openssl refused ({(done.stderr.strip().splitlines() or ['without a word'])[-1]})")
    if made[0].exists():
        made[0].chmod(0o644)


def _forget(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
