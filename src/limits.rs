//! Every limit of the node in one place, each with the reason for its size.

/// How many objects and arrays of a message may be open at once. Messages need about eight; Python's `json` module
/// gives up near a thousand. 64 leaves room for payloads and keeps every walk over a message shallow.
pub const MAX_JSON_DEPTH: usize = 64;

/// Most digits an integer in a message may have. Python's `int()` refuses longer ones (`sys.int_info`), so an agent
/// written in Python could not read them.
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Longest message after the handshake, in bytes without its terminator: 1 MiB. Large enough for a long prompt with
/// documents, small enough that a full set of peers can each have one in memory.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Longest message before the handshake is done, in bytes without its terminator: 16 KiB. A stranger can't make us
/// hold more than this.
pub const MAX_HANDSHAKE_MESSAGE: usize = 16 * 1024;
