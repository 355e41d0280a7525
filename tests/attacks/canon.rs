//! The attacker's own keys, canonical form and signatures, written from docs/protocol.md sections 3 and 24 and nothing else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// 32 bytes of chance in base64url: what a nonce looks like.
pub fn nonce() -> String {
    encode(&rand::random::<[u8; 32]>())
}

pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the attacker's, or one that it is good to have in a test.
#[derive(Clone)]
pub struct Key {
    seed: [u8; 32],
    key: SigningKey,
}

impl Key {
    pub fn fresh() -> Self {
        Self::from_seed(rand::random())
    }

    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, key: SigningKey::from_bytes(&seed) }
    }

    pub fn id(&self) -> String {
        encode(self.key.verifying_key().as_bytes())
    }

    /// The same key for a real node.
    pub fn identity(&self) -> elo::Identity {
        elo::Identity::from_seed(self.seed)
    }

    /// The signature over a text, in base64url.
    pub fn sign_text(&self, text: &str) -> String {
        encode(&self.key.sign(text.as_bytes()).to_bytes())
    }

    /// The message with its signature.
    pub fn sign(&self, mut message: Value) -> Value {
        let members = message.as_object_mut().unwrap();
        members.remove("signature");
        let flooded = matches!(members["type"].as_str(), Some("query" | "event"));
        let ttl = if flooded { members.remove("ttl") } else { None };
        let signature = self.sign_text(&canonical(&message));
        let members = message.as_object_mut().unwrap();
        members.insert("signature".into(), signature.into());
        if let Some(ttl) = ttl {
            members.insert("ttl".into(), ttl);
        }
        message
    }
}

/// A signature in a batch, in parts: each can be made another.
#[derive(Clone)]
pub struct Proof {
    pub signature: Vec<u8>,
    pub index: u16,
    pub count: u16,
    pub path: Vec<Vec<u8>>,
}

impl Proof {
    pub fn text(&self) -> String {
        let place = [self.index.to_be_bytes(), self.count.to_be_bytes()].concat();
        format!("m{}", encode(&[&self.signature[..], &place, &self.path.concat()].concat()))
    }
}

/// The hash of a message in a batch.
pub fn leaf(message: &Value) -> Vec<u8> {
    let mut message = message.clone();
    message.as_object_mut().unwrap().remove("signature");
    Sha256::digest([&[0], canonical(&message).as_bytes()].concat()).to_vec()
}

/// The hash of two neighbours in a batch.
pub fn above(left: &[u8], right: &[u8]) -> Vec<u8> {
    Sha256::digest([&[1], left, right].concat()).to_vec()
}

impl Key {
    /// What a batch's signature is over, signed.
    pub fn sign_root(&self, count: u16, root: &[u8]) -> Vec<u8> {
        self.key.sign(&[b"elo-batch-v1\n", &count.to_be_bytes()[..], root].concat()).to_bytes().to_vec()
    }

    /// The proofs of some messages, signed together.
    pub fn sign_together(&self, messages: &[Value]) -> Vec<Proof> {
        let count = messages.len() as u16;
        let mut level: Vec<Vec<u8>> = messages.iter().map(leaf).collect();
        let mut paths = vec![Vec::new(); messages.len()];
        let mut height = 0;
        while level.len() > 1 {
            for (n, path) in paths.iter_mut().enumerate() {
                path.extend(level.get((n >> height) ^ 1).cloned());
            }
            let node = |pair: &[Vec<u8>]| if pair.len() == 2 { above(&pair[0], &pair[1]) } else { pair[0].clone() };
            level = level.chunks(2).map(node).collect();
            height += 1;
        }
        let signature = self.sign_root(count, &level[0]);
        let proof = |(index, path)| Proof { signature: signature.clone(), index, count, path };
        (0..).zip(paths).map(proof).collect()
    }
}

/// What Python's `json.dumps(value, sort_keys=True, separators=(",", ":"))` prints.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            let members: Vec<String> =
                names.into_iter().map(|n| format!("{}:{}", quoted(n), canonical(&members[n]))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
    out
}

#[test]
fn the_attackers_canonical_form_is_that_of_the_document() {
    let message = serde_json::json!({"b": "Grü\u{1F600}\n\u{7f}", "a": [1, null, {"ß": "/", "z": true}]});
    assert_eq!(canonical(&message), r#"{"a":[1,null,{"z":true,"\u00df":"/"}],"b":"Gr\u00fc\ud83d\ude00\n\u007f"}"#);
}
