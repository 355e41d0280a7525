"""A client of the local HTTP API of `elo serve --http`: the mesh for Python programs, with the standard library alone.

    elo = Elo()                           # the node of ~/.elo; or Elo(url, token), or ELO_HTTP and ELO_TOKEN
    print(elo.call("sum", [1, 2, 3]))     # hands a task to whoever provides it, and waits for its result

    @elo.task("shout")                    # serves a capability: what the function returns is the result
    def shout(payload, task):
        task.progress("nearly there")     # a part of the answer, and a sign of life
        return payload.upper()
    elo.serve()                           # until the program ends

What fails raises EloError, whose `code` is one of docs/protocol.md, "Error codes", or OSError: no node was reached.
"""
from __future__ import annotations
import contextlib, json, os, pathlib, threading, time, urllib.error, urllib.parse, urllib.request
from typing import Any, Callable, Iterator

JSON = Any
OURS = (400, 401, 403, 409, 413, 422)  # statuses that say that the program is at fault: trying again does not help


class EloError(Exception):
    """What the node says: `code`, the HTTP `status`, `retry_after` in seconds, and all of it in `details`."""
    def __init__(self, code: str, message: str, status: int = 0, details: dict[str, JSON] | None = None):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.details = code, message, status, details or {}
        self.retry_after: float | None = self.details.get("retry_after_s")


class TaskError(Exception):
    """Raised by a handler to answer its caller with an error of that code."""
    def __init__(self, message: str, code: str = "HANDLER_ERROR"):
        super().__init__(message)
        self.code = code


class Task:
    """A task that this agent has. `caller` is a node id; whatever else came with it is in `info`."""
    def __init__(self, elo: Elo, info: dict[str, JSON]):
        self._elo, self.info, self.payload = elo, info, info["payload"]
        self.id: str = info["task_id"]
        self.capability: str = info["capability"]
        self.caller: str = info["caller"]

    def progress(self, data: JSON = None) -> None:
        """Sends the caller a part of the answer; without one it is a sign of life. GONE: nobody waits any more."""
        self._elo.request("POST", f"/v1/tasks/{_q(self.id)}/progress", {} if data is None else {"data": data})


def _q(text: str) -> str: return urllib.parse.quote(text, safe="")


