"""A real OpenID Connect provider that a test starts, stops and throws away, and a browser for its pages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2

from beamkeeper.testing.servers import ServerNotAvailableError, free_ports

PACKAGE = "oidc-provider@9.13.3"
CLIENT_ID, CLIENT_SECRET = "beamkeeper", "secret of the client/+&"
CALLBACK = "http://127.0.0.1:9/callback"
"""Where it sends browsers back to; nothing is there, and the browser below stops before it."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
MOST_PAGES = 20

_PROGRAM = """
import Provider from 'oidc-provider';
const [issuer, port, client_id, client_secret, ...callbacks] = process.argv.slice(2);
const claims = (id) => ({ sub: id, preferred_username: id.split('-')[0], name: `${id.split('-')[0]} herself`,
  email: `${id.split('-')[0]}@example.org`, email_verified: true });
const provider = new Provider(issuer, {
  clients: [{ client_id, client_secret, redirect_uris: callbacks, response_types: ['code'],
    grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'] }],
  claims: { openid: ['sub'], profile: ['preferred_username', 'name'], email: ['email', 'email_verified'] },
  features: { deviceFlow: { enabled: true } },
  pkce: { required: () => true },
  cookies: { keys: ['for tests only'] },
  findAccount: (_, id) => ({ accountId: id, claims: () => claims(id) }),
});
provider.listen(Number(port), '127.0.0.1');
"""


@dataclass
class OidcServer:
    """A provider on loopback, where everybody is who they say they are, by any password."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """How it names itself."""
        return f"http://127.0.0.1:{self.port}"

    @staticmethod
    def subject(name: str) -> str:
        """Return what it calls somebody."""
        return f"{name}-of-the-facility"

    def options(self, **others: object) -> dict[str, object]:
        """Return the options of the plugin for this provider, as settings have them."""
        secret = self.directory / "client.secret"
        secret.touch(mode=0o600)
        secret.write_text(CLIENT_SECRET)
        return {
            "issuer": self.issuer,
            "client_id": CLIENT_ID,
            "client_secret_file": str(secret),
            "redirect_uris": [CALLBACK],
            "device_interval_s": 0.05,
            **others,
        }

    def start(self, *callbacks: str) -> None:
        """Start it, and wait until it answers; it sends browsers back to any of these as well."""
        words = [self.issuer, str(self.port), CLIENT_ID, CLIENT_SECRET, CALLBACK, *callbacks]
        with (self.directory / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [*_dies_with_us(), "node", str(self.directory / "provider.mjs"), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise ServerNotAvailableError(f"the provider did not start: {(self.directory / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it; who was logged in there is forgotten."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def oidc_provider() -> Iterator[OidcServer]:
    """Install a provider from npm in a directory of its own, and run it while the block lasts."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise ServerNotAvailableError("no Node.js here: apt-get install nodejs npm (20 or newer)")
    directory = Path(tempfile.mkdtemp(prefix="beamkeeper-oidc-"))
    server = OidcServer(directory, free_ports(1)[0])
    try:
        _install(directory)
        (directory / "provider.mjs").write_text(_PROGRAM)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _install(directory: Path) -> None:
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory), PACKAGE],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    if done.returncode != 0:
        raise ServerNotAvailableError(f"npm does not install {PACKAGE}: {done.stderr[-1000:]}")


class _Form(HTMLParser):
    """The first form of a page: where it goes, and what is in its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = given.get("action") or ""
        if tag == "input" and (name := given.get("name")):
            self.fields.setdefault(name, given.get("value") or "")


def visit(url: str, *, login: str, stop_at: str = CALLBACK) -> Mapping[str, str]:
    """Go to a page as a person with a browser does, fill in every form, and say what the callback would be told.

    Empty, where it ends on a page without forms, as logins of devices do.
    """
    typed = {"login": OidcServer.subject(login), "password": "any"}
    with httpx2.Client(trust_env=False) as browser:
        answer = browser.get(url)
        for _ in range(MOST_PAGES):
            if answer.is_redirect:
                target = urljoin(str(answer.url), answer.headers["location"])
                if target.startswith(stop_at):
                    return {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
                answer = browser.get(target)
                continue
            answer.raise_for_status()
            form = _Form()
            form.feed(answer.text)
            if form.action is None:
                return {}
            filled = {name: typed.get(name, value) for name, value in form.fields.items()}
            answer = browser.post(urljoin(str(answer.url), form.action), data=filled)
    raise AssertionError(f"the pages of {url} have no end")


def _dies_with_us() -> list[str]:
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
