"""A cable that delays, loses and reorders: two TAP devices, and frames carried between them.

    wire.py NEAR FAR DELAY_MS JITTER_MS LOSS_PERCENT ORDER SEED

For kernels without `tc netem`. With ORDER `kept` frames keep their order, with `free` each arrives when its own delay is
over. "?" on stdin prints how many were carried, lost, and overtaken by later ones; the end of stdin ends it.
"""
import fcntl
import heapq
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


class Way:
    """What is on its way from one device to the other."""

    def __init__(self):
        self.frames = []  # a heap of (when it arrives, its number, the frame)
        self.count = 0
        self.latest = 0.0  # when the one that arrives last does
        self.arrived = 0  # the highest number that has arrived


def main(near, far, delay_ms, jitter_ms, loss, order, seed):
    devices = [tap(near), tap(far)]
    chance = random.Random(int(seed))
    delay, jitter, loss = float(delay_ms) / 1e3, float(jitter_ms) / 1e3, float(loss) / 100
    ways = {devices[0]: Way(), devices[1]: Way()}
    carried = lost = overtaken = 0
    print("ready", flush=True)
    while True:
        due = min((way.frames[0][0] for way in ways.values() if way.frames), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        for ready in select.select([*devices, sys.stdin], [], [], wait)[0]:
            if ready is sys.stdin:
                if not sys.stdin.readline():
                    return
                print(json.dumps({"carried": carried, "lost": lost, "overtaken": overtaken}), flush=True)
                continue
            way = ways[ready]
            # Some at a time, so that what is due the other way leaves in time.
            for _ in range(64):
                try:
                    frame = os.read(ready, 65536)
                except OSError:
                    break
                if len(way.frames) >= QUEUE or chance.random() < loss:
                    lost += 1
                    continue
                arrives = time.monotonic() + delay + chance.uniform(-jitter, jitter)
                if order == "kept":
                    arrives = way.latest = max(arrives, way.latest)
                way.count += 1
                heapq.heappush(way.frames, (arrives, way.count, frame))
        now = time.monotonic()
        for near_end, far_end in (devices, devices[::-1]):
            way = ways[near_end]
            while way.frames and way.frames[0][0] <= now:
                _, number, frame = heapq.heappop(way.frames)
                overtaken += number < way.arrived
                way.arrived = max(way.arrived, number)
                try:
                    os.write(far_end, frame)
                    carried += 1
                except OSError:
                    lost += 1  # that end is down


main(*sys.argv[1:])
