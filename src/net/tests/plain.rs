//! What a connection does, in plain text.

use super::*;

#[path = "connection.rs"]
mod connection;
#[path = "hostile.rs"]
mod hostile;
#[path = "rates.rs"]
mod rates;
