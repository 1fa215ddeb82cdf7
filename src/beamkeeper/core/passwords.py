"""Hashing and checking of passwords: slow by intent, so always called with no transaction open."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

_HASHER = PasswordHasher()  # argon2id with the second recommended option of RFC 9106

_NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0c2FsdA$3Nc6WYCOZEQ1ZCNDvgVbZtODhEhVMGVDp9gQx3FJqQE"
"""A hash that no password is known for: checked where there is no other, so that both take as long."""


def hash_password(password: SecretStr) -> str:
    """Return the hash to keep of a password."""
    return _HASHER.hash(password.get_secret_value())


def is_right(password: SecretStr, password_hash: str | None) -> bool:
    """Whether this is the password; where there is no hash, takes as long and says no."""
    try:
        return _HASHER.verify(password_hash or _NOBODYS, password.get_secret_value()) and password_hash is not None
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
