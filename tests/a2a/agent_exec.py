"""The program behind the agents that the gateway is tested with: `elo serve --exec`."""

import json
import sys
import time

task = json.loads(sys.stdin.readline())
capability, payload = task["capability"], task["payload"]
if capability == "echo":
    print(json.dumps(payload))
elif capability == "count":
    for n in range(int(payload["n"])):
        print(json.dumps({"n": n}), flush=True)
        time.sleep(0.05)
elif capability == "slow":
    time.sleep(60)
else:
    sys.exit("this never works")
