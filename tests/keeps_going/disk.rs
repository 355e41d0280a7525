//! A disk that is full, or may only be read. They need root and `unshare`; see `tests/spaces`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::answered;
use super::common::{Home, Ran, Serve, run};
use super::mesh::{addr_of, eventually, node};
use super::spaces::may_be_made;

/// `elo` where the home is a disk of its own: `prepare` is what a shell does with it first, as `$HOME_FOLDER`.
fn on_disk(home: &Home, prepare: &str, args: &[&str]) -> Command {
    std::fs::create_dir_all(home.path()).unwrap();
    let elo = home.remembering(args.iter().copied());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", &format!("{prepare}; exec \"$0\" \"$@\"")]);
    command.arg(elo.get_program()).args(elo.get_args()).env_clear();
    command.envs(elo.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("HOME_FOLDER", home.path());
    command
}

/// A disk of 64 KiB with the key, if there is one, and nothing free.
const FULL: &str = "cp -p \"$HOME_FOLDER/identity.seed\" /tmp/.elo-key-$$ 2>/dev/null || :; \
    mount -t tmpfs -o size=64k,mode=0700 none \"$HOME_FOLDER\"; \
    mv /tmp/.elo-key-$$ \"$HOME_FOLDER/identity.seed\" 2>/dev/null || :; \
    dd if=/dev/zero of=\"$HOME_FOLDER/filler\" bs=1k 2>/dev/null || :";

const READ_ONLY: &str = "mount --bind \"$HOME_FOLDER\" \"$HOME_FOLDER\"; mount -o remount,ro,bind \"$HOME_FOLDER\"";

const SERVE: [&str; 8] = ["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "echo"];

/// The home as that process sees it.
fn seen_by(node: &Serve, home: &Home) -> PathBuf {
    Path::new("/proc").join(node.child.0.id().to_string()).join("root").join(home.path().strip_prefix("/").unwrap())
}

/// `elo` that talks to a node in another mount namespace.
fn ask(home: &Home, seen: &Path, args: &[&str]) -> Ran {
    let mut command = home.command(args.iter().copied());
    command.env("ELO_HOME", seen);
    run(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_full_disk_works_and_says_what_is_not_saved() {
    if !may_be_made(&["unshare"]) {
        return;
    }
    let home = Home::new();
    home.run(["init"]).ok();
    let key = std::fs::read(home.file("identity.seed")).unwrap();
    let peer = node("peer").start().await.unwrap();
    let to = addr_of(&peer);
    let args = [&SERVE[..], &["--peer", &to]].concat();
    let provider = Serve::start(on_disk(&home, FULL, &args));
    answered(&peer, &provider.id(), json!(1)).await;
    let seen = seen_by(&provider, &home);
    let remembered = || {
        let status = ask(&home, &seen, &["status", "--json"]).json();
        let all = status["node"]["discovery"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["name"] == "remembered").unwrap()
    };
    eventually("it says that peers are not remembered", || {
        let health = remembered();
        health["state"] == "failing" && health["detail"].as_str().unwrap().contains("space")
    })
    .await;
    assert_eq!(std::fs::read(seen.join("identity.seed")).unwrap(), key, "the key is whole");
    // There is room again, and somebody else is met.
    std::fs::remove_file(seen.join("filler")).unwrap();
    let other = super::mesh::peered("other", &[&peer]).await;
    let call = ask(&home, &seen, &["call", "ping", "1", "--to", &other.id().to_string()]);
    call.ok();
    eventually("peers are remembered again", || {
        remembered()["state"] == "on" && seen.join("peers.json").metadata().is_ok_and(|m| m.len() > 0)
    })
    .await;
    provider.signal(rustix::process::Signal::TERM);
    let (code, errors) = provider.ended();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("remembered for this run only"), "{errors}");
}

#[test]
fn a_full_disk_leaves_no_half_of_a_key() {
    if !may_be_made(&["unshare"]) {
        return;
    }
    let home = Home::new();
    for args in [&["init"][..], &SERVE] {
        // What is left in the home after the command is looked at by a shell in the same namespace.
        let mut command = on_disk(&home, FULL, args);
        let shell = format!("{FULL}; \"$0\" \"$@\" && exit 9; ls -A \"$HOME_FOLDER\"");
        let line: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let mut shown = Command::new(command.get_program());
        shown.args(&line[..3]).arg(shell).args(&line[4..]).env_clear();
        shown.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = shown;
        let ran = run(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("space") && !ran.stderr.contains("panicked"), "{ran:?}");
        assert!(!ran.stdout.contains("identity"), "something like a key is left: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_may_only_be_read_serves() {
    if !may_be_made(&["unshare"]) {
        return;
    }
    let home = Home::new();
    let ran = run(on_disk(&home, READ_ONLY, &SERVE));
    ran.failed(1, "Read-only");
    home.run(["init"]).ok();
    let key = std::fs::read(home.file("identity.seed")).unwrap();
    let peer = node("peer").start().await.unwrap();
    let to = addr_of(&peer);
    let args = [&SERVE[..], &["--peer", &to]].concat();
    let provider = Serve::start(on_disk(&home, READ_ONLY, &args));
    answered(&peer, &provider.id(), json!(1)).await;
    provider.signal(rustix::process::Signal::TERM);
    let (code, errors) = provider.ended();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("without a control socket") && errors.contains("nothing is saved"), "{errors}");
    assert_eq!(std::fs::read(home.file("identity.seed")).unwrap(), key);
}
