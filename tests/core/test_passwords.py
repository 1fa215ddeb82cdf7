"""Passwords: what fits, what does not, and that the answer takes as long for nobody."""

from __future__ import annotations

import time

import pytest
from argon2 import PasswordHasher
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from beamkeeper.core.passwords import Passwords

CHEAP = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@settings(max_examples=30)
@given(st.text(max_size=100), st.text(max_size=100))
def test_a_password_fits_its_own_hash_and_no_other(one: str, other: str) -> None:
    try:
        one.encode()
    except UnicodeEncodeError:
        return
    kept = CHEAP.hash(SecretStr(one))
    assert CHEAP.is_right(SecretStr(one), kept)
    assert CHEAP.is_right(SecretStr(other), kept) is (one == other)
    assert not CHEAP.is_right(SecretStr(one), None)


def test_a_hash_is_argon2id_at_the_recommended_cost_and_never_the_same() -> None:
    first, second = (Passwords().hash(SecretStr("correct horse")) for _ in range(2))
    assert first.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert first != second


@pytest.mark.parametrize("kept", ["", "plain", "$argon2id$v=19$broken"])
def test_a_broken_hash_fits_nothing(kept: str) -> None:
    assert not CHEAP.is_right(SecretStr("plain"), kept)


def test_checking_takes_as_long_where_there_is_no_hash() -> None:
    costly = Passwords(PasswordHasher(time_cost=8, memory_cost=8192, parallelism=1))
    kept = costly.hash(SecretStr("correct horse"))

    def fastest(hashed: str | None) -> float:
        times = []
        for _ in range(3):
            begun = time.process_time()
            assert not costly.is_right(SecretStr("wrong"), hashed)
            times.append(time.process_time() - begun)
        return min(times)

    assert 0.3 < fastest(None) / fastest(kept) < 3
