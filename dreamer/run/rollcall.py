"""Processes meet before they start JAX together, or learn who is missing.

JAX itself ends a process at once, without a word of who did not come, when
one of them stays away.  So process 0 first listens at the same address and
counts; the others call and wait for its answer.  The port is open until all
are there, or time is up.  Used by device.py.
"""

import contextlib
import json
import select
import socket
import time
from typing import Any, NamedTuple

from dreamer.options import ConfigError
from dreamer.trouble import PassingError

BUSY = 0.2  # seconds between two calls of one who finds nobody listening
PROMPT = 5.0  # seconds within which a caller says who it is


class Verdict(NamedTuple):
    """What is wrong, if anything, and whether a retry may succeed.

    A list in JSON, on its way from process 0 to the others.
    """

    reason: str = ""
    passing: bool = False


def roll_call(address: str, count: int, index: int, seconds: float) -> None:
    """Returns when all processes of a run have called.

    Args:
      address: host:port of process 0.
      count: processes of the run.
      index: of this one.
      seconds: to wait at most.

    Raises:
      PassingError: one line: which did not come in time.
      ConfigError: one line: which came twice, or expect another number of
        processes.
    """
    end = time.monotonic() + seconds
    if index == 0:
        verdict = _count(address, count, end)
    else:
        verdict = _call(address, count, index, end)
    if verdict.reason:
        kind = PassingError if verdict.passing else ConfigError
        raise kind(f"jax.coordinator={address}: {verdict.reason}")


def is_loopback(address: str) -> bool:
    """Whether an address says that nobody comes from another host."""
    host = _split(address)[0]
    return host in ("localhost", "::1") or host.startswith("127.")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _listen(address: str) -> socket.socket:
    """A server at a loopback address, or else at all of this host's.

    What a host calls itself is often an address that only it can reach.
    """
    host, port = _split(address)
    if is_loopback(address):
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=kind)
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(("", port))


def _count(address: str, count: int, end: float) -> Verdict:
    """Process 0: waits for the others and tells them."""
    here: dict[int, socket.socket] = {}
    callers: list[socket.socket] = []  # for the verdict, all of them
    verdict = Verdict()
    with contextlib.ExitStack() as opened:
        try:
            server = _listen(address)
        except OSError as error:
            return Verdict(f"cannot listen there ({error.strerror or error})")
        opened.enter_context(server)
        while len(here := _waiting(here)) < count - 1 and not verdict.reason:
            server.settimeout(max(0.01, end - time.monotonic()))
            try:
                caller, _ = server.accept()
                opened.enter_context(caller)
                caller.settimeout(PROMPT)
                index, expected = _receive(caller)
            except (OSError, ValueError, TypeError):
                if time.monotonic() > end:
                    missing = sorted(
                        set(range(1, count)) - _waiting(here).keys()
                    )
                    verdict = Verdict(
                        f"{count - len(missing)} of {count} processes have"
                        f" come; missing: {', '.join(map(str, missing))}",
                        passing=True,
                    )
                continue  # whoever called was none of ours
            if expected != count:
                verdict = Verdict(
                    f"process {index} expects {expected} processes, process 0"
                    f" expects {count}"
                )
            elif not 0 < index < count:
                verdict = Verdict(f"process {index} is not one of {count}")
            elif index in _waiting(here):
                verdict = Verdict(
                    f"two processes say that they are number {index}"
                )
            here[index] = caller
            callers.append(caller)
        for caller in callers:
            with contextlib.suppress(OSError):
                caller.sendall(json.dumps(verdict).encode() + b"\n")
    return verdict


def _call(address: str, count: int, index: int, end: float) -> Verdict:
    """Any other: what process 0 says."""
    while True:
        try:
            place = _split(address)
            with socket.create_connection(place, timeout=BUSY * 10) as caller:
                caller.sendall(json.dumps([index, count]).encode() + b"\n")
                # Process 0 began to count at another time than we to wait.
                caller.settimeout(max(1.0, end - time.monotonic()) * 2)
                return Verdict(*_receive(caller))
        except (OSError, ValueError, TypeError) as error:
            if time.monotonic() > end:
                reason = f"process 0 does not answer ({error})"
                return Verdict(reason, passing=True)
            time.sleep(BUSY)


def _waiting(here: dict[int, socket.socket]) -> dict[int, socket.socket]:
    """Those who called and have not gone away since, to come again perhaps.

    Those who wait say nothing; what can be read is the end.
    """
    gone = select.select(list(here.values()), [], [], 0)[0]
    return {index: call for index, call in here.items() if call not in gone}


def _receive(caller: socket.socket) -> Any:
    """One line of JSON."""
    with caller.makefile("rb") as stream:
        return json.loads(stream.readline(1000))
