//! Rotating and revoking keys, and passphrases, through the command.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use common::terminal::{has_python, sit};
use common::{Home, Ran, Serve, eventually, mode, run};
use serde_json::json;

/// The exit code of a key that stays closed.
const LOCKED: i32 = 5;

fn id(home: &Home) -> String {
    home.run(["id"]).ok().trim().to_owned()
}

fn with_passphrase(home: &Home, passphrase: &str, args: &[&str]) -> Ran {
    let mut command = home.command(args);
    command.env("ELO_PASSPHRASE", passphrase);
    run(command)
}

#[test]
fn rotating_gives_another_id_and_keeps_the_old_key() {
    let home = Home::new();
    home.run(["rotate"]).failed(1, "elo init");
    home.run(["init"]).ok();
    let old = id(&home);
    let before = std::fs::read(home.file("identity.seed")).unwrap();
    let done = home.run(["rotate", "--json"]).json();
    assert_eq!((done["old"].as_str().unwrap(), done["restarted"].as_bool()), (old.as_str(), Some(false)));
    assert_eq!(done["new"].as_str().unwrap(), id(&home));
    assert_ne!(old, id(&home));
    assert_eq!(std::fs::read(done["backup"].as_str().unwrap()).unwrap(), before);
    for file in ["identity.seed", "identity.seed.bak-1", "succession.json"] {
        assert_eq!(mode(home.file(file)), 0o600, "{file}");
    }
    home.write("succession.json", "{}");
    home.run(["rotate"]).failed(1, "succession.json is damaged");
    home.run(["serve", "--port", "0"]).failed(1, "succession.json is damaged");
}

#[test]
fn a_running_node_takes_its_new_key_and_loses_no_task_at_work() {
    let home = Home::new();
    let node = home.serve(&["--agent", "slow", "--exec", "sh -c 'echo begun >&2; sleep 2; echo done'", "--exec-shell"]);
    let (old, addr) = (node.id(), node.addr());
    let other = Home::new();
    let peer = other.serve(&["--peer", &format!("{old}@{addr}")]);
    peer.event("peer_connected");
    let call = std::thread::scope(|scope| {
        let call = scope.spawn(|| other.run(["call", "slow", "--to", &old, "--timeout", "30s"]));
        node.event("task_received");
        let done = home.run(["rotate", "--json"]).json();
        assert_eq!((done["old"].as_str(), done["restarted"].as_bool()), (Some(old.as_str()), Some(true)));
        assert_eq!(done["listen"][0].as_str(), Some(addr.as_str()), "it is back where it was");
        let rotated = node.event("rotated");
        assert_eq!(rotated["new"], done["new"]);
        call.join().unwrap()
    });
    assert_eq!(call.ok().trim(), "done");
    let new = id(&home);
    let said = peer.event("id_replaced");
    assert_eq!((said["old"].as_str(), said["new"].as_str()), (Some(old.as_str()), Some(new.as_str())));
    assert_eq!(home.run(["status", "--json"]).json()["node"]["node_id"], new.as_str());
    // By its old id as by its new one; and the node's own commands go to it as before.
    eventually("the peer is back", || other.run(["call", "ping", "--to", &old]).code == 0);
    home.run(["rotate"]).ok();
    home.run(["stop"]).ok();
    assert_eq!(node.ended().0, 0);

    // It starts again as what it is now, and who slept through it all is led there.
    let again =
        Serve::start(home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "slow"]));
    assert_eq!(again.id(), id(&home));
    let late = Home::new();
    let late = late.serve(&["--peer", &format!("{old}@{}", again.addr())]);
    let said = late.event("id_replaced");
    assert_eq!((said["old"].as_str(), said["new"].as_str()), (Some(old.as_str()), Some(again.id().as_str())));
    drop(peer);
}

#[test]
fn allowed_and_denied_ids_are_so_by_any_key_of_theirs() {
    let home = Home::new();
    home.run(["init"]).ok();
    let old = id(&home);
    let private = Home::new();
    private.run(["allow", &format!(" {old}")]).ok();
    let private_node = private.serve(&["--tracker", "--private"]);
    let public = Home::new();
    public.run(["deny", &format!(" {old}")]).ok();
    let public_node = public.serve(&[]);
    home.run(["rotate"]).ok();
    let node = home.serve(&["--peer", &private_node.addr(), "--peer", &public_node.addr()]);
    assert_eq!(private_node.event("peer_connected")["node_id"], node.id().as_str());
    let refused = node.event("dial_failed");
    assert!(refused["message"].as_str().unwrap().contains("denied"), "{refused}");
    // Who was followed is told, by the running node and by the home alone.
    let new = id(&home);
    let followed = |home: &Home| {
        let listed = home.run(["access", "--json"]).json_lines();
        listed.iter().any(|e| e["access"] == "replaced" && e["node_id"] == old.as_str() && e["new"] == new.as_str())
    };
    eventually("it is listed", || followed(&private));
    let text = private.run(["access"]).ok();
    assert!(text.contains(&format!("  {old} is now\n  {new}\n")), "{text}");
    assert!(text.lines().skip(1).all(|line| line.chars().count() < 80), "{text}");
    assert_eq!(refused["peer"].as_str().unwrap(), public_node.addr());
    public.run(["revoke", &format!(" {old}")]).ok();
    public_node.event("peer_connected");
}

