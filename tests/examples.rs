//! The promises of the examples: short to read, pages that need nothing from elsewhere, and a row in docs/embedding.md.

use std::fs;
use std::path::Path;

/// The most lines of the examples that have a limit of their own; the limit of the others follows.
const SHORT: [(&str, usize); 4] = [("echo", 24), ("chat", 119), ("frames", 150), ("private_chat", 140)];
const LONGEST: usize = 130;

/// Name and text of each file there with that extension.
fn files(extension: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == extension));
    files.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn they_are_short() {
    for (name, text) in files("rs") {
        let most = SHORT.iter().find(|(short, _)| *short == name).map_or(LONGEST, |(_, most)| *most);
        let lines = text.lines().count();
        assert!(lines <= most, "examples/{name}.rs has {lines} lines, at most {most}");
    }
}

#[test]
fn the_manual_names_each() {
    let page = include_str!("../docs/embedding.md");
    let (_, table) = page.split_once("## Examples").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| [")).collect();
    let examples = files("rs");
    assert_eq!(rows.len(), examples.len(), "{rows:#?}");
    for (name, text) in examples {
        let (link, command) = (format!("| [{name}](../examples/{name}.rs) |"), format!("cargo run --example {name}"));
        assert!(rows.iter().any(|row| row.starts_with(&link) && row.contains(&command)), "{name}");
        assert!(text.contains(&command), "examples/{name}.rs does not say how to run it");
    }
}

#[test]
fn pages_load_nothing_from_elsewhere_and_make_no_markup_of_what_people_type() {
    let pages = files("html");
    assert!(pages.len() >= 4);
    for (name, page) in pages {
        let page = page.replace("'http://www.w3.org/2000/svg'", "").replace("http%3A//www.w3.org/2000/svg", "");
        for needle in [
            "http://",
            "https://",
            "=\"//",
            "url(",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
        ] {
            assert!(!page.contains(needle), "{needle} in examples/{name}.html");
        }
        for needle in
            ["<!doctype html>", "lang=\"en\"", "Content-Security-Policy", "viewport", "prefers-color-scheme: dark"]
        {
            assert!(page.contains(needle), "examples/{name}.html has no {needle}");
        }
    }
}
