//! What docs/security.md promises of tests: each one that its table names is there.

use std::path::{Path, PathBuf};

/// All Rust files below a folder, and the file itself.
fn files(at: &Path, all: &mut Vec<PathBuf>) {
    match std::fs::read_dir(at) {
        Ok(entries) => entries.for_each(|entry| files(&entry.unwrap().path(), all)),
        Err(_) if at.extension().is_some_and(|e| e == "rs") => all.push(at.to_owned()),
        Err(_) => {}
    }
}

/// Whether there is a test of that name in a file or below a folder.
fn has_test(at: &Path, name: &str) -> bool {
    let mut all = Vec::new();
    files(at, &mut all);
    let is_there = |text: String| match name {
        "*" => text.contains("#[test]") || text.contains("#[tokio::test"),
        name => text.contains(&format!("fn {name}(")),
    };
    all.iter().any(|file| is_there(std::fs::read_to_string(file).unwrap()))
}

/// `module::test`, of tests/attacks unless it says otherwise.
fn exists(root: &Path, name: &str) -> bool {
    let (module, test) = name.rsplit_once("::").unwrap_or(("", name));
    let module = module.replace("::", "/");
    let homes = ["tests/attacks", "tests", "src"].map(|home| root.join(home).join(&module));
    let homes = homes.iter().flat_map(|home| [home.with_extension("rs"), home.clone()]);
    homes.filter(|home| home.exists()).any(|home| has_test(&home, test))
}

#[test]
fn every_test_that_the_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let rows = text.lines().skip_while(|l| !l.starts_with("| threat |")).take_while(|l| l.starts_with('|')).skip(2);
    let (mut rows_seen, mut missing) = (0, Vec::new());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        if cells[1].is_empty() {
            continue; // A heading.
        }
        rows_seen += 1;
        let names: Vec<&str> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        missing.extend(names.into_iter().filter(|name| !exists(root, name)).map(str::to_owned));
    }
    assert!(rows_seen > 40 && missing.is_empty(), "{rows_seen} rows; not there: {missing:#?}");
    // The check can fail.
    assert!(!exists(root, "tasks::nobody_wrote_this") && !exists(root, "nowhere::*"));
}
