//! The secrets that sign what is posted.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";

/// How many bytes a secret has, by Standard Webhooks.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The most secrets at once: the new one and the old one, and some more. Each is a signature with every request.
const MAX_SECRETS: usize = 8;

/// The largest file of secrets.
const MAX_FILE: u64 = 16 * 1024;

/// Secrets of one receiver; none: what is posted is not signed.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads them from a file that only its owner can read, one a line.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let wrong = |error: std::io::Error| {
            format!("{shown} can't be read: {error}. A secret is made by: echo \"whsec_$(openssl rand -base64 32)\"")
        };
        // Opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(wrong)?.is_file() {
            return Err(format!("{shown} is not a file"));
        }
        let file = File::open(path).map_err(wrong)?;
        let metadata = file.metadata().map_err(wrong)?;
        if is_open_to_others(&metadata) {
            return Err(format!("{shown} can be read by others than its owner: `chmod 600 {shown}`"));
        }
        let mut text = Zeroizing::new(String::new());
        // One byte more than allowed tells "too large" from "just fits".
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(wrong)?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("{shown} has more than {MAX_FILE} bytes: it holds secrets, one a line"));
        }
        Self::parse(&text).map_err(|why| format!("{shown}: {why}"))
    }

    /// From text, one a line; empty lines and those that begin with `#` say nothing. No error repeats what it read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let any_padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let base64 = GeneralPurpose::new(&ALPHABET, any_padding);
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let mut secrets = Vec::new();
        for (at, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let Some(encoded) = line.strip_prefix(PREFIX) else {
                return Err(format!("line {at} is no secret: it begins with {PREFIX}"));
            };
            let secret = base64.decode(encoded).map(Zeroizing::new);
            let secret = secret.map_err(|_| format!("line {at} is no secret: after {PREFIX} there is no base64"))?;
            if !BYTES.contains(&secret.len()) {
                let (least, most) = BYTES.into_inner();
                return Err(format!("the secret in line {at} has {} bytes, not {least} to {most}", secret.len()));
            }
            secrets.push(secret);
        }
        match secrets.len() {
            0 => Err("no secret is in it".to_owned()),
            n if n > MAX_SECRETS => Err(format!("{n} secrets are in it, more than the {MAX_SECRETS} there may be")),
            _ => Ok(Self(secrets)),
        }
    }

    /// The value of the header `webhook-signature`: one signature for each secret.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let signatures = self.0.iter().filter_map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        });
        let signatures: Vec<String> = signatures.collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

#[cfg(unix)]
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &std::fs::Metadata) -> bool {
    false
}
