"""An agent in Python: serves `headline`, and has another agent, `shout`, do the loud part.

    elo serve --http 127.0.0.1:7880      # the node of this machine
    python examples/agent.py             # this agent, beside it
    elo call headline '"rust agents meet"'
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "clients" / "python"))
from elo_client import Elo, EloError, TaskError

elo = Elo()


@elo.task("headline", description="Makes a headline of a line of text")
def headline(payload, task):
    if not isinstance(payload, str):
        raise TaskError("the payload is a line of text", "BAD_REQUEST")
    task.progress("asking for the loud part")
    try:
        return "*** " + elo.call("shout", payload) + " ***"
    except EloError as error:
        return f"{payload} ({error.code}: nobody shouts)"


if __name__ == "__main__":
    print("serving headline at", elo.url, flush=True)
    elo.serve()
