//! Signed JSON: a strict parser, the canonical form, and signatures over it.
//!
//! Signing JSON goes wrong where two implementations read the same bytes differently: members that appear twice,
//! numbers that lose digits, Unicode that is normalised on the way. So nothing here turns a message into a tree and
//! back. A message stays the bytes it arrived as; [`Object::parse`] checks them once, notes where each top-level
//! member lies, and whether the bytes are already in the canonical form. If they are, as with every message another
//! elo sends, the bytes a signature covers are cut out of them; only other writers' messages are re-encoded.
//!
//! The canonical form is what Python's `json.dumps(sort_keys=True, separators=(",", ":"))` prints, except that a
//! number keeps the digits it was written with.

mod builder;
mod canonical;
mod error;
mod fields;
mod number;
mod object;
mod quick;
mod scan;
mod signature;
mod strings;
mod unsigned;
mod walk;

pub use builder::Builder;
pub use canonical::{canonicalize_json, canonicalize_value, is_canonical};
pub use error::{FieldError, JsonError};
pub use object::Object;
pub(in crate::wire) use signature::plain_signature;
pub use signature::{SignatureError, verify_object};
pub use unsigned::Unsigned;
pub use walk::end_of_string;
