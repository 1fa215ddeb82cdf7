"""A thread that waits for other processes is woken by ours as well."""

from __future__ import annotations

import os
import threading

from beamkeeper.engine.jobs.bell import Bell


def test_a_bell_ends_a_wait_once_and_so_does_another_descriptor() -> None:
    bell = Bell()
    reading, writing = os.pipe()
    rung = threading.Timer(0.05, bell.ring)
    rung.start()
    bell.wait(3600, reading)  # else the test is ended by its time
    rung.join()
    bell.ring()
    bell.ring()
    bell.wait(3600, reading)  # it was rung before
    bell.wait(0, reading)
    os.write(writing, b"x")
    bell.wait(3600, reading)
    for descriptor in (reading, writing):
        os.close(descriptor)
    bell.close()
    bell.close()
    bell.ring()
