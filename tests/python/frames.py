"""Speaks the Python package's frames by hand: what a test writes goes out, what comes is printed.

Arguments: HOST PORT. Each line of input is a message; "ME" in it stands for this program's id, and a signature "SIGN"
is made as the package makes it.
"""

import asyncio
import json
import sys

from elo.security import EphemeralIdentity
from elo.transport.protocol import read_frame, write_frame

identity = EphemeralIdentity()


def say(**what):
    print(json.dumps(what), flush=True)


async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    say(event="ready", node_id=identity.node_id)
    commands = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)

    async def listen():
        try:
            while True:
                say(frame=await read_frame(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            say(event="closed")

    listening = asyncio.create_task(listen())
    while line := await commands.readline():
        message = json.loads(line.decode().replace('"ME"', json.dumps(identity.node_id)))
        if message.get("signature") == "SIGN":
            del message["signature"]
            message["signature"] = identity.sign(message)
        await write_frame(writer, message)
    listening.cancel()


asyncio.run(main())
