"""An agent that is killed, or whose node is: `agent.py work` answers, `agent.py hang` takes a task and never does."""

import pathlib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "clients" / "python"))
from elo_client import Elo

elo = Elo()


@elo.task("work")
def work(payload, task):
    print("has", f"{payload}, as number {task.info['attempt']}", flush=True)
    while sys.argv[1] == "hang":
        time.sleep(1)
    return {"by": "py", "of": payload}


threading.Timer(0.2, lambda: print("serving", flush=True)).start()
elo.serve(lease=2)