#[test]
fn a_revocation_is_kept_offline_and_published_later_by_somebody_else() {
    let bad = Home::new();
    bad.run(["init"]).ok();
    let name = id(&bad);
    let statement = bad.file("revocation.json");
    let made = bad.run(["revoke", "--self", "--reason", "laptop stolen", "--out", statement.to_str().unwrap()]).ok();
    assert!(made.contains("nobody was told"), "{made}");
    assert_eq!(mode(&statement), 0o600);
    bad.run(["revoke", "--self", "--out", statement.to_str().unwrap()]).failed(1, "exists");
    bad.run(["revoke"]).failed(2, "--self");
    bad.run(["revoke", "--self"]).failed(2, "--yes");

    let tracker = Home::new();
    let tracker_node = tracker.serve(&["--tracker"]);
    let node = bad.serve(&["--peer", &tracker_node.addr()]);
    let friend = Home::new();
    let friend_node = friend.serve(&["--peer", &tracker_node.addr(), "--peer", &format!("{name}@{}", node.addr())]);
    eventually("all are connected", || {
        let peers = |home: &Home| home.run(["peers", "--json"]).json_lines().len();
        peers(&tracker) == 2 && peers(&friend) == 2
    });
    // Another reason than was signed.
    let text = std::fs::read_to_string(&statement).unwrap();
    let forged = friend.write("forged.json", text.replace("stolen", "found"));
    friend.run(["revoke", "--statement", forged.to_str().unwrap(), "--yes"]).failed(1, "no revocation");
    let done = friend.run(["revoke", "--statement", statement.to_str().unwrap(), "--yes", "--json"]).json();
    assert_eq!((done["node_id"].as_str(), done["told"].as_u64()), (Some(name.as_str()), Some(1)));
    for hears in [&tracker_node, &friend_node] {
        let said = hears.event("id_revoked");
        assert_eq!((said["node_id"].as_str(), said["reason"].as_str()), (Some(name.as_str()), Some("laptop stolen")));
    }
    let refused = node.event("dial_failed");
    assert!(refused["message"].as_str().unwrap().contains("revoked"), "{refused}");
    // Those who know know it after they were gone.
    tracker.run(["stop"]).ok();
    assert_eq!(tracker_node.ended().0, 0);
    assert_eq!(mode(tracker.file("keylife.json")), 0o600);
    let text = tracker.run(["access"]).ok();
    assert!(text.contains(&format!("  {name}  # laptop stolen\n")), "{text}");
    let tracker_node = tracker.serve(&["--tracker"]);
    let ran = bad.run(["call", "ping", "--peer", &tracker_node.addr()]);
    // The running node's own key is in use: this one goes with a fresh one, and is let in.
    assert_eq!(ran.code, 0, "{ran:?}");
    bad.run(["stop"]).ok();
    node.ended();
    bad.run(["call", "ping", "--peer", &tracker_node.addr()]).failed(3, "revoked");
    drop(friend_node);
}

#[test]
fn a_node_that_revokes_itself_stops_and_does_not_come_back() {
    let home = Home::new();
    let other = Home::new();
    let peer = other.serve(&[]);
    let node = home.serve(&["--peer", &peer.addr()]);
    node.event("peer_connected");
    let name = node.id();
    home.run(["revoke", "--self", "--yes"]).ok();
    assert_eq!(node.ended().0, 0);
    assert_eq!(peer.event("id_revoked")["node_id"], name.as_str());
    assert!(home.run(["status"]).stdout.contains("revoked: nobody will talk to it"));
    home.run(["serve", "--port", "0", "--bind", "127.0.0.1"]).failed(2, "needs a new key");
    home.run(["init", "--force"]).ok();
    let node = home.serve(&["--peer", &peer.addr()]);
    node.event("peer_connected");
}

