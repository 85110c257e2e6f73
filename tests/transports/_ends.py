"""Both ends of links, in threads."""

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

from syftlite.transports.handshake import LinkServer, dial
from syftlite.transports.server import tls_of

TAG = b"round  1"
PATIENCE = 20.0


def until(true):
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Ends:
    """A server for links, and how to call it."""

    def __init__(self, certificate):
        self.tls = None if certificate is None else ssl.create_default_context(cafile=certificate[0])
        self.server = LinkServer("127.0.0.1", None if certificate is None else tls_of(*certificate))
        self.pool = ThreadPoolExecutor(8)
        self.made = []

    def dial(self, ticket, port):
        return self.pool.submit(dial, "127.0.0.1", port, ticket, self.tls)

    def pair(self):
        """(dialler's end, acceptor's end)"""
        ticket, port = self.server.invite()
        dialled = self.dial(ticket, port)
        ends = self.server.accept(ticket), dialled.result(PATIENCE)
        self.made += ends
        return ends[::-1]

    def both(self, one, other):
        """The results of two calls at the same time."""
        futures = [self.pool.submit(one), self.pool.submit(other)]
        return [future.result(PATIENCE) for future in futures]

    def raw(self, port):
        """A stranger's connection."""
        return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def close(self):
        self.server.close()
        for link in self.made:
            link.close("the test has ended")
        self.pool.shutdown()
