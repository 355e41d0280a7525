"""The official Python SDK of MCP (PyPI `mcp`) drives `elo mcp`: see mcp_sdk.rs for what runs around it.

The argument is JSON: {"agent": SERVER, "caller": SERVER, "mode": MODE}, where SERVER is {"command", "args", "env"} for a
process of its own, or {"url", "token"}; MODE is how the SDK agrees on a version, `auto` or `legacy`.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

SETTINGS = json.loads(sys.argv[1])
PATIENCE = 60


@asynccontextmanager
async def connected(server):
    if "url" not in server:
        async with Client(StdioServerParameters(**server), mode=SETTINGS["mode"]) as client:
            yield client
        return
    headers = {"Authorization": f"Bearer {server['token']}"}
    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
        transport = streamable_http_client(server["url"], http_client=http)
        async with Client(transport, mode=SETTINGS["mode"]) as client:
            yield client


async def raw(client, tool, arguments=None, **more):
    return await client.call_tool(tool, arguments or {}, **more)


async def call(client, tool, arguments=None, **more):
    result = await raw(client, tool, arguments, **more)
    assert not result.is_error, (tool, result)
    told = json.loads(result.content[0].text)
    if result.structured_content is not None:
        assert result.structured_content == told, (tool, result)
    return told


async def refused(client, tool, arguments=None):
    result = await raw(client, tool, arguments)
    assert result.is_error, (tool, result)
    return result.structured_content


async def until(what, condition):
    for _ in range(PATIENCE * 10):
        if found := await condition():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"waited in vain: {what}")


async def look(agent, caller):
    tools = {tool.name: tool for tool in (await caller.list_tools()).tools}
    assert len(tools) == 12, tools
    assert tools["find_agents"].annotations.read_only_hint is True
    assert tools["cancel_call"].annotations.destructive_hint is True
    assert tools["call_agent"].input_schema["properties"]["capability"]
    await call(agent, "offer", {"capabilities": [{"name": "review", "description": "Reads code."}]})

    async def found():
        return (await call(caller, "find_agents", {"capability": "review"}))["agents"]

    agents = await until("the agent is found", found)
    assert agents[0]["name"] == "agent" and agents[0]["capabilities"][0]["name"] == "review", agents
    assert (await call(caller, "peers"))["peers"], "nobody is connected"
    status = await call(agent, "status")
    assert status["name"] == "agent" and status["offers"][0]["name"] == "review", status
    uris = {str(resource.uri) for resource in (await caller.list_resources()).resources}
    assert uris == {"elo://peers", "elo://agents", "elo://events/recent"}, uris
    read = await caller.read_resource("elo://agents/agent")
    assert json.loads(read.contents[0].text)["node_id"] == status["node_id"]


async def tasks(agent, caller):
    told = []

    async def progress(done, total, message):
        told.append(message)

    big = 2**63 + 1
    calling = asyncio.create_task(
        call(caller, "call_agent", {"capability": "review", "payload": {"n": big}}, progress_callback=progress)
    )
    task = (await call(agent, "next_task", {"wait_s": 30}))["task"]
    assert task["payload"] == {"n": big} and task["attempt"] == 1, task
    await call(agent, "progress", {"task_id": task["task_id"], "text": "reading"})

    async def heard():
        return "reading" in told

    await until("progress is told", heard)
    await call(agent, "reply", {"task_id": task["task_id"], "result": {"n": big, "verdict": "fine"}})
    answer = await calling
    assert answer["payload"] == {"n": big, "verdict": "fine"} and answer["responder_name"] == "agent", answer
    assert answer["route"] == "relay", answer
    assert (await refused(agent, "reply", {"task_id": task["task_id"], "error": "late"}))["code"] == "GONE"

    # Python writes all digits of an integer: what arrives here has lost some, and is not sent.
    code = await refused(caller, "call_agent", {"capability": "review", "payload": 10**29 + 1})
    assert code["code"] == "BAD_REQUEST" and "payload_json" in code["message"], code

    # A failed task, and a call that is left alone.
    started = await call(caller, "call_agent", {"capability": "review", "wait": False})
    task = (await call(agent, "next_task", {"wait_s": 30}))["task"]
    await call(agent, "reply", {"task_id": task["task_id"], "error": "no such branch"})
    check = await call(caller, "check_call", {"id": started["id"], "wait_s": 30})
    assert check["state"] == "failed" and check["error"]["message"] == "no such branch", check
    started = await call(caller, "call_agent", {"capability": "review", "wait": False})
    # It is at the agent: otherwise it might come while something else is waited for below.
    taken = (await call(agent, "next_task", {"wait_s": 30}))["task"]
    assert (await call(caller, "cancel_call", {"id": started["id"]}))["state"] == "failed"

    async def is_over():
        return (await raw(agent, "progress", {"task_id": taken["task_id"], "text": "at it"})).is_error

    await until("the agent is told that it is over", is_over)


async def cancelled(agent, caller):
    async def waiting():
        return (await call(agent, "status"))["agents_waiting"]

    waits = asyncio.create_task(raw(agent, "next_task", {"wait_s": 120}))
    await until("it waits", waiting)
    waits.cancel()

    async def left():
        return await waiting() == 0

    await until("it waits no more", left)
    calling = asyncio.create_task(raw(caller, "call_agent", {"capability": "review"}))
    task = (await call(agent, "next_task", {"wait_s": 30}))["task"]
    calling.cancel()

    async def told():
        return (await raw(agent, "progress", {"task_id": task["task_id"], "text": "at it"})).is_error

    await until("the agent is told", told)


async def two_agents(agent, caller):
    async with connected(SETTINGS["agent"]) as other:
        count = 6
        calls = [
            asyncio.create_task(call(caller, "call_agent", {"node": "agent", "capability": "review", "payload": n}))
            for n in range(count)
        ]
        got = []

        async def serve(client):
            while len(got) < count:
                task = (await call(client, "next_task", {"wait_s": 0.5}))["task"]
                if task:
                    got.append(task["payload"])
                    await call(client, "reply", {"task_id": task["task_id"], "result": task["payload"]})

        await asyncio.gather(serve(agent), serve(other))
        assert sorted(got) == list(range(count)), got
        assert [answer["payload"] for answer in await asyncio.gather(*calls)] == list(range(count))


async def lease(agent, caller):
    """An agent that is gone between the lease and the reply."""
    async with connected(SETTINGS["agent"]) as other:
        calling = asyncio.create_task(call(caller, "call_agent", {"capability": "review"}))
        task = (await call(other, "next_task", {"wait_s": 30, "lease_s": 1}))["task"]
    again = (await call(agent, "next_task", {"wait_s": 30}))["task"]
    assert again["task_id"] == task["task_id"] and again["attempt"] == 2, again
    await call(agent, "reply", {"task_id": again["task_id"], "result": "done"})
    assert (await calling)["payload"] == "done"


async def events(agent, caller):
    # A place of one's own: with the protocol of 2026 there are no sessions over HTTP.
    place = (await call(agent, "next_events", {"pattern": "build.*", "wait_s": 0}))["next"]

    async def heard():
        await call(caller, "publish", {"event_type": "build.done", "data": {"n": 2**63 + 1}})
        return (await call(agent, "next_events", {"pattern": "build.*", "wait_s": 0.3, "after": place}))["events"]

    event = (await until("the event is heard", heard))[0]
    assert event["event_type"] == "build.done" and event["data"] == {"n": 2**63 + 1}, event
    recent = await agent.read_resource("elo://events/recent")
    assert "build.done" in recent.contents[0].text


async def main():
    async with connected(SETTINGS["agent"]) as agent, connected(SETTINGS["caller"]) as caller:
        for step in (look, tasks, cancelled, two_agents, lease, events):
            print(step.__name__, file=sys.stderr, flush=True)
            await asyncio.wait_for(step(agent, caller), PATIENCE * 2)
    print("all well")


asyncio.run(main())
