"""A node of the mesh in Python: it speaks the wire itself (docs/protocol.md), with nothing but `cryptography`.

    python node.py HOST:PORT NAME           serves the capability NAME: answers with how many words it was sent
    python node.py HOST:PORT NAME '"text"'  calls NAME at that peer, prints the result, and ends

It keeps one connection, to a node or a tracker. Others reach it over that one: a tracker relays for it.
"""
import base64, json, os, socket, sys, time, uuid
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def encode(raw): return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
def decode(text): return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
def canonical(message): return json.dumps(message, sort_keys=True, separators=(",", ":")).encode()

class Node:
    def __init__(self, address, name, capabilities=()):
        self.key = Ed25519PrivateKey.generate()
        self.me = encode(self.key.public_key().public_bytes_raw())
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), 10).makefile("rwb")
        self.name, self.capabilities, self.done = name, capabilities, {}
        nonce = encode(os.urandom(32))
        self.send(self.sign(type="hello", node_id=self.me, version="1", nonce=nonce, timestamp=int(time.time()), features=[]))
        ack = self.checked(self.receive("hello_ack"), "node_id")
        if ack["hello_nonce"] != nonce or ack.get("peer", self.me) != self.me:
            raise SystemExit("the peer did not prove who it is")
        self.peer = ack["node_id"]
        self.send(self.sign(type="auth", node_id=self.me, peer=self.peer, hello_nonce=nonce, ack_nonce=ack["nonce"]))
        self.tracker = self.receive("welcome").get("tracker")
        self.announce()

    def sign(self, **message):
        return message | {"signature": encode(self.key.sign(canonical(message)))}

    def send(self, message):
        self.stream.write(canonical(message) + b"\n")
        self.stream.flush()

    def receive(self, kind=None):
        """The next message; of that type, if one is named."""
        while (message := json.loads(self.stream.readline() or b'{"type":"bye"}'))["type"] not in (kind or message["type"], "bye"):
            pass
        if message["type"] == "bye":
            raise SystemExit(f"closed: {message}")
        return message

    def checked(self, message, signer):
        """The message without its signature, which must be that of the node it names."""
        body = {name: value for name, value in message.items() if name != "signature"}
        Ed25519PublicKey.from_public_bytes(decode(body[signer])).verify(decode(message["signature"]), canonical(body))
        return body

    def announce(self):
        """Says what this node provides: when it connects, and before the record is too old."""
        caps = {"agents": [{"name": name} for name in self.capabilities], "models": [], "tools": []}
        record = self.sign(type="record", node_id=self.me, name=self.name, caps=caps, interests=[], addrs=[], tracker=None,
                           trackers=[self.peer] if self.tracker else [], features=[], version="1", ttl_s=300,
                           seq=int(time.time() * 1000))
        self.announced = time.monotonic()
        self.send({"type": "announce", "record": record, "ttl": 5})

    def serve(self, handler):
        while True:
            message, way = self.receive(), None
            if message["type"] == "relay" and message["target"] == self.me:
                message, way = message["frame"], message["source"]
            if message["type"] == "heartbeat":  # a peer that hears nothing for 90 s hangs up
                answer = {"answer": message["ask"]} if "ask" in message else {}
                self.send({"type": "heartbeat", "node_id": self.me, "ts": int(time.time())} | answer)
            elif message["type"] == "task" and (way or self.peer) == message["caller"]:
                result = self.answer(message, handler)
                self.send({"type": "relay", "target": way, "source": self.me, "hops": 0, "frame": result} if way else result)
            if time.monotonic() - self.announced > 120:
                self.announce()

    def answer(self, task, handler):
        result = dict(type="result", id=task["id"], caller=task["caller"], responder=self.me, protocol="elo.v1", status="error")
        try:  # a number that Python would write in another way, such as 1.50, fails here as well
            task = self.checked(task, "caller")
        except InvalidSignature:
            return self.sign(**result, error={"code": "BAD_SIGNATURE", "message": "the task's signature", "ran": False})
        until, name = task["timestamp"] + task["ttl_s"] + 1, (task["caller"], task["id"])
        if task.get("target", self.me) != self.me or time.time() > until:
            return self.sign(**result, error={"code": "EXPIRED", "message": "too late, or not for this node", "ran": False})
        self.done = {key: kept for key, kept in self.done.items() if kept[0] > time.time()}
        if name not in self.done:  # never run twice: the same task again has the same answer
            try:
                result |= {"status": "success", "payload": handler(task["payload"])}
            except Exception as error:
                result |= {"error": {"code": "HANDLER_ERROR", "message": str(error)}}
            self.done[name] = (until, self.sign(**result))
        return self.done[name][1]

    def call(self, capability, payload, ttl_s=30):
        """Asks the peer."""
        task = self.sign(type="task", id=str(uuid.uuid4()), target=self.peer, caller=self.me, capability=capability,
                         payload=payload, protocol="elo.v1", timestamp=int(time.time()), ttl_s=ttl_s)
        self.send(task)
        while (result := self.receive("result"))["id"] != task["id"] or result["responder"] != self.peer:
            pass
        return self.checked(result, "responder")


if __name__ == "__main__":
    address, capability, *payload = sys.argv[1:]
    if payload:
        result = Node(address, "python").call(capability, json.loads(payload[0]))
        print(json.dumps(result.get("payload", result.get("error"))))
    else:
        node = Node(address, "python", [capability])
        print(json.dumps({"node_id": node.me, "peer": node.peer}), flush=True)
        node.serve(lambda payload: {"words": len(str(payload).split())})
