"""The NAT-PMP part of a router (RFC 6886): opens TCP ports of its outer address to the machines that ask.

    portmap.py OUTER_IP

PCP's version is refused, as the RFC wants it of a router that speaks NAT-PMP only.
"""
import ipaddress
import socket
import struct
import subprocess
import sys
import time

OK, UNSUPPORTED_VERSION, UNSUPPORTED_OPCODE = 0, 1, 5


def main(outer):
    start = time.monotonic()
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(("", 5351))
    print("ready", flush=True)
    while True:
        asked, who = door.recvfrom(1100)
        if len(asked) < 2:
            continue
        version, op = asked[0], asked[1]
        since = int(time.monotonic() - start)
        if version != 0:
            answer = struct.pack("!BBHI", 0, 128 + (op & 127), UNSUPPORTED_VERSION, since)
        elif op == 0:
            answer = struct.pack("!BBHI4s", 0, 128, OK, since, ipaddress.ip_address(outer).packed)
        elif op == 2 and len(asked) >= 12:
            inner, wanted, lifetime = struct.unpack("!HHI", asked[4:12])
            wanted = wanted or inner
            if lifetime:
                rule = f'add rule ip nat pre iifname "wan" tcp dport {wanted} dnat to {who[0]}:{inner}'
                subprocess.run(["nft", rule], check=True)
            else:
                wanted = 0  # this router lets a mapping go only with itself
            answer = struct.pack("!BBHIHHI", 0, 130, OK, since, inner, wanted, lifetime)
        else:
            answer = struct.pack("!BBHI", 0, 128 + (op & 127), UNSUPPORTED_OPCODE, since)
        door.sendto(answer, who)


main(*sys.argv[1:])
