"""A node of the Python package, driven by a test: commands come as JSON lines, news and answers go out as JSON lines.

It is started with the settings as its one argument, in JSON: {"peers": [..], "agents": [..], "key": PATH, "port": N}, all of them
optional. "key" names a file that keeps the node's identity from one run to the next.
"""

import asyncio
import json
import sys
from pathlib import Path

from elo import Node
from elo.security import EphemeralIdentity, load_identity, save_identity


def say(**what):
    print(json.dumps(what), flush=True)


def identity(key):
    one = EphemeralIdentity()
    if key is None:
        return one
    if (Path(key) / "identity.seed").exists():
        one._private_key, _ = load_identity(Path(key))
        one._public_key = one._private_key.public_key()
    else:
        save_identity(one.private_key, Path(key))
    return one


class Driven:
    def __init__(self, settings):
        self.node = Node(
            "driven",
            port=settings.get("port", 0),
            peers=settings.get("peers", []),
            identity=identity(settings.get("key")),
            tracker=settings.get("tracker", "public"),
        )
        self.received = {}
        self.dropped = 0
        self.node.on_task(self.handle)
        self.agents = settings.get("agents", [])

    async def start(self):
        await self.count_messages()
        if self.agents:
            # Before it connects, so that its hello tells.
            await self.node.register(agents=self.agents)
        await self.node.connect()
        say(event="ready", node_id=self.node.node_id, port=self.node.port, peers=self.node._tcp.peer_addresses)

    async def count_messages(self):
        """Counts what the package takes up, and what it drops."""
        taken = self.node._handle_message

        async def counted(peer, message):
            kind = message.get("type", "")
            self.received[kind] = self.received.get(kind, 0) + 1
            await taken(peer, message)
            if self.node._msg_count.get(peer, (0, 0))[0] > 100 and kind != "bye":
                self.dropped += 1

        self.node._handle_message = counted

    async def handle(self, task):
        say(event="handled", capability=task.capability, payload=task.payload, caller=task.caller)
        if task.capability == "raise":
            raise ValueError("it went wrong: ä")
        if task.capability == "nan":
            return {"x": float("nan")}
        if task.capability == "never":
            await asyncio.Event().wait()
        return {"echo": task.payload}

    async def obey(self, command):
        node, op = self.node, command["op"]
        if op == "register":
            await node.register(**command["caps"])
        elif op == "call":
            result = await node.send_task(command["target"], command["capability"], command["payload"])
            return result.to_dict()
        elif op == "calls":
            made = [node.send_task("", command["capability"], {"n": n}) for n in range(command["n"])]
            results = await asyncio.gather(*made)
            return {"statuses": [r.status for r in results]}
        elif op == "relay":
            result = await node.send_task_via_tracker(
                command["tracker"], command["target"], command["capability"], command["payload"]
            )
            return result.to_dict()
        elif op == "discover":
            return {"nodes": await node.discover_peers_network()}
        elif op == "known":
            return {"nodes": node.get_known_peers(), "connected": node._tcp.peer_addresses}
        elif op == "counts":
            return {"received": self.received, "dropped": self.dropped}
        elif op == "publish":
            await node.publish_event(command["type"], data=command["data"])
        elif op == "stop":
            await node.disconnect()
        return {}


async def main():
    driven = Driven(json.loads(sys.argv[1]))
    await driven.start()
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()

    async def answer(command):
        try:
            say(reply=command["n_command"], value=await driven.obey(command))
        except Exception as error:
            say(reply=command["n_command"], failed=repr(error))

    while line := await reader.readline():
        tasks.add(asyncio.create_task(answer(json.loads(line))))


asyncio.run(main())
