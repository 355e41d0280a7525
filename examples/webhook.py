#!/usr/bin/env python3
"""An agent behind a web hook, with nothing but the standard library.

    echo "whsec_$(openssl rand -base64 32)" > secret && chmod 600 secret
    python3 examples/webhook.py secret 9000
    elo serve --agent shout --webhook http://127.0.0.1:9000/ --webhook-secret secret
    elo call shout '"hello"' --peer 127.0.0.1

It checks the signature, and the time, by Standard Webhooks, answers each task once however often it is posted, and sends its
text back in capitals.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

TOLERANCE_S = 300  # how old, or how far ahead, a request may be
MAX_BODY = 2 * 1024 * 1024
KEPT = 1000  # answers kept for deliveries that come again


def read_secrets(path):
    """The secrets in the file that elo signs with; with several, any one will do."""
    with open(path, encoding="ascii") as file:
        lines = [line.strip() for line in file]
    return [base64.b64decode(line.removeprefix("whsec_")) for line in lines if line.startswith("whsec_")]


def is_signed(secrets, headers, body):
    """Whether the request is from somebody who knows a secret, and new."""
    delivery, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > TOLERANCE_S:
        return False
    signed = f"{delivery}.{sent}.".encode() + body
    ours = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    theirs = [part[3:] for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    return any([hmac.compare_digest(a, b) for a in ours for b in theirs])


def work(task):
    """What the agent does: any value that JSON can hold is the result, an exception is an error."""
    return str(task["payload"]).upper()


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for many tasks
    timeout = 60
    secrets = []
    answers, lock = OrderedDict(), Lock()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            return self.answer(413, {"error": "a body of at most 2 MiB, and its length, are expected"})
        body = self.rfile.read(int(length))
        if not is_signed(self.secrets, self.headers, body):
            return self.answer(401, {"error": "the signature is missing, wrong, or too old"})
        message = json.loads(body)
        if message["type"] != "elo.task":
            return self.answer(200, None)  # elo.probe asks whether anybody is here
        delivery = self.headers["webhook-id"]
        with self.lock:
            known = self.answers.get(delivery)
        if known is None:
            try:
                known = (200, work(message["data"]))
            except Exception as error:  # its caller reads this
                known = (422, {"error": str(error)})
            with self.lock:
                self.answers[delivery] = known
                while len(self.answers) > KEPT:
                    self.answers.popitem(last=False)
        self.answer(*known)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Hook.secrets = read_secrets(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Hook)
    print(f"listening on http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()
