//! Web hooks.
