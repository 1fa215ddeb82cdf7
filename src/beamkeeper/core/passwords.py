"""Hashing and checking of passwords: slow by intent, so always called with no transaction open."""

from __future__ import annotations

import hashlib
import hmac

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

_NOBODYS = "c2FsdHNhbHRzYWx0c2FsdA$3Nc6WYCOZEQ1ZCNDvgVbZtODhEhVMGVDp9gQx3FJqQE"
"""Salt and hash that no password is known for."""


def marked(password: SecretStr, proof: str) -> str:
    """Return what shows, to who has both, that a password goes with the proof of a login.

    It is quick to make, and yet tells nothing of the password: the proof is as long as a token, and kept nowhere.
    """
    told = password.get_secret_value().encode("utf-8", "surrogatepass")
    return hmac.new(proof.encode(), told, hashlib.sha256).hexdigest()


class Passwords:
    """argon2id, by default at the second recommended cost of RFC 9106."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = used = hasher or PasswordHasher()
        # Checked where there is no other hash, at the same cost, so that both take as long.
        cost = f"m={used.memory_cost},t={used.time_cost},p={used.parallelism}"
        self._nobodys = f"$argon2id$v=19${cost}${_NOBODYS}"

    def hash(self, password: SecretStr) -> str:
        """Return the hash to keep of a password."""
        return self._hasher.hash(password.get_secret_value())

    def renewed(self, password: SecretStr, password_hash: str | None) -> str | None:
        """Return a hash at today's cost of a password that was right, where the one that is kept has another cost."""
        if password_hash is None or not self._hasher.check_needs_rehash(password_hash):
            return None
        return self.hash(password)

    def is_right(self, password: SecretStr, password_hash: str | None) -> bool:
        """Whether this is the password; where there is no hash, takes as long and says no."""
        checked = password_hash or self._nobodys
        try:
            return self._hasher.verify(checked, password.get_secret_value()) and password_hash is not None
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
