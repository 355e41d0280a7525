//! The key file is shared with the Python package: each side reads what the other wrote.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `cryptography` is required.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use elo::{Identity, NodeId, verify};

/// Runs Python with the key file as its argument and returns what it printed.
fn python(script: &str, file: &Path) -> String {
    let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&name)
        .args(["-c", script])
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("ELO_INTEROP needs Python 3, can't run {name:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} (needs `cryptography`): {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn is_on() -> bool {
    let on = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    if !on {
        println!("not run: set ELO_INTEROP=1 to check against Python's cryptography");
    }
    on
}

#[test]
fn python_reads_our_key() {
    if !is_on() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (identity, _) = Identity::create(home.path(), false).unwrap();
    let printed = python(
        "
import base64, sys
from cryptography.hazmat.primitives import serialization as s
key = s.load_pem_private_key(open(sys.argv[1], 'rb').read(), None)
text = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b'=').decode()
print(text(key.public_key().public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)), key.sign(b'hello').hex())
",
        &home.path().join("identity.seed"),
    );
    let (id, signature) = printed.split_once(' ').unwrap();
    assert_eq!(id.parse::<NodeId>().unwrap(), identity.id());
    let ours: String = identity.sign(b"hello").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature, ours);
    assert!(verify(&identity.id(), b"hello", &identity.sign(b"hello")));
}

#[test]
fn we_read_pythons_key() {
    if !is_on() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let id = python(
        "
import base64, os, sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
key = Ed25519PrivateKey.generate()
pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
with os.fdopen(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600), 'wb') as file:
    file.write(pem)
raw = key.public_key().public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)
print(base64.urlsafe_b64encode(raw).rstrip(b'=').decode())
",
        &home.path().join("identity.seed"),
    );
    let (identity, created) = Identity::load_or_create(home.path()).unwrap();
    assert!(!created);
    assert_eq!(identity.id().to_string(), id);
}
