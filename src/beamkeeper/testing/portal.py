"""A running beamline with its portal, and browsers that look at it, for tests and for the pictures of the docs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from playwright.sync_api import Browser, ConsoleMessage, FloatRect, Page, sync_playwright
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import REGISTER_LIMIT, File, FileQuery
from beamkeeper.domain.status import PORTAL, Service
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.testing.oidc import CLIENT_ID, CLIENT_SECRET
from beamkeeper.testing.servers import ServerNotAvailableError, free_ports
from beamkeeper.testing.station import Station, station, until

PASSWORD = "a long password"
CANARY = '<img src=x onerror="document.title=1"><script>document.title=2</script>{{ 7*7 }}'
"""What would change the page's title, if it were markup anywhere."""

CHROMIUM = "/usr/bin/chromium"
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
SERIOUS = ("serious", "critical")
UNSEEN = (
    "UNSEEN",
    "one => one.id === 'color-contrast' && one.nodes.some("
    "node => node.any.some(check => check.data && check.data.messageKey === 'equalRatio'))",
)
"""Text in the colour of its ground: axe is not sure of that, and leaves it to us."""

AXE = Path(__file__).parents[3] / "assets" / "node_modules" / "axe-core" / "axe.min.js"


@dataclass
class Site:
    """A beamline whose portal is looked at."""

    station: Station
    client: Client
    people: set[str] = field(default_factory=set)
    provider_port: int = 0
    """Where the identity provider "facility" of its settings would be; a test that needs it starts it."""

    @property
    def url(self) -> str:
        """The address of the portal."""
        return f"http://127.0.0.1:{self.station.port(PORTAL)}"

    def person(self, name: str, *, role: Role | None = None, experiment: Experiment | None = None) -> str:
        """Make an account with a role, of an experiment or of the station; returns its name."""
        if name not in self.people:
            self.people.add(name)
            self.client.users.create(NewUser(username=name, password=SecretStr(PASSWORD), full_name=name.capitalize()))
        if experiment is not None:
            self.client.experiments.add_user(experiment.uid, name, role or Role.USER)
        elif role is not None:
            uid = None if role is Role.ADMINISTRATOR else self.client.stations.get("TEST").uid
            self.client.users.grant(NewGrant(username=name, role=role, station_uid=uid))
        return name

    def experiment(self, name: str, **given: Any) -> Experiment:
        """Make an experiment."""
        return self.client.experiments.create(NewExperiment(name=name, station="TEST", **given))

    def upload(self, experiment: Experiment, source: Path) -> None:
        """Store what is in a directory of the detector."""
        new = NewUpload(experiment_uid=experiment.uid, path=str(source).lstrip("/"))
        done = self.client.uploads.wait(self.client.uploads.start(new).uid, timeout_s=60)
        assert done.state is State.DONE, done.message

    def files(self, experiment: Experiment) -> Iterator[File]:
        """Yield the files of an experiment alone: the beamline has those of other tests too."""
        return self.client.files.find(FileQuery(experiment_uid=experiment.uid, limit=REGISTER_LIMIT))

    def pictures_made(self) -> None:
        """Wait until the small pictures of all that is stored are made."""
        until(lambda: not self.client.status(Service.ACQUISITION).queues.get("pictures"), "the pictures")

    def source(self, name: str) -> Path:
        """Return a directory of the detector."""
        made = self.station.directory / "detector" / name
        made.mkdir(parents=True, exist_ok=True)
        return made


@contextmanager
def site(directory: Path, settings: str = "") -> Iterator[Site]:
    """Give a beamline with its portal that runs."""
    with station(directory, settings=settings, with_portal=True) as made:
        port = _with_provider(made)
        yield Site(made, made.start(), provider_port=port)


def _with_provider(made: Station) -> int:
    """Add an identity provider to the settings, which is not there yet; returns its port."""
    port = free_ports(1)[0]
    secret = made.data / "oidc.secret"
    secret.touch(mode=0o600)
    secret.write_text(CLIENT_SECRET)
    callback = f"http://127.0.0.1:{made.port(PORTAL)}/callback"
    lines = ["[oidc.facility]", 'title = "the facility"', f'issuer = "http://127.0.0.1:{port}"']
    lines += [f'client_id = "{CLIENT_ID}"', f'client_secret_file = "{secret}"', f'redirect_uris = ["{callback}"]']
    with made.settings.open("a") as file:
        file.write("\n".join(lines) + "\n")
    return port


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser; ServerNotAvailableError where there is none."""
    if not os.path.exists(CHROMIUM):
        raise ServerNotAvailableError("there is no chromium: as root, `make system-deps` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


class Served(Protocol):
    """Something with a portal."""

    @property
    def url(self) -> str:
        """The address of the portal."""
        ...


class Look:
    """Somebody who looks at the portal with a browser; notices everything that a page must not do."""

    def __init__(self, browser: Browser, site: Served, **options: Any) -> None:
        self.context = browser.new_context(base_url=site.url, **{"viewport": DESK, **options})
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _hear(self, message: ConsoleMessage) -> None:
        # A page that is refused answers with a status, which Chromium tells as an error as well.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def log_in(self, username: str, password: str = PASSWORD) -> Page:
        """Log in by the form."""
        self.page.goto("/login")
        self.page.get_by_label("Name", exact=True).fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in", exact=True).click()
        self.page.wait_for_url(re.compile(r"/(?!login)"))
        return self.page

    def go(self, path: str) -> Page:
        """Look at a page, and find that it has the manners of all pages."""
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status < 500, f"{path}: {answer.status}"
        self.check()
        return self.page

    def check(self) -> None:
        """Find that a page is readable by everybody, fits on its screen, and ran nothing that it should not."""
        assert self.faults == [], self.faults
        page = self.page
        page.evaluate(AXE.read_text())
        found = page.evaluate(
            "axe.run().then(all => all.violations.concat(all.incomplete.filter(UNSEEN)))".replace(*UNSEEN)
        )
        worst = [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]
        assert worst == [], "\n".join(worst)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, f"{page.url} is wider than its screen"
        assert page.locator("img[src=x]").count() == 0
        assert page.title() not in ("1", "2")

    def picture(self, name: str, height: int = DESK["height"]) -> None:
        """Keep a picture of the top of the page for the docs, where they are made."""
        if directory := os.environ.get("PORTAL_PICTURES"):
            clip = FloatRect(x=0, y=0, width=DESK["width"], height=height)
            self.page.screenshot(path=Path(directory) / f"{name}.png", clip=clip)

    def close(self) -> None:
        """Close it."""
        self.context.close()
