//! The handshake of the Python package: `hello` and `hello_ack`, unsigned. It proves nothing.

use super::{Proven, Refusal, expect};
use crate::identity::NodeId;
use crate::wire::fields::Fields;
use crate::wire::{Builder, Caps, Object, Speaker, TrackerRole, canonicalize_value, is_name};

/// What a node of the Python package says of itself, and what it is told of us.
#[derive(Clone, Debug, Default)]
pub struct LegacyHello {
    /// What it provides. A node that registers later tells the names in `interest_update`.
    pub caps: Caps,
    /// What it wants to hear of.
    pub interests: Vec<String>,
    /// What to say of ourselves. The package says "public" or "private" of ordinary nodes too, so of others it is
    /// always [`TrackerRole::None`].
    pub tracker: TrackerRole,
    /// Its program version; its `hello_ack` has none.
    pub version: String,
}

/// Our `hello` to a node of the Python package.
pub fn legacy_hello(me: &NodeId, version: &str, caps: &Caps, interests: &[String], tracker: TrackerRole) -> Object {
    introduce("hello", me, version, caps, interests, tracker).build()
}

/// Our `hello_ack` to a node of the Python package. It dials every one of `known_peers`, written
/// `first 12 characters of the id@ip:port`, in its own framing, unless it has that peer already.
pub fn legacy_hello_ack(
    me: &NodeId,
    version: &str,
    caps: &Caps,
    interests: &[String],
    tracker: TrackerRole,
    known_peers: &[String],
) -> Object {
    let known: Vec<Object> = known_peers.iter().map(|addr| Builder::untyped().str("addr", addr).build()).collect();
    introduce("hello_ack", me, version, caps, interests, tracker).objects("known_peers", &known).build()
}

fn introduce(
    kind: &str,
    me: &NodeId,
    version: &str,
    caps: &Caps,
    interests: &[String],
    tracker: TrackerRole,
) -> Builder {
    // Capabilities were valid JSON when they came in; of others nothing is said.
    let caps =
        canonicalize_value(&caps.to_value()).unwrap_or_else(|_| br#"{"agents":[],"models":[],"tools":[]}"#.to_vec());
    Builder::new(kind)
        .str("node_id", &me.to_string())
        .raw("caps", &caps)
        .strings("interests", interests)
        // The package knows no node without a role; "public" is what its ordinary nodes say.
        .str("tracker", if tracker == TrackerRole::Private { "private" } else { "public" })
        .str("version", version)
}

/// Reads a `hello` or `hello_ack` of the Python package. The id in it is only claimed.
///
/// # Errors
///
/// When it is something else, malformed, or claims our own id.
pub fn read_legacy_hello(object: &Object, me: &NodeId) -> Result<Proven, Refusal> {
    let fields = match Fields::new(object)?.kind() {
        "hello_ack" => expect(object, "hello_ack")?,
        _ => expect(object, "hello")?,
    };
    let node = fields.node("node_id")?;
    if node == *me {
        return Err(Refusal::own_id());
    }
    let caps = match fields.opt_raw("caps") {
        None => Caps::default(),
        Some(raw) => {
            let value = serde_json::from_slice(&raw).map_err(|_| fields.malformed("caps: not readable"))?;
            Caps::from_value(&value).map_err(|why| fields.malformed(format!("caps: {why}")))?
        }
    };
    let version = fields.opt_text("version")?.filter(|text| is_name(text)).unwrap_or_default();
    let hello = LegacyHello {
        caps,
        interests: fields.names("interests")?,
        tracker: TrackerRole::None,
        version: version.clone(),
    };
    Ok(Proven {
        node,
        version,
        features: Vec::new(),
        instance: None,
        rotations: std::sync::Arc::from([]),
        speaker: Speaker::Legacy(node),
        hello: Some(hello),
    })
}
