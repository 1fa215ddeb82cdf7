"""A message to people by mail, or to a program by HTTP."""

from __future__ import annotations

import argparse
import getpass
import json
import smtplib
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import EmailMessage

from beamkeeper.domain.errors import InvalidError, UnavailableError

TIMEOUT_S = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Tell it by each way that is given."""
    parser = argparse.ArgumentParser(prog="dm-library notify", description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--mail", default="", help="an address, or several with commas")
    parser.add_argument("--mail-server", default="localhost", help="HOST or HOST:PORT")
    parser.add_argument("--url", default="", help="an http address that gets a JSON document")
    options = parser.parse_args(argv)
    try:
        if options.mail:
            _mail(options.text, options.mail, options.mail_server)
        if options.url:
            _post(options.text, options.url)
    except (OSError, smtplib.SMTPException) as error:
        raise UnavailableError(f"the message was not taken: {error}") from error
    sys.stdout.write("told\n")
    return 0


def _mail(text: str, to: str, server: str) -> None:
    message = EmailMessage()
    message["From"] = f"{getpass.getuser()}@{socket.getfqdn()}"
    message["To"] = to
    message["Subject"] = " ".join(text.split())[:200]
    message.set_content(text)
    host, _, port = server.partition(":")
    with smtplib.SMTP(host, int(port or 25), timeout=TIMEOUT_S) as taken:
        taken.send_message(message)


def _post(text: str, url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise InvalidError(f'"{url}" is no http address')
    body = json.dumps({"text": text}).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=TIMEOUT_S):  # noqa: S310
        pass
