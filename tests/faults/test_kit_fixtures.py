"""The kit's fixtures, as tests of failures use them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from faults.history import FaultInjected, History
from faults.link import LinkProxy
from faults.processes import StartNode

LISTENER = """
import json, socket
listener = socket.create_server(("127.0.0.1", 0))
addr = "/ip4/127.0.0.1/tcp/%d/p2p/12D3" % listener.getsockname()[1]
print(json.dumps({"ready": True, "addrs": [addr]}), flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
"""


def test_a_node_behind_a_link_is_broken_and_all_of_it_is_in_the_history(
    start_node: StartNode, link_to: Callable[[str], LinkProxy], history: History
) -> None:
    node = start_node([sys.executable, "-S", "-c", LISTENER], "provider")
    link = link_to(node.wait_ready(5).addrs[0])
    with socket.create_connection(("127.0.0.1", link.port), timeout=5) as connection:
        assert connection.recv(5) == b"hello"
        link.slow(1)
        node.kill()
        assert connection.recv(5) == b""
    faults = [record for record in history.records if isinstance(record, FaultInjected)]
    assert [(fault.what, fault.target) for fault in faults] == [
        ("slow", "link"),
        ("kill", "provider"),
    ]
