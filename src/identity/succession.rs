//! `succession.json`: the statements by which a node's earlier keys handed over to the one in `identity.seed`.

use std::io::ErrorKind;
use std::path::Path;

use super::key_file::failed;
use super::{Identity, IdentityError};
use crate::limits::{MAX_ROTATIONS, MAX_STATEMENT};
use crate::private_file::{read_bounded, replace};
use crate::wire::{Builder, Object, Rotation, is_chain, verify_chain};

/// The file's name in a node's home folder.
const NAME: &str = "succession.json";

/// The most bytes of the file.
const MAX_FILE: u64 = (MAX_ROTATIONS * MAX_STATEMENT + 4096) as u64;

/// The key with the statements in `home` that lead to it.
///
/// A file may be about another key: of one that `elo init --force` replaced, or of one that a rotation was about to make
/// when it was cut off. What leads to this key counts, the rest doesn't.
pub(super) fn follow(home: &Path, identity: Identity) -> Result<Identity, IdentityError> {
    let path = home.join(NAME);
    let damaged = |reason: String| IdentityError::DamagedSuccession { path: path.clone(), reason };
    let bytes = match read_bounded(&path, MAX_FILE) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(identity),
        Err(error) if error.kind() == ErrorKind::InvalidData => return Err(damaged(error.to_string())),
        Err(error) => return Err(failed("read", &path, error)),
    };
    let mut chain = parse(bytes).map_err(damaged)?;
    let me = identity.id();
    let length = chain.iter().position(|step| step.new == me).map_or(0, |at| at + 1);
    chain.truncate(length);
    if !is_chain(&chain, &me) || verify_chain(&chain).is_err() {
        return Err(damaged("a statement in it is not signed as it must be".into()));
    }
    Ok(Identity { rotations: chain.into(), ..identity })
}

fn parse(bytes: Vec<u8>) -> Result<Vec<Rotation>, String> {
    let object = Object::parse(bytes.trim_ascii().to_vec().into()).map_err(|e| e.to_string())?;
    match object.u64("version") {
        Ok(Some(1)) => {}
        _ => return Err("it has no version, or one that this program doesn't read".to_owned()),
    }
    let list = object.children("rotations").ok_or("it has no rotations")?.map_err(|e| e.to_string())?;
    list.iter().map(|o| Rotation::parse(o).map(|step| step.kept()).map_err(|e| e.to_string())).collect()
}

/// Writes the statements that lead to the key.
pub(super) fn write(home: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let path = home.join(NAME);
    let file = Builder::untyped()
        .u64("version", 1)
        .objects("rotations", identity.rotations.iter().map(|step| &step.object))
        .build();
    let text = [file.raw(), &b"\n"[..]].concat();
    replace(&path, &text).map_err(|error| failed("write", &path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_hands_over_from_key_to_key_and_keeps_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let (first, _) = Identity::create(home, false).unwrap();
        let mut ids = vec![first.id()];
        for n in 1..=MAX_ROTATIONS + 2 {
            let rotated = Identity::rotate(home, None).unwrap();
            assert_eq!(Some(&rotated.old), ids.last());
            assert_eq!(rotated.backup, home.join(format!("identity.seed.bak-{n}")));
            let kept = Identity::from_pem(&std::fs::read_to_string(&rotated.backup).unwrap()).unwrap();
            assert_eq!(kept.id(), rotated.old);
            let read = Identity::load(home).unwrap();
            assert_eq!(read.id(), rotated.identity.id());
            assert_eq!(read.former_ids(), ids[ids.len().saturating_sub(MAX_ROTATIONS)..]);
            ids.push(read.id());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(home.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_rotation_that_was_cut_off_leaves_the_old_key_and_what_led_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let (first, _) = Identity::create(home, false).unwrap();
        let second = Identity::rotate(home, None).unwrap().identity;
        // The statement was written, the key was not.
        write(home, &second.successor()).unwrap();
        let read = Identity::load(home).unwrap();
        assert_eq!((read.id(), read.former_ids()), (second.id(), vec![first.id()]));
        // And a new beginning has no past.
        let (fresh, _) = Identity::create(home, true).unwrap();
        assert_eq!(Identity::load(home).unwrap().former_ids(), []);
        let third = Identity::rotate(home, None).unwrap().identity;
        assert_eq!(third.former_ids(), [fresh.id()]);
    }

    #[test]
    fn statements_that_are_damaged_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        Identity::create(home, false).unwrap();
        Identity::rotate(home, None).unwrap();
        let good = std::fs::read_to_string(home.join(NAME)).unwrap();
        let forged = good.replacen("\"timestamp\":1", "\"timestamp\":2", 1);
        let huge = " ".repeat(MAX_FILE as usize + 1);
        for content in ["", "{", "[]", "{\"version\":2,\"rotations\":[]}", &good[..good.len() / 2], &forged, &huge] {
            std::fs::write(home.join(NAME), content).unwrap();
            for error in [Identity::load(home).err(), Identity::rotate(home, None).err()] {
                assert!(matches!(error, Some(IdentityError::DamagedSuccession { .. })), "{error:?}");
            }
            assert_eq!(std::fs::read_to_string(home.join(NAME)).unwrap(), *content);
        }
    }
}
