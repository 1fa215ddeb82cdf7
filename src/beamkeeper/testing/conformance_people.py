"""What plugins for people must do, as tests that the author of one runs on it.

Derive a test class from the suite of its kind, and give it the fixtures that the suite asks for:

    class TestMine(AuthenticatorConformance):
        @pytest.fixture
        def authenticator(self) -> Authenticator:
            return MyAuthenticator(MyOptions())  # which knows ada by the password "correct horse"
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from beamkeeper.domain.people import Person, Proposal, ProposalKind, Refused
from beamkeeper.plugins.people import Authenticator, ProposalSource, UserDirectory

ADA, PASSWORD = "ada", "correct horse"

IMPOSSIBLE_NAMES = (
    "",
    " ",
    "*",
    "*)(uid=*",
    "admin)(&)",
    "a\0b",
    r"\00",
    "../a",
    "ADA",
    "a" * 300,
    "a\nb",
    "é",
    "ada,o=b",
)
"""Names that no username is; some of them mean everybody, or somebody else, where they are not kept out."""

IMPOSSIBLE_PASSWORDS = ("", "\0", PASSWORD + "\0", "x" * 100_000, "*", PASSWORD + " ", PASSWORD.upper())


class AuthenticatorConformance:
    """Whatever checks passwords."""

    def test_a_right_password_is_right_and_stays_so(self, authenticator: Authenticator) -> None:
        """Nothing is used up by asking."""
        assert [authenticator.is_right(ADA, SecretStr(PASSWORD)) for _ in range(3)] == [True] * 3

    @pytest.mark.parametrize("password", IMPOSSIBLE_PASSWORDS)
    def test_a_wrong_password_is_wrong(self, authenticator: Authenticator, password: str) -> None:
        """Nothing, too much, and what some server would cut or fold."""
        assert not authenticator.is_right(ADA, SecretStr(password))

    @pytest.mark.parametrize("username", IMPOSSIBLE_NAMES)
    def test_what_is_no_name_is_nobody(self, authenticator: Authenticator, username: str) -> None:
        """Whatever the password."""
        assert not authenticator.is_right(username, SecretStr(PASSWORD))
        assert not authenticator.is_right(username, SecretStr(""))

    def test_nobody_has_no_password(self, authenticator: Authenticator) -> None:
        """As little as somebody who is not known."""
        assert not authenticator.is_right(None, SecretStr(PASSWORD))
        assert not authenticator.is_right("nobody-known", SecretStr(PASSWORD))

    def test_it_is_asked_from_several_threads(self, authenticator: Authenticator) -> None:
        """Each gets its own answer."""
        asked = [(ADA, PASSWORD), (ADA, "wrong"), (None, PASSWORD)] * 4
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda one: authenticator.is_right(one[0], SecretStr(one[1])), asked))
        assert answers == [True, False, False] * 4

    def test_its_connection_is_told_of_in_words(self, authenticator: Authenticator) -> None:
        """Good and bad news alike."""
        found = list(authenticator.findings(ADA))
        assert found
        assert all(finding.is_good and finding.words for finding in found)
        assert not all(finding.is_good for finding in authenticator.findings("nobody-known"))


class UserDirectoryConformance:
    """Whatever knows people: two good entries, ada and bob, and one whose username cannot be one."""

    def test_people_are_given_and_what_is_none_is_refused_with_a_reason(self, directory: UserDirectory) -> None:
        """One that cannot be taken hinders no other."""
        found = list(directory.people())
        people = {person.username: person for person in found if isinstance(person, Person)}
        assert people[ADA].full_name == "Ada Lovelace"
        assert people[ADA].badge == "12345"
        assert people[ADA].email == "ada@example.org"
        assert people[ADA].institution == "Analytical Engines"
        assert set(people) == {ADA, "bob"}
        refused = [one for one in found if isinstance(one, Refused)]
        assert len(refused) == 1
        assert refused[0].what
        assert "username" in refused[0].why

    def test_asked_again_it_gives_the_same(self, directory: UserDirectory) -> None:
        """Each sync asks anew."""
        assert list(directory.people()) == list(directory.people())


class ProposalSourceConformance:
    """Whatever knows proposals: GUP 12345 of ada (its PI) and bob, ESAF 271828 of bob, and one without a number."""

    def test_proposals_are_given_with_their_people(self, source: ProposalSource) -> None:
        """And who is PI of which, and their dates."""
        found = list(source.proposals())
        papers = {(one.kind, one.number): one for one in found if isinstance(one, Proposal)}
        assert set(papers) == {(ProposalKind.GUP, "12345"), (ProposalKind.ESAF, "271828")}
        gup = papers[ProposalKind.GUP, "12345"]
        assert gup.title == "Coffee under pressure"
        assert gup.starts_at is not None
        assert gup.ends_at is not None
        assert gup.starts_at < gup.ends_at
        assert {(one.username or one.badge, one.is_pi) for one in gup.people} == {(ADA, True), ("bob", False)}
        assert {one.username or one.badge for one in papers[ProposalKind.ESAF, "271828"].people} == {"bob"}
        assert len([one for one in found if isinstance(one, Refused)]) == 1
