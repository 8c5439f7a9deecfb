"""A network of this machine's own, on which each Ray node has an address and a cable that can be pulled.

A bridge, and for each node a network namespace with one end of a cable in it. In: a process in a namespace of its own.
Out: its address. Only root can; without it all nodes share 127.0.0.1. Used by `ray_nodes`.
"""

from __future__ import annotations

import random
import shutil
import subprocess

_RANGE = "198.18"
"""Addresses for tests of networks (RFC 2544), which nothing else on a machine should have."""


class Network:
    """A bridge that this machine is on.

    Attributes:
        address: of this machine on it.
    """

    def __init__(self) -> None:
        self._name, self._places = f"hasr{random.randrange(16**6):06x}", 0
        self._subnet = f"{_RANGE}.{random.randrange(1, 255)}"
        self.address = f"{self._subnet}.1"
        self._cables: list[str] = []
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")

    def address_of(self, place: int) -> str:
        """The address at a place of the network, counted from 1."""
        return f"{self._subnet}.{1 + place}"

    def attach(self, pid: int, place: int | None = None) -> tuple[str, str]:
        """Lay a cable to the namespace of a process.

        Args:
            pid: of the process.
            place: where a node was that comes back; None for a new place.

        Returns:
            The address at its other end, and the cable's name.
        """
        if place is None:
            place = self._places = self._places + 1
        address, cable = self.address_of(place), f"{self._name}-{place}"
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._cables.append(cable)
        _ip("link", "set", cable, "master", self._name, "up")
        inside = ("nsenter", "-t", str(pid), "-n")
        for command in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _ip(*command.split(), inside=inside)
        return address, cable

    def pull(self, cable: str) -> None:
        """Cut a node off: what it sends gets lost, and what is sent to it."""
        _ip("link", "set", cable, "down")

    def plug_in(self, cable: str) -> None:
        """Connect it again, if it is still there."""
        subprocess.run(["ip", "link", "set", cable, "up"], capture_output=True)

    def close(self) -> None:
        """Take all of it away."""
        for name in (*self._cables, self._name):  # a cable has gone with its namespace, if that is gone
            subprocess.run(["ip", "link", "del", name], capture_output=True)


def may_network() -> bool:
    """Whether this process may lay cables to namespaces."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    return subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


def _ip(*arguments: str, inside: tuple[str, ...] = ()) -> None:
    subprocess.run([*inside, "ip", *arguments], check=True, capture_output=True)
