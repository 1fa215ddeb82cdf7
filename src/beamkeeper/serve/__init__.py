"""The composition root: builds databases, services and loops from the settings, and runs them.

`python -m beamkeeper.serve up` keeps one process alive that runs all; `run SERVICE...` is that process.
"""
