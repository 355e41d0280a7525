//! What the tests of web hooks share.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod receiver;

pub use receiver::{Act, Receiver, Request};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};

/// A secret of that many bytes.
pub fn secret(bytes: usize, of: u8) -> String {
    format!("whsec_{}", STANDARD.encode(vec![of; bytes]))
}

/// Writes a file that only its owner reads.
pub fn private(home: &crate::common::Home, name: &str, content: &str) -> String {
    let path = home.write(name, content);
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// How many of a request's signatures are made with this secret.
pub fn signed_by(request: &Request, secret: &str) -> usize {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", request.id(), request.header("webhook-timestamp").unwrap()).as_bytes());
    mac.update(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let signatures = request.header("webhook-signature").unwrap_or_default();
    signatures.split(' ').filter(|signature| *signature == expected).count()
}