#[test]
fn a_key_is_revoked_without_a_running_node_and_an_old_one_by_its_backup() {
    let home = Home::new();
    home.run(["init"]).ok();
    let first = id(&home);
    home.run(["rotate"]).ok();
    let second = id(&home);
    home.run(["revoke", "--self", "--yes"]).failed(3, "elo serve");
    home.run(["id"]).ok();
    let other = Home::new();
    let peer = other.serve(&[]);
    let backup = home.file("identity.seed.bak-1");
    let key = backup.to_str().unwrap();
    home.run(["revoke", "--self", "--key", key, "--yes", "--peer", &peer.addr()]).ok();
    // An id that the peer never met is no news for its owner, but it is remembered and told on.
    eventually("it is written down", || {
        std::fs::read_to_string(other.file("keylife.json")).is_ok_and(|t| t.contains(&first))
    });
    home.run(["revoke", "--self", "--yes", "--peer", &peer.addr()]).ok();
    assert_eq!(peer.event("id_revoked")["node_id"], second.as_str());
}

#[test]
fn a_key_under_a_passphrase_opens_with_it_alone() {
    let home = Home::new();
    home.run(["init", "--passphrase"]).failed(2, "ELO_PASSPHRASE_FILE");
    with_passphrase(&home, "short", &["init", "--passphrase"]).failed(2, "8 to 1024");
    let made = with_passphrase(&home, "correct horse", &["init", "--passphrase", "--json"]).json();
    assert_eq!(made["locked"], true);
    let file = std::fs::read_to_string(home.file("identity.seed")).unwrap();
    assert!(file.contains("argon2id") && !file.contains("PRIVATE KEY"), "{file}");
    assert_eq!(mode(home.file("identity.seed")), 0o600);
    // Who it is is no secret.
    assert_eq!(made["node_id"].as_str().unwrap(), id(&home));
    home.run(["pubkey"]).ok();
    home.run(["status"]).failed(1, "");

    let serve = ["serve", "--json", "--bind", "127.0.0.1", "--port", "0"];
    home.run(serve).failed(LOCKED, "ELO_PASSPHRASE_FILE");
    with_passphrase(&home, "wrong horse", &serve).failed(LOCKED, "wrong passphrase");
    let mut command = home.command(serve);
    command.env("ELO_PASSPHRASE", "correct horse");
    let node = Serve::start(command);
    assert_eq!(node.id(), id(&home));
    // What comes over the control socket needs none; a new key does, and is under it again.
    home.run(["peers"]).ok();
    home.run(["rotate"]).failed(LOCKED, "passphrase");
    with_passphrase(&home, "wrong horse", &["rotate"]).failed(LOCKED, "wrong passphrase");
    with_passphrase(&home, "correct horse", &["rotate"]).ok();
    let file = std::fs::read_to_string(home.file("identity.seed")).unwrap();
    assert!(file.contains("argon2id") && file.contains(&id(&home)), "{file}");
    home.run(["stop"]).ok();
    node.ended();

    // From a file: its first line.
    let secret = home.write("secret", "correct horse\nmore\n");
    let mut command = home.command(["rotate", "--json"]);
    command.env("ELO_PASSPHRASE_FILE", &secret);
    run(command).json();
    let mut command = home.command(["rotate"]);
    command.env("ELO_PASSPHRASE_FILE", home.file("nothing"));
    run(command).failed(LOCKED, "no such file");
}

#[test]
fn a_passphrase_is_set_changed_and_taken_away() {
    let home = Home::new();
    home.run(["passphrase"]).failed(1, "elo init");
    home.run(["init"]).ok();
    let name = id(&home);
    let plain = std::fs::read_to_string(home.file("identity.seed")).unwrap();
    let change = |now: &str, new: &str, args: &[&str]| {
        let mut command = home.command([&["passphrase", "--json"], args].concat());
        command.env("ELO_PASSPHRASE", now).env("ELO_NEW_PASSPHRASE", new);
        run(command)
    };
    change("", "", &[]).failed(2, "ELO_NEW_PASSPHRASE_FILE");
    change("", "first one", &[]).ok();
    assert!(!std::fs::read_to_string(home.file("identity.seed")).unwrap().contains("PRIVATE KEY"));
    change("second one", "second one", &[]).failed(LOCKED, "wrong passphrase");
    change("first one", "second one", &[]).ok();
    with_passphrase(&home, "first one", &["rotate"]).failed(LOCKED, "wrong passphrase");
    change("second one", "", &["--remove"]).ok();
    assert_eq!(std::fs::read_to_string(home.file("identity.seed")).unwrap(), plain, "the same key, as it was");
    assert_eq!(id(&home), name);
    // A backup that is under none is named.
    home.run(["rotate"]).ok();
    let done = change("", "third one", &[]).json();
    assert_eq!(done["unlocked_copies"], json!(["identity.seed.bak-1"]));
}

