"""What a service shows to those who call it over TLS."""

from __future__ import annotations

import os
import ssl
import stat

from beamkeeper.domain.errors import SettingsError


def server_context(certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Return the TLS side of a service; refuse a key that others can read, and files that do not fit."""
    try:
        if stat.S_IMODE(os.stat(key_file).st_mode) & 0o007:
            raise SettingsError(f"{key_file} can be read by everybody: make it private with `chmod o= {key_file}`")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate_file, key_file, password=_no_passphrase)
    except ssl.SSLError as error:
        raise SettingsError(
            f"{certificate_file} and {key_file} are no certificate with its key ({error.reason or error}): "
            "both are PEM files, and the key has no passphrase"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot read {error.filename or certificate_file} ({error.strerror}): TLS needs it"
        ) from error
    return context


def _no_passphrase() -> str:
    """Without this, OpenSSL would ask on the terminal."""
    return ""
