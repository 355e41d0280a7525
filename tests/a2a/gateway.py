"""The official A2A SDK (PyPI a2a-sdk) drives the gateway: `gateway.py BINDING BASE_URL TOKEN`. Prints each step that went well."""

import asyncio
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import httpx
from a2a.client import A2ACardResolver, AgentCardResolutionError, ClientConfig, ClientFactory
from a2a.helpers import get_data_parts, get_text_parts, new_data_part, new_text_part
from a2a.types import a2a_pb2 as a2a
from a2a.utils import errors
from google.protobuf.json_format import Parse

BINDING, BASE, TOKEN = sys.argv[1:4]
CONTEXT = f"c-{BINDING}"
PATIENCE = 30


def message(*parts, **more):
    return a2a.Message(message_id="m-1", role=a2a.ROLE_USER, parts=parts, **more)


def done(step):
    print("ok:", step, flush=True)


class Hook(BaseHTTPRequestHandler):
    """Takes what is posted; the first time it is too busy."""

    posted = Queue()
    busy = [True]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if Hook.busy:
            Hook.busy.pop()
            self.send_response(503)
        else:
            Hook.posted.put((dict(self.headers), body))
            self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


async def expect(kind, awaitable):
    try:
        result = await awaitable
        if hasattr(result, "__aiter__"):
            async for _ in result:
                pass
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


async def collect(stream):
    return [event async for event in stream]


async def ended(events):
    """The events of a stream, none of them twice, and the terminal state."""
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task", kinds
    assert kinds[-1] == "status_update", kinds
    return events[-1].status_update.status


