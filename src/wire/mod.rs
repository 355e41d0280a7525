//! What goes over the wire: how messages are framed, read, written in canonical form and signed.
//!
//! This floor is pure: no I/O, no clock, no random generator of its own.
//!
//! - [`codec`]: bytes of a stream into the bytes of messages, and back
//! - [`json`]: the bytes of a message into a checked [`Object`], canonical form, [`Builder`], signatures

pub mod codec;
pub mod json;

pub use codec::{Codec, CodecError, Framing};
pub use json::{
    Builder, FieldError, JsonError, Object, SignatureError, canonicalize_json, canonicalize_value,
    verify_object,
};
