//! The key of a home, through the command.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Home, mode};

#[test]
fn init_makes_a_private_key_once() {
    let home = Home::new();
    let said = home.run(["init"]).ok();
    let id = home.run(["id"]).ok().trim().to_owned();
    assert_eq!(id.len(), 43);
    assert!(said.contains(&id), "{said}");
    assert_eq!(mode(home.file("identity.seed")), 0o600);
    assert_eq!(mode(home.path()), 0o700);
    home.run(["init"]).failed(1, "already");
    home.run(["init"]).failed(1, "init --force");
    assert_eq!(home.run(["id"]).ok().trim(), id);
}

#[test]
fn force_keeps_the_old_key() {
    let home = Home::new();
    let first = home.run(["init", "--json"]).json();
    assert!(first["backup"].is_null());
    let old = std::fs::read(home.file("identity.seed")).unwrap();
    let second = home.run(["init", "--force", "--json"]).json();
    assert_ne!(first["node_id"], second["node_id"]);
    let backup = second["backup"].as_str().unwrap();
    assert_eq!(std::fs::read(backup).unwrap(), old);
    assert_eq!(mode(backup), 0o600);
}

#[test]
fn every_form_of_the_public_key_is_the_same_key() {
    let home = Home::new();
    home.run(["init"]).ok();
    let key = home.run(["pubkey", "--json"]).json();
    let id = home.run(["id", "--json"]).json();
    assert_eq!(key["node_id"], id["node_id"]);
    assert_eq!(key["base64url"], id["node_id"]);
    assert_eq!(key["hex"].as_str().unwrap().len(), 64);
    assert!(key["pem"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw"));
    let text = home.run(["pubkey"]).ok();
    for form in ["node_id", "hex", "base64"] {
        assert!(text.contains(key[form].as_str().unwrap()), "{text}");
    }
}

#[test]
fn a_key_others_can_read_is_refused_with_what_mends_it() {
    let home = Home::new();
    home.run(["init"]).ok();
    let file = home.file("identity.seed");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    for args in [&["id"][..], &["pubkey"], &["status"], &["serve", "--port", "0"]] {
        home.run(args).failed(1, "chmod 600");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.run(["id"]).ok();
}

#[test]
fn a_damaged_key_is_refused_and_never_overwritten() {
    let home = Home::new();
    home.run(["init"]).ok();
    home.write("identity.seed", "not a key");
    for args in [&["id"][..], &["serve", "--port", "0"], &["call", "x", "--peer", "127.0.0.1:1"]] {
        home.run(args).failed(1, "damaged");
    }
    assert_eq!(std::fs::read_to_string(home.file("identity.seed")).unwrap(), "not a key");
    home.run(["init"]).failed(1, "already");
    home.run(["init", "--force"]).ok();
    home.run(["id"]).ok();
}

#[test]
fn without_a_key_it_is_said_how_to_make_one() {
    let home = Home::new();
    home.run(["id"]).failed(1, "elo init");
    let ran = home.run(["id", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(error["error"]["exit"], 1);
    assert!(!home.path().exists(), "a question made the home folder");
}
