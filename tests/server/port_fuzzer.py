"""Sends hostile messages to a server's port: `python -m tests.server.port_fuzzer HOST:PORT MESSAGES SEED`.

A fifth of the messages come before `register`, or in its place. Prints how many messages were sent, and over how many
connections.
"""

import contextlib
import json
import random
import socket
import struct
import sys

from tests.server.hostile import GREETING, REGISTER, Hostile

__all__ = ["fuzz"]

TIMEOUT_S = 60.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset
_REGISTERED_LENGTH = 20  # messages of one connection, most of which ends with the first one that breaks a rule


def talk(address: tuple[str, int], frames: list[bytes], *, rude: bool) -> None:
    """Send frames, and hear what the server has to say until it ends the connection; or go without waiting for it."""
    # what the server ends early is cut for us as well
    with socket.create_connection(address, TIMEOUT_S) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(GREETING + b"".join(frames))
        if rude:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass


def fuzz(address: tuple[str, int], messages: int, seed: int) -> dict[str, int]:
    """Send so many messages; return what was done."""
    choice = random.Random(seed)
    hostile = Hostile(choice)
    sent = {"before": 0, "after": 0, "connections": 0}
    while sent["before"] + sent["after"] < messages:
        if sent["before"] * 4 < sent["after"]:
            frames = hostile.before_register()
            sent["before"] += len(frames)
        else:
            frames = hostile.conversation(_REGISTERED_LENGTH)
            sent["after"] += len(frames)
            frames.insert(0, REGISTER)
        talk(address, frames, rude=choice.random() < 0.1)
        sent["connections"] += 1
    return sent


def main() -> None:
    """Fuzz as the command line says."""
    host, port = sys.argv[1].split(":")
    print(json.dumps(fuzz((host, int(port)), int(sys.argv[2]), int(sys.argv[3]))))


if __name__ == "__main__":
    main()
