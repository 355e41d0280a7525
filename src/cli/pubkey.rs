//! `elo pubkey`: this home's public key, in the forms other programs want.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::json;

use super::App;
use super::failure::{Failure, OK};
use super::unlock;

/// What stands before an ed25519 public key in its DER form (RFC 8410, section 4).
const DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const AFTER_HELP: &str = "\
Examples:
  elo pubkey
  elo pubkey --json | jq -r .pem > key.pem

Exit codes: 0 success, 1 there is no key or it can't be used.";

/// Print the public key: as node id, hex, base64 and PEM
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PubkeyArgs {}

pub(super) fn run(app: &App, _args: PubkeyArgs) -> Result<u8, Failure> {
    let id = unlock::id(app)?;
    let key = id.as_bytes();
    let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
    let base64 = STANDARD.encode(key);
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode([&DER_PREFIX[..], &key[..]].concat())
    );
    if app.out.json {
        app.out.json(&json!({ "node_id": id, "hex": hex, "base64": base64, "base64url": URL_SAFE_NO_PAD.encode(key), "pem": pem }))?;
    } else {
        app.out.line(&format!("node id   {id}"))?;
        app.out.line(&format!("hex       {hex}"))?;
        app.out.line(&format!("base64    {base64}"))?;
        app.out.block(&pem)?;
    }
    Ok(OK)
}
