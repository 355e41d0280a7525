"""Checks tests/vectors/ without elo (standard library and `cryptography` only): python3 tests/check_vectors.py"""
import base64, binascii, json, math, pathlib, re
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # cryptography 44 or later

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

def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

def signed_by(message, member, signer, without):  # whether that member is the signer's signature over the rest
    rest = canonical({key: value for key, value in message.items() if key not in without})
    try:
        Ed25519PublicKey.from_public_bytes(decode(signer)).verify(decode(message[member] or ""), rest.encode())
    except (InvalidSignature, KeyError):
        return None
    return rest

def check_statement(vector):  # a rotation is signed by the old key, and then by the new one; a revocation by its own
    message = parse(vector["statement"])
    if message["type"] == "revocation":
        return signed_by(message, "signature", message["node_id"], ["signature"]) == vector["signing_bytes"]
    by_old = signed_by(message, "old_signature", message["old"], ["old_signature", "signature"])
    by_new = signed_by(message, "signature", message["new"], ["signature"])
    return (by_old, by_new) == (vector["old_signing_bytes"], vector["signing_bytes"])

def unlock(text, passphrase):  # the seed of a key file under a passphrase
    file = json.loads(text)
    key = Argon2id(salt=decode(file["salt"]), length=32, iterations=file["passes"], lanes=file["lanes"],
                   memory_cost=file["memory_kib"]).derive(passphrase.encode())
    header = json.dumps({key: value for key, value in file.items() if key != "box"}, sort_keys=True, separators=(",", ":"))
    return ChaCha20Poly1305(key).decrypt(decode(file["nonce"]), decode(file["box"]), header.encode())

REASONS = [(Duplicate, "duplicate member"), (KeyError, "signature missing"), (InvalidSignature, "signature invalid"),
           (binascii.Error, "signature malformed"), (ValueError, "not acceptable JSON")]

if __name__ == "__main__":
    canonicals, signeds, refuseds, statements, lockeds = (
        json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        for name in ("canonical", "signed", "refused", "keylife", "locked"))
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
    for vector in statements:
        assert check_statement(vector) == vector["valid"], vector["name"]
    for vector in lockeds:
        assert unlock(vector["file"], vector["passphrase"]).hex() == vector["seed_hex"], vector["name"]
    print(f"{len(canonicals)} canonical, {len(signeds)} signed, {len(refuseds)} refused, {len(statements)} about keys, "
          f"{len(lockeds)} locked: all as stated")
