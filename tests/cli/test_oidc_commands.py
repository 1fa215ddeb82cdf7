"""`dm login --oidc` as a process, with a person at a browser, and a real provider."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper import config
from beamkeeper.cli.app import run
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.core.identity_providers import IdentityProviders
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.plugins import load
from beamkeeper.plugins.people import IDENTITY_PROVIDERS
from beamkeeper.serve import people
from beamkeeper.testing.oidc import OidcServer, visit
from beamkeeper.testing.services import Running, running


@pytest.fixture
def site(tmp_path: Path, oidc_server: OidcServer) -> Iterator[Running]:
    """A site where the administrator is logged in, and people may log in by a provider."""
    with running(directory=tmp_path) as services:
        provider = load.build(IDENTITY_PROVIDERS, "oidc", oidc_server.options())
        services.contexts[Service.STORAGE].identity_providers = IdentityProviders({"facility": provider})
        first = services.bootstrap.operator
        token = SecretStr(first.token)
        Logins().put(DEFAULT, Profile(url=services.client.url, username=first.session.username, token=token))
        yield services


def dm(capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> str:
    status = run(words)
    out, err = capsys.readouterr()
    assert status == expect, f"{out}{err}"
    return out + err


def with_browser(*words: str, login: str) -> str:
    """Run `dm`, go where it says, and return what it printed in the end."""
    program = [sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Go to"):
                visit(line.split()[-1], login=login)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    return out


def test_one_logs_in_by_a_provider_once_one_is_linked(site: Running, capsys: pytest.CaptureFixture[str]) -> None:
    site.client.users.create(NewUser(username="lovelace"))
    words = ("user", "link", "facility", "--user", "lovelace", "--subject", OidcServer.subject("ada"))
    assert "lovelace" in dm(capsys, *words)
    assert "lovelace is logged in" in with_browser("login", "--oidc", login="ada")
    assert "lovelace" in dm(capsys, "whoami")
    assert "countess" in with_browser("user", "link", login="countess")
    mine = dm(capsys, "user", "identities", "--json")
    assert "lovelace is logged in" in with_browser("login", "--oidc", "facility", login="countess")
    uid = next(one.uid for one in site.client.identities.list("lovelace") if one.subject.startswith("countess"))
    assert str(uid) in mine
    dm(capsys, "user", "unlink", str(uid))
    assert [one.subject for one in site.client.identities.list("lovelace")] == [OidcServer.subject("ada")]
    assert "facility" in dm(capsys, "login", "--oidc", "other", expect=2)
    assert "goes alone" in dm(capsys, "login", "lovelace", "--oidc", "facility", expect=2)


def test_the_settings_name_providers_and_what_is_wrong_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "beamkeeper.toml"
    text = '[oidc.facility]\nissuer = "https://login.example.org"\nclient_id = "beamkeeper"\ntitle = "Ours"\n'
    file.write_text(text)
    assert "can be used" in dm(capsys, "config", "check", str(file))
    infos = people.identity_providers(config.load(file).settings).infos()
    assert [(info.name, info.title, info.issuer) for info in infos] == [
        ("facility", "Ours", "https://login.example.org")
    ]
    file.write_text(f'{text}algorithms = ["none"]\n')
    assert "oidc.facility.algorithms" in dm(capsys, "config", "check", str(file), expect=3)
