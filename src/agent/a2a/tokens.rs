//! The tokens that outside agents ask for: a file in the node's home, read by its owner alone.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::private_file;

/// The file in the node's home.
pub(crate) const NAME: &str = "a2a.tokens";

/// The most bytes of it, and of a token.
const MAX_FILE: u64 = 64 * 1024;
const MAX_TOKEN: usize = 4096;

/// Tokens by the URL of their agent.
#[derive(Default)]
pub(crate) struct Tokens(HashMap<String, Zeroizing<String>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Tokens {
    /// Those in a home, if there are any. The error says what is wrong about the file.
    pub(crate) fn load(home: &Path) -> Result<Self, String> {
        let path = home.join(NAME);
        let failed = |why: String| format!("{}: {why}", path.display());
        let Some(content) = private_file::read_bounded(&path, MAX_FILE).map_err(|e| failed(e.to_string()))? else {
            return Ok(Self::default());
        };
        let content = Zeroizing::new(content);
        if is_open(&path) {
            return Err(failed("others can read it: `chmod 600` it".to_owned()));
        }
        let text = std::str::from_utf8(&content).map_err(|_| failed("it is no text".to_owned()))?;
        let mut tokens = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || failed(format!("line {} is not `URL TOKEN`", number + 1));
            let (url, token) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let token = token.trim();
            let plain = token.bytes().all(|c| c.is_ascii_graphic());
            if !url.contains("://") || token.is_empty() || token.len() > MAX_TOKEN || !plain {
                return Err(wrong());
            }
            tokens.insert(plain_url(url).to_owned(), Zeroizing::new(token.to_owned()));
        }
        Ok(Self(tokens))
    }

    /// The one for an agent.
    pub(crate) fn of(&self, url: &str) -> Option<&str> {
        self.0.get(plain_url(url)).map(|token| token.as_str())
    }
}

fn plain_url(url: &str) -> &str {
    url.trim_end_matches('/')
}

#[cfg(unix)]
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_token() {
        let home = tempfile::tempdir().unwrap();
        assert!(Tokens::load(home.path()).unwrap().of("http://h/").is_none());
        let text = "# of the house\n\nhttp://h:1/ abc\nhttps://other/a2a  x.y-z\n";
        private_file::write_new(&home.path().join(NAME), text.as_bytes()).unwrap();
        let tokens = Tokens::load(home.path()).unwrap();
        assert_eq!(tokens.of("http://h:1"), Some("abc"));
        assert_eq!(tokens.of("https://other/a2a/"), Some("x.y-z"));
        assert_eq!(tokens.of("https://other"), None);
        assert!(!format!("{tokens:?}").contains("abc"));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told() {
        for wrong in ["http://h", "h abc", "http://h a b", "http://h a\u{e4}"] {
            let home = tempfile::tempdir().unwrap();
            private_file::write_new(&home.path().join(NAME), wrong.as_bytes()).unwrap();
            assert!(Tokens::load(home.path()).unwrap_err().contains("line 1"), "{wrong}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(NAME);
        private_file::write_new(&path, b"http://h abc").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Tokens::load(home.path()).unwrap_err().contains("chmod 600"));
    }
}
