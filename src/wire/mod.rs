//! What goes over the wire: messages, their two framings, the canonical form and signatures.
//!
//! A message is one JSON object. [`codec`] cuts a byte stream into messages, [`json`] parses one and checks what its
//! author signed, [`Message`] gives its members types, and [`fn@check`] hands on only what is signed as it must be.
//! Nothing here does I/O, reads a clock or a random generator.

pub mod batch;
pub mod codec;
pub mod json;

mod caps;
mod check;
mod compact;
pub(crate) mod dialback;
pub(crate) mod draft;
pub(crate) mod fields;
pub(crate) mod keylife;
mod message;
mod record;
mod role;
mod sealed;

pub use batch::{BATCH, Roots, lists_batch, verify_signed};
pub use caps::{Capability, CapabilityKind, Caps, is_name, matches_pattern};
pub use check::{Checked, Speaker, check, check_records};
pub use codec::{Codec, CodecError, Framing};
pub use compact::{Compact, item_signing_bytes};
pub use dialback::{DialBack, DialBackResult, ProbeNonce};
pub use draft::{Draft, ResultDraft, TaskDraft};
pub use fields::is_id;
pub use json::{
    Builder, FieldError, JsonError, Object, SignatureError, Unsigned, canonicalize_json, canonicalize_value,
    end_of_string, is_canonical, verify_object,
};
pub use keylife::{Revocation, Revoked, Rotation, is_chain, verify_chain};
pub use message::{
    Accepted, Cancel, Chunk, ChunkAck, Event, Heartbeat, Malformed, Message, Punch, PunchError, PunchStart, Query,
    QueryResp, Relay, RelayError, Task, TaskAnswer, WireError,
};
pub use record::{MAX_RECORD_TTL_S, Record, RecordDraft};
pub use role::TrackerRole;
pub use sealed::{Envelope, InvalidSealKey, NotOpened, Opening, SEALED, SealKey, Sealed, SealedKind};
