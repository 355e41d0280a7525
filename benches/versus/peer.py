"""A node of the Python package, measured by `versus`. Its one argument is JSON: {"agents": [..], "peers": [..]}.

It prints `ready ADDRESS`, and then obeys lines {"in_flight": N, "seconds": S, "payload": {..}}: that many calls of "echo" at a
time, each followed by the next; then `measured {"ns": [latencies], "all": N}`. It ends with its input.
"""

import asyncio
import json
import logging
import socket
import sys
import time

from elo import Node
from elo.security import EphemeralIdentity

WARM = 0.2


class Unlimited(dict):
    """The package counts a peer's messages here and drops those past 100 in a minute: nothing is counted."""

    def __setitem__(self, peer, count):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(word, what):
    print(word, what, flush=True)


async def echo(task):
    return task.payload


async def measure(node, command):
    start = time.perf_counter_ns()
    begin = start + int(command["seconds"] * WARM * 1e9)
    end = begin + int(command["seconds"] * 1e9)
    taken, total = [], 0

    async def calls():
        nonlocal total
        while (begun := time.perf_counter_ns()) < end:
            result = await node.send_task("", "echo", command["payload"])
            done = time.perf_counter_ns()
            if result.status != "success":
                raise RuntimeError(f"answered {result.to_dict()}")
            total += 1
            if begin <= done < end:
                taken.append(done - begun)

    await asyncio.gather(*(calls() for _ in range(command["in_flight"])))
    return {"ns": taken, "all": total}


async def main():
    logging.disable(logging.CRITICAL)
    settings = json.loads(sys.argv[1])
    port = free_port()
    node = Node("versus", port=port, peers=settings.get("peers", []), identity=EphemeralIdentity())
    node._msg_count = Unlimited()
    node.on_task(echo)
    if "agents" in settings:
        await node.register(agents=settings["agents"])
    await node.connect()
    # A peer's capabilities come with its hello.
    while settings.get("peers") and not node._routing.find_peer_for("echo"):
        await asyncio.sleep(0.01)
    say("ready", f"127.0.0.1:{port}")
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            said = await measure(node, json.loads(line))
        except Exception as error:
            said = {"error": repr(error)}
        say("measured", json.dumps(said))


asyncio.run(main())
