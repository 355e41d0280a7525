//! Command lines: splitting, finding the program.

use crate::agent::command::{ExecError, split};
use crate::agent::{Exec, ExecFailure};

use super::{NoChunks, task};

#[test]
fn words_are_split_as_a_shell_splits_them() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        (" \t\n ", &[]),
        ("a", &["a"]),
        ("  a  b\tc\n", &["a", "b", "c"]),
        ("'a b' c", &["a b", "c"]),
        ("\"a b\" c", &["a b", "c"]),
        ("a'b c'd", &["ab cd"]),
        ("''", &[""]),
        ("a '' \"\" b", &["a", "", "", "b"]),
        (r"a\ b", &["a b"]),
        (r"\'a\'", &["'a'"]),
        (r"'a\b'", &[r"a\b"]),
        (r"'a'\''b'", &["a'b"]),
        (r#""a\"b""#, &["a\"b"]),
        (r#""a\\b""#, &[r"a\b"]),
        (r#""\$x \`y""#, &["$x `y"]),
        (r#""a\nb""#, &[r"a\nb"]),
        (r"a\nb", &["anb"]),
        ("a\\\nb", &["ab"]),
        ("\"a\\\nb\"", &["ab"]),
        ("\"it's\" 'say \"hi\"'", &["it's", "say \"hi\""]),
        ("jq '.payload | keys'", &["jq", ".payload | keys"]),
        ("a $HOME *.rs | b > c", &["a", "$HOME", "*.rs", "|", "b", ">", "c"]),
        ("naïve 'œuf 🥚'", &["naïve", "œuf 🥚"]),
    ];
    for (command, words) in table {
        assert_eq!(split(command).unwrap(), *words, "{command:?}");
    }
}

#[test]
fn a_command_that_makes_no_sense_is_refused_at_the_start() {
    let error = |command: &str| Exec::new(command, false).unwrap_err().to_string();
    assert!(error("").contains("empty"));
    assert!(error("  ").contains("empty"));
    assert!(error("''").contains("empty"));
    assert!(error("cat\0").contains("NUL"));
    assert!(error("cat \\").contains("backslash"));
    assert!(error("cat 'x").contains("unbalanced ' (opened at character 5)"));
    assert!(error("cat \"x\\\"").contains("unbalanced \" (opened at character 5)"));
    assert_eq!(Exec::new(" ", true).unwrap_err(), ExecError::Empty);
}

#[test]
fn a_program_that_cannot_be_run_is_refused_at_the_start() {
    let error = |command: &str| Exec::new(command, false).unwrap_err().to_string();
    let missing = error("elo-no-such-program --now");
    assert!(missing.contains("elo-no-such-program"), "{missing}");
    assert!(missing.contains("PATH"), "{missing}");
    assert!(error("./elo-no-such-program").contains("no such file"));
    assert!(error("/tmp").contains("not a file"));

    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("agent.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let refused = error(script.to_str().unwrap());
    assert!(refused.contains("not executable"), "{refused}");
}

#[tokio::test]
async fn a_program_that_vanishes_is_a_failure_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("cat");
    std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
    let exec = Exec::new(program.to_str().unwrap(), false).unwrap();
    drop(folder);
    let failure = exec.run_value(task("1"), NoChunks).await.unwrap_err();
    assert!(matches!(failure, ExecFailure::Gone(_)), "{failure}");
    assert!(failure.to_string().contains("cat"), "{failure}");
}
