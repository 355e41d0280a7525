"""A cable that delays and loses: two TAP devices, and frames carried between them.

    wire.py NEAR FAR DELAY_MS JITTER_MS LOSS_PERCENT

For kernels without `tc netem`. Frames keep their order. "?" on stdin prints how many were carried and lost; the end
of stdin ends it.
"""
import collections
import fcntl
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
QUEUE = 10_000  # frames on the way; more are lost, as in any queue


def tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def main(near, far, delay_ms, jitter_ms, loss):
    devices = [tap(near), tap(far)]
    chance = random.Random(20)
    delay, jitter, loss = float(delay_ms) / 1e3, float(jitter_ms) / 1e3, float(loss) / 100
    # For each device what is on the way from it: (when it arrives, the frame).
    ways = {devices[0]: collections.deque(), devices[1]: collections.deque()}
    carried = lost = 0
    print("ready", flush=True)
    while True:
        due = min((way[0][0] for way in ways.values() if way), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        for ready in select.select([*devices, sys.stdin], [], [], wait)[0]:
            if ready is sys.stdin:
                if not sys.stdin.readline():
                    return
                print(json.dumps({"carried": carried, "lost": lost}), flush=True)
                continue
            way = ways[ready]
            # Some at a time, so that what is due the other way leaves in time.
            for _ in range(64):
                try:
                    frame = os.read(ready, 65536)
                except OSError:
                    break
                if len(way) >= QUEUE or chance.random() < loss:
                    lost += 1
                    continue
                arrives = time.monotonic() + delay + chance.uniform(-jitter, jitter)
                way.append((max(arrives, way[-1][0]) if way else arrives, frame))
        now = time.monotonic()
        for near_end, far_end in (devices, devices[::-1]):
            way = ways[near_end]
            while way and way[0][0] <= now:
                try:
                    os.write(far_end, way.popleft()[1])
                    carried += 1
                except OSError:
                    lost += 1  # that end is down


main(*sys.argv[1:])
