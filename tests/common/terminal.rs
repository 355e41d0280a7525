//! `elo` on a terminal, which Python makes.

use std::process::Command;

use serde_json::Value;

use super::{Home, Ran, run};

/// Whether there is a Python to make a terminal with. With `ELO_INTEROP=1` there must be.
pub fn has_python() -> bool {
    let required = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    let found = Command::new("python3").arg("--version").output().is_ok_and(|o| o.status.success());
    assert!(found || !required, "ELO_INTEROP needs python3, which makes the terminal for these tests");
    if !found {
        println!("not run: these tests need python3 to make a terminal");
    }
    found
}

/// Sits at a terminal before `elo`, and does as told.
pub fn sit(home: &Home, args: &[&str], steps: &Value) -> Ran {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/terminal.py"));
    command.arg(steps.to_string()).arg(env!("CARGO_BIN_EXE_elo")).args(args);
    command.env("ELO_HOME", home.path()).env("TERM", "xterm").env_remove("NO_COLOR");
    // As for every command here.
    command.env("ELO_NO_LAN", "true").env("ELO_DHT", "off").env("ELO_NO_REMEMBER", "true");
    run(command)
}
