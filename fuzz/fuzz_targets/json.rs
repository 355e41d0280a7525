//! Any bytes are refused or understood, never a panic; and the canonical form is a fixed point.

#![no_main]

use bytes::Bytes;
use elo::wire::{Object, canonicalize_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let canonical = canonicalize_json(data);
    if let Ok(once) = &canonical {
        assert_eq!(&canonicalize_json(once).unwrap(), once);
    }
    let Ok(object) = Object::parse(Bytes::copy_from_slice(data)) else {
        return;
    };
    let canonical = canonical.expect("an object is a value");
    assert_eq!(object.canonical(), canonical);
    assert_eq!(object.is_canonical(), canonical == data);
    let again = Object::parse(canonical.into()).unwrap();
    assert!(again.is_canonical());
    let names: Vec<String> = object.members().map(|(name, _)| name.to_owned()).collect();
    assert!(again.members().map(|(name, _)| name).eq(names.iter()));
    for name in &names {
        let changed = object.with_member(name, b"1");
        assert_eq!(changed.get(name), Some(&b"1"[..]));
        assert!(Object::parse(changed.raw().clone()).is_ok());
        let _ = (
            object.str(name),
            object.strings(name),
            object.u64(name),
            object.children(name),
        );
        if let Some(Ok(child)) = object.child(name) {
            let of_again = again.child(name).unwrap().unwrap();
            assert_eq!(child.canonical(), *of_again.raw());
        }
        object.signing_bytes(&[name]);
    }
});
