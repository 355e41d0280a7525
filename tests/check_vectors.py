"""Checks tests/vectors/ without elo (standard library and `cryptography` only): python3 tests/check_vectors.py"""
import base64, binascii, json, math, pathlib, re
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FOLDER = pathlib.Path(__file__).parent / "vectors"
class Number(str): "A number in the digits it was written with."
class Duplicate(ValueError): "A member that appears twice."
def number(text):  # NaN and infinities come here too
    if not text.lstrip("-").isdigit() and not math.isfinite(float(text)):
        raise ValueError("not finite")
    return Number(text)
def members(pairs):
    if len(dict(pairs)) != len(pairs):
        raise Duplicate
    return dict(pairs)
def parse(text):
    value = json.loads(text, object_pairs_hook=members, parse_int=number, parse_float=number, parse_constant=number)
    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can't be encoded
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value

def canonical(value):
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(key) + ":" + canonical(value[key]) for key in sorted(value)) + "}"
    return "[" + ",".join(map(canonical, value)) + "]" if isinstance(value, list) else json.dumps(value)

def check(text, signer, uncovered=()):  # gives the bytes that were signed; raises if `signer` didn't
    signature = (message := parse(text)).pop("signature")
    if not re.fullmatch("[A-Za-z0-9_-]{86}", signature):
        raise binascii.Error
    signed = canonical({key: value for key, value in message.items() if key not in uncovered}).encode()
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(signer + "="))
    key.verify(base64.urlsafe_b64decode(signature + "=="), signed)
    return signed

REASONS = [(Duplicate, "duplicate member"), (KeyError, "signature missing"), (InvalidSignature, "signature invalid"),
           (binascii.Error, "signature malformed"), (ValueError, "not acceptable JSON")]

if __name__ == "__main__":
    canonicals, signeds, refuseds = (json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
                                     for name in ("canonical", "signed", "refused"))
    for vector in canonicals:
        assert canonical(parse(vector["input"])) == vector["canonical"], vector["name"]
    for vector in signeds:
        signed = check(vector["message"], vector["signer"], vector["uncovered"])
        assert signed == vector["signing_bytes"].encode(), vector["name"]
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed_hex"])).sign(signed)
        assert base64.urlsafe_b64encode(signature).rstrip(b"=").decode() == vector["signature"], vector["name"]
    for vector in refuseds:
        try:
            check(vector["message"], vector["signer"])
            because = "accepted"
        except (ValueError, KeyError, InvalidSignature) as error:
            because = next(reason for kind, reason in REASONS if isinstance(error, kind))
        assert because == vector["because"], (vector["name"], because)
    print(f"{len(canonicals)} canonical, {len(signeds)} signed, {len(refuseds)} refused: all as stated")
