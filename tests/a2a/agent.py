"""An A2A agent, made with the official SDK (PyPI a2a-sdk): `agent.py BINDING STREAMING [PORT]`.

Prints one line of JSON when it listens, and one for each task that is cancelled. Which skill is asked for stands in the
request's metadata.
"""

import asyncio
import json
import socket
import sys

import uvicorn
from a2a.helpers import new_data_part, new_text_part, get_data_parts
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as a2a
from starlette.applications import Starlette

SKILLS = ["shout", "count", "ask", "fail", "reject", "slow", "files", "greet", "big"]


def told(**what):
    print(json.dumps(what), flush=True)


class Executor(AgentExecutor):
    async def execute(self, context, event_queue):
        skill = context.metadata.get("elo.capability", "")
        message = context.message
        if skill == "greet":
            # An answer without a task.
            reply = a2a.Message(message_id="r", role=a2a.ROLE_AGENT, parts=[new_text_part("hello")])
            await event_queue.enqueue_event(reply)
            return
        task = a2a.Task(id=context.task_id, context_id=context.context_id)
        task.status.state = a2a.TASK_STATE_SUBMITTED
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        told(began=skill)
        said = lambda text: updater.new_agent_message([new_text_part(text)])
        if skill == "shout":
            text = message.parts[0].text
            await updater.add_artifact([new_text_part(text.upper())], last_chunk=True)
            await updater.complete()
        elif skill == "count":
            n = int(get_data_parts(message.parts)[0]["n"])
            for i in range(n):
                await updater.add_artifact(
                    [new_text_part(f"{i} ")], artifact_id="numbers", append=i > 0, last_chunk=i == n - 1
                )
                await asyncio.sleep(0.02)
            await updater.complete()
        elif skill == "ask":
            await updater.requires_input(said("which colour?"))
        elif skill == "fail":
            await updater.failed(said("out of paint"))
        elif skill == "reject":
            await updater.reject(said("not my kind of work"))
        elif skill == "slow":
            await asyncio.sleep(60)
        elif skill == "files":
            await updater.add_artifact([new_data_part({"kinds": [p.WhichOneof("content") for p in message.parts]})], last_chunk=True)
            await updater.add_artifact([a2a.Part(raw=b"\x01\x02", filename="two.bin")], last_chunk=True)
            await updater.complete()
        elif skill == "big":
            await updater.add_artifact([new_text_part("x" * 3_000_000)], last_chunk=True)
            await updater.complete()

    async def cancel(self, context, event_queue):
        told(cancelled=context.task_id)
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def main():
    binding, streaming = sys.argv[1], sys.argv[2] == "streaming"
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    card = a2a.AgentCard(
        name="Painter",
        description="an agent of the tests",
        version="1",
        capabilities=a2a.AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        supported_interfaces=[
            a2a.AgentInterface(url=base + "/a2a", protocol_binding=binding, protocol_version="1.0")
        ],
        skills=[a2a.AgentSkill(id=s, name=s, description=f"it can {s}", tags=["test"]) for s in SKILLS],
    )
    handler = DefaultRequestHandler(agent_executor=Executor(), task_store=InMemoryTaskStore(), agent_card=card)
    routes = create_agent_card_routes(card)
    if binding == "JSONRPC":
        routes += create_jsonrpc_routes(handler, rpc_url="/a2a")
    else:
        routes += create_rest_routes(handler, path_prefix="/a2a")
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error"))

    async def serve():
        ready = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        told(url=base)
        await ready

    asyncio.run(serve())


main()
