//! Keys and node ids (stand-in until the real file is merged).
use std::path::{Path, PathBuf};

/// id
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) [u8; 32]);
impl NodeId {
    /// short
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}
impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine;
        f.write_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0))
    }
}
impl std::str::FromStr for NodeId {
    type Err = InvalidNodeId;
    fn from_str(s: &str) -> Result<Self, InvalidNodeId> {
        let _ = s;
        Err(InvalidNodeId)
    }
}
/// bad
#[derive(Debug, thiserror::Error)]
#[error("not a node id")]
pub struct InvalidNodeId;
impl serde::Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
/// identity
#[derive(Clone, Debug)]
pub struct Identity;
impl Identity {
    /// g
    pub fn generate() -> Self {
        Self
    }
    /// id
    pub fn id(&self) -> NodeId {
        todo!()
    }
    /// l
    pub fn load(_home: &Path) -> Result<Self, IdentityError> {
        todo!()
    }
    /// l
    pub fn load_or_create(_home: &Path) -> Result<(Self, bool), IdentityError> {
        todo!()
    }
    /// c
    pub fn create(_home: &Path, _force: bool) -> Result<(Self, Option<PathBuf>), IdentityError> {
        todo!()
    }
}
/// err
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// x
    #[error("x")]
    X,
}
