"""Rights on files as the kernel enforces them: people of a group, and others, on a real ext4."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.core import file_rights
from beamkeeper.core.directories import made
from beamkeeper.domain.acls import ACCESS, Acl
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.file_rights import Way, way_for
from beamkeeper.testing.accounts import Person, unprivileged

GROUP = 54321
ADA, BOB = Person(50001, groups=(GROUP,)), Person(50002, groups=(GROUP,))
EVE = Person(50003)

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other people")
RIGHTS = st.integers(0, 7)
NUMBERS = st.integers(0, 2**32 - 2)
LISTS = st.builds(
    Acl,
    RIGHTS,
    RIGHTS,
    RIGHTS,
    st.dictionaries(NUMBERS, RIGHTS, max_size=4),
    st.dictionaries(NUMBERS, RIGHTS, max_size=4),
    RIGHTS,
)


@given(LISTS)
def test_a_list_that_is_written_is_read_again(acl: Acl) -> None:
    assert Acl.decode(acl.encode()) == acl


@given(st.binary(max_size=64))
def test_what_is_no_list_is_refused_or_read(raw: bytes) -> None:
    with suppress(InvalidError):
        Acl.decode(raw)


@NEEDS_ROOT
def test_the_kernel_takes_a_list_and_gives_the_same(ext4_directory: Path) -> None:
    file = ext4_directory / "frame"
    file.touch()
    acl = Acl(6, 4, 0, users={7: 4, 3: 6}, groups={9: 6, 1: 4}, mask=6)
    os.setxattr(file, ACCESS, acl.encode())
    assert Acl.decode(os.getxattr(file, ACCESS)) == acl
    assert file.stat().st_mode & 0o777 == 0o660


def test_what_a_group_gets_is_what_the_mask_leaves() -> None:
    acl = Acl(7, 5, 0, users={1: 2}, groups={9: 7, 8: 2}, mask=5)
    assert acl.of_groups(100) == {100: 5, 9: 5}
    assert acl.of_users() == {}


@NEEDS_ROOT
def test_members_write_what_members_made_whatever_the_umask_and_others_see_nothing(ext4_directory: Path) -> None:
    with made(str(ext4_directory), "2026-1/coffee"):
        pass
    top = ext4_directory / "2026-1/coffee"
    for directory in (top, top / "data", top / "analysis", top / "system"):
        os.chown(directory, -1, GROUP)
        os.chmod(directory, 0o2770 if directory.name == "analysis" else 0o2750)
    below = top / "analysis" / "fits"
    assert ADA.may("mkdir", below)
    assert ADA.may("cp", "/dev/null", below / "fit")
    assert BOB.may_write(below / "fit")
    assert BOB.may("cp", "/dev/null", below / "other")
    assert not ADA.may("cp", "/dev/null", top / "data/mine")
    assert not ADA.may_read(top / ".dm")
    assert not ADA.may_read(top.parent), "what other experiments there are is not theirs to see"
    for place in (top, top / "analysis", below / "fit"):
        assert not EVE.may_read(place)


@NEEDS_ROOT
def test_without_capabilities_a_group_is_named_in_lists_in_place_of_owning() -> None:
    assert file_rights.may_give_any()
    assert way_for(GROUP, may_give=True, has_acls=True) is Way.OWNED
    with unprivileged():
        assert not file_rights.may_give(GROUP)
        assert file_rights.may_give(os.getegid())
    assert way_for(GROUP, may_give=False, has_acls=True) is Way.NAMED
    assert way_for(GROUP, may_give=False, has_acls=False) is Way.UNKNOWN
    assert way_for(None, may_give=True, has_acls=True) is Way.UNKNOWN


def test_a_check_says_which_rights_a_place_can_give(ext4_directory: Path) -> None:
    found = file_rights.look(str(ext4_directory), [os.getegid(), 2**31])
    assert found.has_acls
    assert found.unknown_gids == (2**31,)
    assert "knows no group 2147483648" in found.sentence
    assert not file_rights.look("/proc/self").has_acls
