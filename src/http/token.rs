//! The token of the HTTP API: who can read the node's home has it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::private_file;

/// The file in the node's home.
pub(crate) const NAME: &str = "http.token";

/// How long a token may be that somebody wrote there: from what can't be guessed to what fits into a header.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=256;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Others than the owner may read it, or have it replaced.
    #[error(
        "{0} can be read by others: `chmod 600` it, and replace it if somebody may have read it (delete it, and a new one is made)"
    )]
    Open(PathBuf),
    /// There is something else in the file.
    #[error("{0} holds no token: 32 to 256 letters, digits, `-`, `.`, `_` or `~` (delete it, and one is made)")]
    Malformed(PathBuf),
    /// It can't be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// What whoever asks has to show. Kept as its hash: what is compared then says nothing about the token by the time it takes.
#[derive(Clone)]
pub(crate) struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// This text.
    pub(crate) fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The one in the home; a new one if there is none.
    pub(crate) fn load_or_create(home: &Path) -> Result<Self, TokenError> {
        let path = home.join(NAME);
        let failed = |e| TokenError::Io(path.clone(), e);
        if let Some(token) = Self::load(&path)? {
            return Ok(token);
        }
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        let line = Zeroizing::new(format!("{}\n", *text));
        private_file::write_new(&path, line.as_bytes()).map_err(failed)?;
        Ok(Self::new(&text))
    }

    fn load(path: &Path) -> Result<Option<Self>, TokenError> {
        let failed = |e| TokenError::Io(path.to_owned(), e);
        let Some(content) = private_file::read_bounded(path, 1024).map_err(failed)? else { return Ok(None) };
        let content = Zeroizing::new(content);
        if is_open(&std::fs::metadata(path).map_err(failed)?) {
            return Err(TokenError::Open(path.to_owned()));
        }
        let text = std::str::from_utf8(&content).unwrap_or_default().trim();
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
        if !LENGTH.contains(&text.len()) || !text.bytes().all(plain) {
            return Err(TokenError::Malformed(path.to_owned()));
        }
        Ok(Some(Self::new(text)))
    }

    /// Whether this text is it, in a time that says nothing about how much of it is right.
    pub(crate) fn is(&self, text: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.0.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

#[cfg(unix)]
fn is_open(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_read_after() {
        let home = tempfile::tempdir().unwrap();
        Token::load_or_create(home.path()).unwrap();
        let text = std::fs::read_to_string(home.path().join(NAME)).unwrap();
        assert_eq!(text.trim().len(), 43);
        let token = Token::load_or_create(home.path()).unwrap();
        assert!(token.is(text.trim()));
        assert!(!token.is("") && !token.is(&text) && !token.is(&text[1..43]));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        Token::load_or_create(home.path()).unwrap();
        let path = home.path().join(NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for open in [0o640, 0o604, 0o620, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(open)).unwrap();
            assert!(matches!(Token::load_or_create(home.path()), Err(TokenError::Open(_))), "{open:o}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        for wrong in ["", "short", "with a space in it, though it is long enough", &"x".repeat(257)] {
            drop(std::fs::remove_file(&path));
            private_file::write_new(&path, wrong.as_bytes()).unwrap();
            assert!(matches!(Token::load_or_create(home.path()), Err(TokenError::Malformed(_))), "{wrong:?}");
        }
        std::fs::write(&path, "own-token.of_somebody~who-likes-it-so").unwrap();
        assert!(Token::load_or_create(home.path()).unwrap().is("own-token.of_somebody~who-likes-it-so"));
    }
}
