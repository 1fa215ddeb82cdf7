"""The laboratory that the trials share, and where they say what this machine refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.lab import Lab, laboratory


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made
