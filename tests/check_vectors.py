"""Checks tests/vectors/ without elo (standard library and `cryptography` only): python3 tests/check_vectors.py"""
import base64, binascii, hashlib, hmac, json, math, pathlib, re
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
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

def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

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

BATCHED = {"task": "caller", "accepted": "responder", "chunk": "responder", "chunk_ack": "caller",
           "result": "responder", "cancel": "caller", "sealed": "source"}
def check_batched(text):  # gives leaf, index, count, what was signed and the signature; raises if its author didn't sign it
    signature = (message := parse(text)).pop("signature")
    author = decode(message[BATCHED[message["type"]]])
    if not re.fullmatch("m[A-Za-z0-9_-]{91,432}", signature) or encode(proof := decode(signature[1:])) != signature[1:]:
        raise ValueError("not spelled as it must be")
    index, count = int.from_bytes(proof[64:66], "big"), int.from_bytes(proof[66:68], "big")
    if not 1 <= count <= 256 or index >= count or len(proof) % 32 != 4:
        raise ValueError("no such place")
    path = [proof[n:n + 32] for n in range(68, len(proof), 32)]
    root = leaf = hashlib.sha256(b"\x00" + canonical(message).encode()).digest()
    place, width = index, count
    while width > 1:
        if place % 2 == 1:
            root = hashlib.sha256(b"\x01" + path.pop(0) + root).digest()
        elif place + 1 < width:
            root = hashlib.sha256(b"\x01" + root + path.pop(0)).digest()
        place, width = place // 2, (width + 1) // 2
    if path:
        raise ValueError("too many hashes")
    signed = b"elo-batch-v1\n" + count.to_bytes(2, "big") + root
    Ed25519PublicKey.from_public_bytes(author).verify(proof[:64], signed)
    return leaf, index, count, signed, proof[:64]

def tree_root(leaves):  # RFC 6962, section 2.1
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + tree_root(leaves[:k]) + tree_root(leaves[k:])).digest()

# ---- HPKE, RFC 9180: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export-only
KEM = b"KEM" + (0x0020).to_bytes(2, "big")
HPKE = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x0020, 0x0001, 0xFFFF))
def extract(suite, salt, label, ikm):  # LabeledExtract
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")
def expand(suite, prk, label, info, length):  # LabeledExpand; 32 bytes or fewer are one block
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, info + b"\x01", "sha256")[:length]
def unseal(frame, ikm):  # gives the associated data and what is in the box; raises if it doesn't open
    f = parse(frame)
    secret = expand(KEM, extract(KEM, b"", b"dkp_prk", ikm), b"sk", b"", 32)  # DeriveKeyPair
    secret = X25519PrivateKey.from_private_bytes(secret)
    public, enc = secret.public_key().public_bytes_raw(), decode(f["enc"])
    shared = secret.exchange(X25519PublicKey.from_public_bytes(enc))  # Decap
    shared = expand(KEM, extract(KEM, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
    info = b"elo.v1 sealed" + decode(f["source"]) + decode(f["target"])  # KeySchedule
    context = b"\x00" + extract(HPKE, b"", b"psk_id_hash", b"") + extract(HPKE, b"", b"info_hash", info)
    exporter = expand(HPKE, extract(HPKE, shared, b"secret", b""), b"exp", context, 32)
    key, base_nonce = (expand(HPKE, exporter, b"sec", name, length) for name, length in ((b"key", 32), (b"nonce", 12)))
    nonce = (int.from_bytes(base_nonce, "big") ^ int(f["n"])).to_bytes(12, "big")
    associated = canonical({key: value for key, value in f.items() if key not in ("box", "signature")}).encode()
    return associated, ChaCha20Poly1305(key).decrypt(nonce, decode(f["box"]), associated), public

REASONS = [(Duplicate, "duplicate member"), (KeyError, "signature missing"), (InvalidSignature, "signature invalid"),
           (binascii.Error, "signature malformed"), (ValueError, "not acceptable JSON")]

if __name__ == "__main__":
    canonicals, signeds, refuseds, statements, lockeds, sealeds, batches = (
        json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        for name in ("canonical", "signed", "refused", "keylife", "locked", "sealed", "batch"))
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
    for vector in sealeds:
        frame = parse(vector["frame"])
        check(vector["frame"], frame["source"])
        associated, inner, public = unseal(vector["frame"], bytes.fromhex(vector["target_ikm_hex"]))
        assert associated == vector["associated_data"].encode(), vector["name"]
        assert inner == vector["inner"].encode() and public == decode(vector["target_key"]), vector["name"]
        check(vector["inner"], frame["source"])
    for vector in batches:
        leaves, signed = [bytes.fromhex(leaf) for leaf in vector["leaves"]], bytes.fromhex(vector["signed"])
        assert tree_root(leaves).hex() == vector["root"] and len(leaves) == len(vector["messages"]), vector["name"]
        signature = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed_hex"])).sign(signed)
        assert encode(signature) == vector["signature"], vector["name"]
        for place, text in enumerate(vector["messages"]):
            assert parse(text)["caller"] == vector["signer"], vector["name"]
            assert check_batched(text) == (leaves[place], place, len(leaves), signed, signature), vector["name"]
        for forged in vector["forged"]:
            try:
                check_batched(forged["message"])
            except (ValueError, IndexError, InvalidSignature):
                continue
            raise AssertionError((vector["name"], forged["name"], "accepted"))
    print(f"{len(canonicals)} canonical, {len(signeds)} signed, {len(refuseds)} refused, {len(statements)} about keys, "
          f"{len(lockeds)} locked, {len(sealeds)} sealed, {len(batches)} batches: all as stated")
