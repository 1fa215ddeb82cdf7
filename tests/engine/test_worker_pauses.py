"""How long a loop waits: less often where nothing comes, and at once where something does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from beamkeeper.engine.worker import Loop


class Told(threading.Event):
    """Notes how long it is waited for, and answers what was laid down: whether news came in that time."""

    def __init__(self, answers: list[bool], loop: Loop) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._answers: Iterator[bool] = iter(answers)
        self._loop = loop

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(round(timeout or 0.0, 3))
        answer = next(self._answers, None)
        if answer is None:
            self._loop.stop()
        return bool(answer)


class Idle(Loop):
    """Finds nothing."""

    def step(self) -> bool:
        return False


class Calm(Idle):
    """Is told of what it waits for."""

    quiet_s = 3.0


@pytest.mark.parametrize(
    ("kind", "pauses"),
    [(Idle, [1.0] * 7), (Calm, [1.0, 1.5, 2.25, 3.0, 3.0, 1.0, 1.5])],
)
def test_pauses_grow_until_news_comes(kind: type[Loop], pauses: list[float]) -> None:
    loop = kind("loop", report=lambda _: None, idle_s=1.0)
    loop._woken = told = Told([False, False, False, False, True, False], loop)
    loop.run()
    assert told.pauses == pauses


class Foreseeing(Idle):
    """Knows after each step when the next is due."""

    def step(self) -> bool:
        self._idle_s /= 2
        return False


def test_a_step_may_say_how_long_to_wait_after_it() -> None:
    loop = Foreseeing("loop", report=lambda _: None, idle_s=1.0)
    loop._woken = told = Told([False, True, False], loop)
    loop.run()
    assert told.pauses == [0.5, 0.25, 0.125, 0.062]