class Elo:
    """The node of this machine."""
    def __init__(self, url: str | None = None, token: str | None = None, home: str | None = None, context=None):
        self.url = (url or os.environ.get("ELO_HTTP") or "http://127.0.0.1:7880").rstrip("/")
        self.url = self.url if "://" in self.url else "http://" + self.url
        folder = pathlib.Path(home or os.environ.get("ELO_HOME") or pathlib.Path.home() / ".elo")
        self._token, self._token_file = token or os.environ.get("ELO_TOKEN"), folder / "http.token"
        self._handlers: dict[str, tuple[Callable, dict]] = {}
        self._stop = threading.Event()
        https = urllib.request.HTTPSHandler(context=context)  # an ssl.SSLContext for a certificate of one's own
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)  # never through a proxy

    def _open(self, method: str, path: str, body: JSON, accept: str, timeout: float, headers: dict[str, str]):
        token = self._token or self._token_file.read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": accept, "Content-Type": "application/json"} | headers
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            return self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            problem: dict[str, JSON] = {}
            with contextlib.suppress(ValueError):
                problem = json.loads(error.read())
            raise EloError(problem.get("code", "HTTP"), problem.get("detail", str(error)), error.code, problem) from None

    def request(self, method: str, path: str, body: JSON = None, timeout: float = 60) -> JSON:
        """Any request of the API; None for an answer without a body."""
        with self._open(method, path, body, "application/json", timeout, {}) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _stream(self, method: str, path: str, body: JSON = None, timeout: float = 60, **headers: str) -> Iterator[tuple]:
        """Server-sent events: name, id, data."""
        with self._open(method, path, body, "text/event-stream", timeout, headers) as stream:
            event, lines = {}, []
            for raw in stream:
                field, _, value = raw.decode().rstrip("\r\n").partition(":")
                value = value.removeprefix(" ")
                if field == "data":
                    lines.append(value)
                elif field:
                    event[field] = value
                elif not value and lines:  # an empty line ends it; what begins with a colon is a comment
                    yield event.get("event", "message"), event.get("id"), json.loads("\n".join(lines))
                    event, lines = {}, []

    @staticmethod
    def _call(capability: str, payload: JSON, to: str | None, timeout: float, wait: float) -> dict[str, JSON]:
        body = {"capability": capability, "payload": payload, "timeout_s": timeout + wait, "wait_for_agent_s": wait}
        return body | ({"to": to} if to else {})

    def outcome(self, capability: str, payload: JSON = None, to: str | None = None, timeout: float = 60, wait: float = 0) -> JSON:
        """Calls, and gives all that is known of the result: `payload`, `responder`, `route`, `timings`, …"""
        return self.request("POST", "/v1/calls", self._call(capability, payload, to, timeout, wait), timeout + wait + 10)

    def call(self, capability: str, payload: JSON = None, to: str | None = None, timeout: float = 60, wait: float = 0) -> JSON:
        """Calls whoever provides the capability, or one node, and gives the result. An agent that is away is waited for
        `wait` seconds before the `timeout` seconds begin."""
        return self.outcome(capability, payload, to, timeout, wait)["payload"]

    def stream(self, capability: str, payload: JSON = None, to: str | None = None, timeout: float = 60) -> Iterator[JSON]:
        """Calls, and gives the parts of the answer as they come, and last its result."""
        for name, _, data in self._stream("POST", "/v1/calls", self._call(capability, payload, to, timeout, 0), timeout + 10):
            if name == "error": raise EloError(data.get("code", "FAILED"), data.get("detail", ""), details=data)
            if name in ("chunk", "outcome"): yield data if name == "chunk" else data["payload"]
            if name == "outcome": return
        raise EloError("STOPPED", "the node stopped before there was a result")

    def start(self, capability: str, payload: JSON = None, to: str | None = None, timeout: float = 60, wait: float = 0) -> str:
        """Starts a call that goes on without this program, and gives its id."""
        return self.request("POST", "/v1/calls", self._call(capability, payload, to, timeout, wait) | {"async": True})["id"]

    def check(self, call: str, after: int = 0, wait: float = 0) -> JSON:
        """How far a call is: `state`, `chunks` from number `after` on, then `outcome` or `error`."""
        return self.request("GET", f"/v1/calls/{_q(call)}?after={after}&wait_s={wait:g}", timeout=wait + 30)

    def cancel(self, call: str) -> JSON:
        """Takes a call back."""
        return self.request("DELETE", f"/v1/calls/{_q(call)}")

    def agents(self, capability: str = "") -> list[JSON]:
        """Who provides a capability; without one, everybody who is known."""
        return self.request("GET", f"/v1/agents?capability={_q(capability)}")["agents"]

    def status(self) -> JSON:
        """The node's own state."""
        return self.request("GET", "/v1/status")

    def publish(self, event_type: str, data: JSON = None) -> str:
        return self.request("POST", "/v1/events", {"type": event_type, "data": data})["id"]

    def events(self, pattern: str = "*") -> Iterator[JSON]:
        """Events as they come, for ever. After a break it goes on where it was; `{"lost": …}` tells of a gap."""
        place: dict[str, str] = {}
        while True:
            try:
                for name, ident, data in self._stream("GET", f"/v1/events?pattern={_q(pattern)}", **place):
                    place = {"Last-Event-ID": ident} if ident else place
                    if name in ("message", "gap"): yield data
            except (OSError, EloError) as error:
                if getattr(error, "status", 0) in OURS: raise
            time.sleep(0.5)

    def task(self, name: str, kind: str = "agent", description: str | None = None) -> Callable:
        """Makes a function the handler of a capability: it is called with the payload and the Task."""
        offer = {"kind": kind, "description": description}
        return lambda handler: self._handlers.update({name: (handler, offer)}) or handler

    def stop(self) -> None: self._stop.set()  # ends `serve` after the task that is worked on

    def serve(self, lease: float = 60) -> None:
        """Offers what has a handler, and works on its tasks one at a time (in several threads: on several). It goes on when the
        node restarts. If this program dies its task is offered again after `lease` seconds."""
        offered = False
        while not self._stop.is_set():
            try:
                for name, (_, offer) in () if offered else self._handlers.items():
                    self.request("PUT", f"/v1/offers/{_q(name)}", offer)
                offered = True
                body = {"capabilities": list(self._handlers), "wait_s": 20, "lease_s": lease}
                if info := self.request("POST", "/v1/tasks/next", body, 60):
                    self._work(Task(self, info), lease)
            except (OSError, EloError) as error:  # the node is away, or it restarted and knows of no offer
                if getattr(error, "status", 0) in OURS: raise
                offered = self._stop.wait(0.5)

    def _work(self, task: Task, lease: float) -> None:
        done = threading.Event()
        def live() -> None:  # work may take longer than the lease
            while not done.wait(lease / 3):
                with contextlib.suppress(OSError, EloError):
                    task.progress()
        threading.Thread(target=live, daemon=True).start()
        try:
            answer = {"result": self._handlers[task.capability][0](task.payload, task)}
        except Exception as error:  # its caller hears of it, and this agent goes on
            code = getattr(error, "code", "HANDLER_ERROR") if isinstance(error, (TaskError, EloError)) else "HANDLER_ERROR"
            answer = {"error": {"code": code, "message": str(error) or type(error).__name__}}
        finally:
            done.set()
        reply = f"/v1/tasks/{_q(task.id)}/reply"
        try:
            self.request("POST", reply, answer)
        except (EloError, TypeError, ValueError) as error:  # it is no JSON, too large, or answered by another agent
            with contextlib.suppress(EloError):
                self.request("POST", reply, {"error": {"message": f"the result can't be sent: {error}"}})