async def main():
    opened = httpx.AsyncClient(timeout=PATIENCE)
    http = httpx.AsyncClient(timeout=PATIENCE, headers={"Authorization": f"Bearer {TOKEN}"})

    # Cards.
    card = await A2ACardResolver(opened, BASE).get_agent_card()
    assert [skill.id for skill in card.skills] == ["here"], card
    assert card.security_schemes["token"].http_auth_security_scheme.scheme == "Bearer"
    here = await A2ACardResolver(opened, f"{BASE}/a2a/here").get_agent_card()
    assert here.name == "here"
    try:
        await A2ACardResolver(opened, f"{BASE}/a2a/echo").get_agent_card()
        raise AssertionError("the mesh is shown to who has no token")
    except AgentCardResolutionError as error:
        assert error.status_code == 401, error
    try:
        await A2ACardResolver(http, f"{BASE}/a2a/nobody").get_agent_card()
        raise AssertionError("there is no such agent")
    except AgentCardResolutionError as error:
        assert error.status_code == 404, error
    done("cards")

    async def client(agent, streaming=False, polling=False):
        card = await A2ACardResolver(http, f"{BASE}{agent}").get_agent_card()
        config = ClientConfig(
            httpx_client=http, supported_protocol_bindings=[BINDING], streaming=streaming, polling=polling
        )
        return ClientFactory(config).create(card)

    node = await client("")
    extended = await node.get_extended_agent_card(a2a.GetExtendedAgentCardRequest())
    assert {"echo", "here", "count", "slow"} <= {skill.id for skill in extended.skills}, extended
    done("extended card")

    # A message, and its answer from another node.
    echo = await client("/a2a/echo")
    [event] = await collect(echo.send_message(a2a.SendMessageRequest(message=message(new_text_part("hi"), context_id=CONTEXT))))
    task = event.task
    assert task.status.state == a2a.TASK_STATE_COMPLETED, task
    assert task.context_id == CONTEXT
    assert get_text_parts(task.artifacts[-1].parts) == ["hi"], task
    assert task.history[0].parts[0].text == "hi"
    data = message(new_data_part({"n": [1, 2.5, None]}), context_id=CONTEXT)
    [event] = await collect(echo.send_message(a2a.SendMessageRequest(message=data)))
    second = event.task.id
    assert get_data_parts(event.task.artifacts[-1].parts) == [{"n": [1, 2.5, None]}], event
    files = [a2a.Part(raw=b"\x00\xff", filename="f", media_type="application/octet-stream"), new_text_part("look")]
    [event] = await collect(echo.send_message(a2a.SendMessageRequest(message=message(*files))))
    assert list(event.task.artifacts[-1].parts) == files, event
    assert event.task.context_id not in ("", CONTEXT)
    done("send")

    got = await echo.get_task(a2a.GetTaskRequest(id=task.id))
    assert got == task, (got, task)
    got = await echo.get_task(a2a.GetTaskRequest(id=task.id, history_length=0))
    assert not got.history
    await expect(errors.TaskNotFoundError, echo.get_task(a2a.GetTaskRequest(id="no-such")))
    count = await client("/a2a/count", streaming=True)
    # A task belongs to the agent that it was sent to.
    await expect(errors.TaskNotFoundError, count.get_task(a2a.GetTaskRequest(id=task.id)))
    done("get")

    listed = await echo.list_tasks(a2a.ListTasksRequest(context_id=CONTEXT, page_size=1))
    assert ([t.id for t in listed.tasks], listed.total_size) == ([second], 2), listed
    assert not listed.tasks[0].artifacts
    more = a2a.ListTasksRequest(context_id=CONTEXT, page_size=1, page_token=listed.next_page_token, include_artifacts=True)
    listed = await echo.list_tasks(more)
    assert not listed.next_page_token and list(listed.tasks) == [task], listed
    listed = await echo.list_tasks(a2a.ListTasksRequest(status=a2a.TASK_STATE_WORKING))
    assert not listed.tasks, listed
    await expect(errors.InvalidParamsError, echo.list_tasks(a2a.ListTasksRequest(page_size=1000)))
    done("list")

    # Parts of the answer as they come.
    events = await collect(count.send_message(a2a.SendMessageRequest(message=message(new_data_part({"n": 3})))))
    status = await ended(events)
    assert status.state == a2a.TASK_STATE_COMPLETED, events
    updates = [event.artifact_update for event in events if event.HasField("artifact_update")]
    chunks = [update for update in updates if update.artifact.artifact_id == "chunks"]
    assert [get_data_parts(update.artifact.parts) for update in chunks] == [[{"n": 0.0}], [{"n": 1.0}], [{"n": 2.0}]]
    assert [update.append for update in chunks] == [False, True, True]
    assert updates[-1].artifact.artifact_id == "result" and updates[-1].last_chunk
    states = [event.status_update.status.state for event in events if event.HasField("status_update")]
    assert states == [a2a.TASK_STATE_WORKING, a2a.TASK_STATE_COMPLETED], states
    whole = await count.get_task(a2a.GetTaskRequest(id=events[0].task.id))
    assert len(whole.artifacts[0].parts) == 3
    done("stream")

    # Failures.
    fail = await client("/a2a/fail")
    [event] = await collect(fail.send_message(a2a.SendMessageRequest(message=message(new_text_part("x")))))
    assert event.task.status.state == a2a.TASK_STATE_FAILED, event
    assert "this never works" in event.task.status.message.parts[0].text, event
    request = a2a.SendMessageRequest(message=message(new_text_part("x")))
    request.metadata.update({"elo.capability": "nobody", "elo.timeout_s": 20})
    [event] = await collect(node.send_message(request))
    assert event.task.status.state == a2a.TASK_STATE_REJECTED, event
    assert event.task.status.message.metadata["elo.code"] == "NO_PEER", event
    done("failures")

    # At once, followed, taken back.
    slow = await client("/a2a/slow", streaming=True, polling=True)
    at_once = await client("/a2a/slow", polling=True)
    [event] = await collect(at_once.send_message(a2a.SendMessageRequest(message=message(new_text_part("x")))))
    running = event.task.id
    assert event.task.status.state in (a2a.TASK_STATE_SUBMITTED, a2a.TASK_STATE_WORKING), event
    followed = asyncio.create_task(collect(slow.subscribe(a2a.SubscribeToTaskRequest(id=running))))
    while (await slow.get_task(a2a.GetTaskRequest(id=running))).status.state != a2a.TASK_STATE_WORKING:
        await asyncio.sleep(0.02)
    more = message(new_text_part("x"), task_id=running)
    await expect(errors.UnsupportedOperationError, collect(at_once.send_message(a2a.SendMessageRequest(message=more))))
    cancelled = await slow.cancel_task(a2a.CancelTaskRequest(id=running))
    assert cancelled.status.state == a2a.TASK_STATE_CANCELED, cancelled
    events = await asyncio.wait_for(followed, PATIENCE)
    assert (await ended(events)).state == a2a.TASK_STATE_CANCELED, events
    await expect(errors.TaskNotCancelableError, slow.cancel_task(a2a.CancelTaskRequest(id=running)))
    await expect(errors.UnsupportedOperationError, collect(slow.subscribe(a2a.SubscribeToTaskRequest(id=running))))
    await expect(errors.TaskNotFoundError, slow.cancel_task(a2a.CancelTaskRequest(id="no-such")))
    done("subscribe and cancel")

    # A web hook on this machine hears of a call that another node answers.
    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{hook.server_address[1]}/here"
    config = a2a.TaskPushNotificationConfig(id="h-1", url=url, token="t-1")
    config.authentication.scheme, config.authentication.credentials = "Bearer", "for-the-hook"
    request = a2a.SendMessageRequest(message=message(new_data_part({"n": 2})))
    request.configuration.task_push_notification_config.CopyFrom(config)
    quick = await client("/a2a/count", polling=True)
    [event] = await collect(quick.send_message(request))
    pushed = []
    while not pushed or pushed[-1].WhichOneof("payload") != "task":
        headers, body = await asyncio.to_thread(Hook.posted.get, True, PATIENCE)
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["x-a2a-notification-token"] == "t-1", headers
        assert headers["authorization"] == "Bearer for-the-hook", headers
        assert headers["content-type"] == "application/a2a+json", headers
        pushed.append(Parse(body, a2a.StreamResponse()))
    task = pushed[-1].task
    assert task.id == event.task.id and task.status.state == a2a.TASK_STATE_COMPLETED, pushed
    assert get_data_parts(task.artifacts[-1].parts), task
    done("push")

    [event] = await collect(at_once.send_message(a2a.SendMessageRequest(message=message(new_text_part("x")))))
    running = event.task.id
    config = await slow.create_task_push_notification_config(a2a.TaskPushNotificationConfig(task_id=running, url=url))
    assert config.id and config.task_id == running, config
    get = a2a.GetTaskPushNotificationConfigRequest(task_id=running, id=config.id)
    assert await slow.get_task_push_notification_config(get) == config
    listed = await slow.list_task_push_notification_configs(a2a.ListTaskPushNotificationConfigsRequest(task_id=running))
    assert list(listed.configs) == [config], listed
    await slow.delete_task_push_notification_config(
        a2a.DeleteTaskPushNotificationConfigRequest(task_id=running, id=config.id)
    )
    await expect(errors.TaskNotFoundError, slow.get_task_push_notification_config(get))
    for wrong in ("file:///etc/passwd", "ftp://127.0.0.1/", "http://user:pw@127.0.0.1/"):
        config = a2a.TaskPushNotificationConfig(task_id=running, url=wrong)
        await expect(errors.InvalidParamsError, slow.create_task_push_notification_config(config))
    await slow.cancel_task(a2a.CancelTaskRequest(id=running))
    done("push configs")

    # A client that speaks another version.
    old = {"A2A-Version": "0.3"}
    if BINDING == "JSONRPC":
        body = {"jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": {"id": "x"}}
        answer = (await http.post(f"{BASE}/a2a/echo", json=body, headers=old)).json()
        assert answer["error"]["code"] == -32009 and answer["id"] == 7, answer
    else:
        answer = await http.get(f"{BASE}/a2a/echo/v1/tasks/x", headers=old)
        reasons = [detail.get("reason") for detail in answer.json()["error"]["details"]]
        assert answer.status_code == 400 and "VERSION_NOT_SUPPORTED" in reasons, answer.text
    done("version")


asyncio.run(main())
