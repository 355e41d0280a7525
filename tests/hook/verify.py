"""Verifies requests with the library of Standard Webhooks: one JSON object a line, {"secret", "headers", "body"}; prints
what it makes of each."""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    request = json.loads(line)
    try:
        body = Webhook(request["secret"]).verify(request["body"].encode(), request["headers"])
        print(body["type"])
    except WebhookVerificationError as error:
        print(f"refused: {error}")