#[test]
fn a_locked_key_that_is_damaged_or_asks_for_too_much_is_refused_and_left_alone() {
    let home = Home::new();
    with_passphrase(&home, "correct horse", &["init", "--passphrase"]).ok();
    let good = std::fs::read_to_string(home.file("identity.seed")).unwrap();
    let absurd = [
        ("\"memory_kib\":65536", "\"memory_kib\":4294967295"),
        ("\"passes\":3", "\"passes\":4294967295"),
        ("\"lanes\":4", "\"lanes\":16777215"),
        ("\"kdf\":\"argon2id\"", "\"kdf\":\"none\""),
        ("\"version\":1", "\"version\":2"),
    ];
    let mut damaged: Vec<String> = absurd.iter().map(|(from, to)| good.replacen(from, to, 1)).collect();
    damaged.extend([good[..good.len() / 2].to_owned(), "{}".to_owned(), "{".to_owned()]);
    for text in damaged {
        assert_ne!(text, good);
        home.write("identity.seed", &text);
        for args in [&["rotate"][..], &["serve", "--port", "0"], &["passphrase", "--remove"], &["id"]] {
            with_passphrase(&home, "correct horse", args).failed(1, "damaged");
        }
        assert_eq!(std::fs::read_to_string(home.file("identity.seed")).unwrap(), text);
    }
    // A changed box is not told from a wrong passphrase.
    let at = good.find("\"box\":\"").unwrap() + 8;
    let other = if &good[at..=at] == "A" { "B" } else { "A" };
    home.write("identity.seed", format!("{}{other}{}", &good[..at], &good[at + 1..]));
    with_passphrase(&home, "correct horse", &["rotate"]).failed(LOCKED, "wrong passphrase");
}

#[test]
fn a_program_that_answers_is_not_told_the_passphrase() {
    let home = Home::new();
    let mut command =
        home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "env", "--exec", "env"]);
    command.env("ELO_PASSPHRASE", "correct horse");
    let node = Serve::start(command);
    assert!(std::fs::read_to_string(home.file("identity.seed")).unwrap().contains("argon2id"), "a new key is under it");
    let said = home.run(["call", "env", "--to", &node.id()]).ok();
    assert!(said.contains("ELO_CAPABILITY") && !said.contains("correct horse"), "{said}");
}

#[test]
fn a_person_is_asked_and_nothing_of_it_is_shown() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    let secret = "correct horse";
    let new = json!([
        ["expect", "New passphrase:"],
        ["send", "one thing\r"],
        ["expect", "The same again:"],
        ["send", "another\r"],
        ["expect", "two different"],
        ["expect", "New passphrase:"],
        ["send", format!("{secret}\r")],
        ["expect", "The same again:"],
        ["send", format!("{secret}\r")],
        ["expect", "new identity"],
        ["code", 0]
    ]);
    let ran = sit(&home, &["init", "--passphrase"], &new);
    assert!(!ran.stdout.contains(secret) && !ran.stdout.contains("one thing"), "{ran:?}");
    ran.ok();
    let serve = json!([
        ["expect", "Passphrase:"],
        ["send", "wrong horse\r"],
        ["expect", "wrong passphrase"],
        ["expect", "Passphrase:"],
        ["send", format!("{secret}\r")],
        ["expect", "ready:"],
        ["expect", "elo> "],
        ["send", "quit\r"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    let ran = sit(&home, &["serve", "--bind", "127.0.0.1", "--port", "0"], &serve);
    assert!(!ran.stdout.contains(secret) && !ran.stdout.contains("wrong horse"), "{ran:?}");
    ran.ok();
    let thrice = json!([
        ["expect", "Passphrase:"],
        ["send", "a\r"],
        ["expect", "Passphrase:"],
        ["send", "b\r"],
        ["expect", "Passphrase:"],
        ["send", "c\r"],
        ["expect", "wrong passphrase for the key"],
        ["code", LOCKED]
    ]);
    sit(&home, &["rotate"], &thrice).ok();
    let asked = json!([
        ["expect", "Passphrase:"],
        ["send", format!("{secret}\r")],
        ["expect", "Type yes"],
        ["send", "no\r"],
        ["expect", "nothing was done"],
        ["code", 1]
    ]);
    sit(&home, &["revoke", "--self"], &asked).ok();
}
