"""Two network namespaces with a wire between them that can be cut, slowed and made to lose what it carries."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum

PROGRAMS = ("ip", "tc", "nft", "ethtool")
_CLONE_NEWNET = 0x40000000
_PATH = "/usr/sbin:/sbin:" + os.environ.get("PATH", os.defpath)


class End(StrEnum):
    """The two ends of the wire."""

    STATION = "a"
    SITE = "b"


def why_not() -> str:
    """Return why this account or machine cannot have namespaces; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    return f"there is no {', '.join(missing)} here" if missing else ""


class Wire:
    """A wire between a station and a site, each in a network namespace of its own.

    The site may open no connection to the station: its firewall lets in only what the station asked for.
    """

    def __init__(self) -> None:
        name, net = f"bk{secrets.token_hex(3)}", secrets.randbelow(250)
        self._name = name
        self.addresses = {End.STATION: f"10.231.{net}.1", End.SITE: f"10.231.{net}.2"}
        for end in End:
            self._run("ip", "netns", "add", name + end)
        self._run(
            "ip",
            "link",
            "add",
            f"{name}a",
            "netns",
            f"{name}a",
            "type",
            "veth",
            "peer",
            f"{name}b",
            "netns",
            f"{name}b",
        )
        for end in End:
            self.inside(end, "ip", "addr", "add", f"{self.addresses[end]}/24", "dev", name + end)
            self.inside(end, "ip", "link", "set", "lo", "up")
            self.inside(end, "ip", "link", "set", name + end, "up")
            # Else the kernel carries 64 kB as one packet, and nothing is ever lost in between.
            self.inside(end, "ethtool", "-K", name + end, "tso", "off", "gso", "off", "gro", "off")
        self._rules(
            End.STATION,
            "ct state established,related accept; iifname lo accept; ip protocol icmp accept; "
            "tcp flags syn counter reject with tcp reset; drop",
        )

    def command(self, end: End) -> Sequence[str]:
        """Return what runs a command at an end, to stand before it."""
        return ("ip", "netns", "exec", self._name + end)

    def inside(self, end: End, *words: str) -> str:
        """Run a command at an end, and return what it printed."""
        return self._run(*self.command(end), *words)

    @contextmanager
    def at(self, end: End) -> Iterator[None]:
        """Let this thread open its connections at an end while the block lasts."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{self._name}{end}") as there:
            _enter(libc, there.fileno())
            try:
                yield
            finally:
                _enter(libc, here.fileno())

    def cut(self) -> None:
        """Carry nothing, and say nothing."""
        self.inside(End.SITE, "ip", "link", "set", f"{self._name}b", "down")

    def mend(self) -> None:
        """Carry everything, at once."""
        self.inside(End.SITE, "ip", "link", "set", f"{self._name}b", "up")
        for end in End:
            with suppress(subprocess.CalledProcessError):
                self.inside(end, "tc", "qdisc", "del", "dev", self._name + end, "root")
        self.inside(End.SITE, "nft", "flush", "ruleset")

    def worsen(self, *, loss_percent: int, rate: str) -> None:
        """Lose so many of a hundred packets at random on the way to the site, and carry no more than `rate`."""
        self._rules(End.SITE, f"numgen random mod 100 < {loss_percent} counter drop")
        for end in End:
            qdisc = ("tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
            self.inside(end, "tc", "qdisc", "replace", "dev", self._name + end, "root", *qdisc)

    def lost(self) -> int:
        """Return how many packets were lost on purpose."""
        words = self.inside(End.SITE, "nft", "list", "ruleset").split()
        return int(words[words.index("packets") + 1]) if "packets" in words else 0

    def _rules(self, end: End, rules: str) -> None:
        lines = "\n".join(rule.strip() for rule in rules.split(";"))
        table = f"flush ruleset\ntable inet f {{\nchain i {{\ntype filter hook input priority 0;\n{lines}\n}}\n}}\n"
        subprocess.run([*self.command(end), "nft", "-f", "-"], input=table, check=True, text=True, env={"PATH": _PATH})

    @staticmethod
    def _run(*words: str) -> str:
        done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})
        return done.stdout

    def close(self) -> None:
        """Remove the namespaces."""
        for end in End:
            with suppress(subprocess.CalledProcessError):
                self._run("ip", "netns", "del", self._name + end)


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def wire() -> Iterator[Wire]:
    """Give a wire while the block lasts."""
    made = Wire()
    try:
        yield made
    finally:
        made.close()
