"""Everything that the Python client can do, tried out between two nodes."""

import os
import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "clients" / "python"))
from elo_client import Elo, EloError, TaskError

here = Elo()  # ELO_HTTP, and the token in ELO_HOME
there = Elo(os.environ["OTHER_HTTP"], os.environ["OTHER_TOKEN"])


def eventually(what, condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def fails(code, work):
    try:
        result = work()
    except EloError as error:
        assert error.code == code, error
        return error
    raise AssertionError(f"{code} was expected: {result}")


# The node, and others.
assert here.status()["node"]["node_id"] != there.status()["node"]["node_id"]
eventually("it is found", lambda: here.agents("echo"))
assert here.agents("echo")[0]["node_id"] == os.environ["OTHER_ID"]
assert len(here.agents()) == 2

# Calls: digits, text, and what goes wrong.
big = 12345678901234567890123
assert here.call("echo", {"n": big, "text": "çok 日本 \u2028"}) == {"n": big, "text": "çok 日本 \u2028"}
outcome = here.outcome("echo", [1], to=os.environ["OTHER_ID"][:12])
assert (outcome["payload"], outcome["route"], outcome["verified"]) == ([1], "direct", True), outcome
error = fails("NO_PEER", lambda: here.call("nobody", timeout=3))
assert error.status == 503 and error.details["delivery"] == "not_sent"
assert fails("UNAUTHORIZED", lambda: Elo(here.url, "wrong" * 8).status()).status == 401
assert fails("BAD_REQUEST", lambda: here.call("echo", float("nan"))).status == 400


# Serving.
@there.task("work", kind="tool", description="Does what it is told")
def work(payload, task):
    assert task.caller == here.status()["node"]["node_id"] and task.capability == "work"
    if payload == "parts":
        for n in range(3):
            task.progress({"n": n})
        return "whole"
    if payload == "long":
        time.sleep(4)  # twice the lease
        return task.info["attempt"]
    if payload == "refuse":
        raise TaskError("not that", "BAD_REQUEST")
    if payload == "break":
        raise KeyError("oops")
    if payload == "no json":
        return {1, 2}
    if payload == "wait":
        while True:
            time.sleep(0.1)
            task.progress()
    return None


serving = threading.Thread(target=there.serve, kwargs={"lease": 2}, daemon=True)
serving.start()
eventually("it is offered", lambda: here.agents("work"))
offered = [cap for cap in here.agents("work")[0]["capabilities"] if cap["name"] == "work"][0]
assert (offered["kind"], offered["details"]["description"]) == ("tool", "Does what it is told"), offered
assert list(here.stream("work", "parts")) == [{"n": 0}, {"n": 1}, {"n": 2}, "whole"]
assert here.call("work") is None
assert here.call("work", "long") == 1
assert fails("BAD_REQUEST", lambda: here.call("work", "refuse")).message == "not that"
assert "oops" in fails("HANDLER_ERROR", lambda: here.call("work", "break")).message
assert "can't be sent" in fails("HANDLER_ERROR", lambda: here.call("work", "no json")).message
fails("HANDLER_ERROR", lambda: list(here.stream("work", "break")))

# Calls that are looked after.
call = here.start("work", "parts")
eventually("it is done", lambda: here.check(call, wait=5)["state"] == "done")
progress = here.check(call, after=1)
assert (progress["chunks"], progress["outcome"]["payload"], progress["next"]) == ([{"n": 1}, {"n": 2}], "whole", 3), progress
call = here.start("work", "wait")
eventually("it is there", lambda: here.check(call)["state"] == "accepted")
assert here.cancel(call)["error"]["code"] == "CANCELLED"
fails("NOT_FOUND", lambda: here.check("nothing"))
# Its agent was told, and goes on.
assert here.call("work") is None
there.stop()
serving.join(30)
assert not serving.is_alive()

# Events.
heard = []


def listen():
    for event in there.events("test.*"):
        heard.append(event)


threading.Thread(target=listen, daemon=True).start()
eventually("one arrives", lambda: here.publish("test.first", {"a": [1]}) and heard)
here.publish("test.last")
eventually("the last one arrives", lambda: heard[-1]["event_type"] == "test.last")
assert heard[0]["data"] == {"a": [1]} and heard[0]["origin"] == here.status()["node"]["node_id"]
fails("BAD_REQUEST", lambda: next(here.events("")))

print("all of it")
