//! House rules that a reader can forget and a program cannot, and that no lint has: imports go down, nothing sleeps,
//! some words stay out. The rules for clocks, sockets and system calls are in clippy.toml.
//!
//! The checkers read tokens, not text: comments and strings do not count. Each has a test of its own below that shows
//! it a source that breaks the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The floors. A module may name modules of its own floor and below; `SEPARATE` lists the exceptions. The daemon and
/// `main.rs` are the binary; a new module under `src/` gets its floor here first.
const FLOORS: [(&str, u8); 18] = [
    ("limits", 0),
    ("access", 0),
    ("proto", 0),
    ("delivery", 0),
    ("channel", 1),
    ("engine", 1),
    ("broker", 1),
    ("net", 2),
    ("server", 3),
    ("handle", 3),
    ("config", 3),
    ("fuzz", 3),
    ("relay", 4),
    ("page", 4),
    ("testing", 4),
    ("daemon", 6),
    ("load", 6),
    ("main", 6),
];
/// `lib.rs`: its re-exports are for other crates; modules below name the module that owns the thing.
const DOOR: u8 = 5;

/// The first must not name the second, although the second is not above it.
const SEPARATE: [(&str, &str); 8] = [
    ("proto", "delivery"),
    ("channel", "broker"),
    ("channel", "engine"),
    ("engine", "broker"),
    ("net", "proto"),
    ("net", "delivery"),
    ("net", "channel"),
    ("net", "broker"),
];

/// Words that say nothing, or that mean something else here.
const BANNED: [&str; 5] = ["topic", "session", "manager", "util", "helper"];

/// Crates, or the beginnings of their names, that the default features must not need.
const NO_RUNTIME: [&str; 5] = ["tokio", "async-std", "futures", "hyper", "openssl"];
const MOST_CRATES: usize = 28;

#[test]
fn imports_go_down() {
    pass(sources(&["src"]).iter().flat_map(imports));
}

#[test]
fn nothing_is_left_undone_ignored_or_slept_through() {
    pass(sources(&["src", "tests"]).iter().flat_map(leftovers));
}

#[test]
fn names_mean_something() {
    pass(sources(&["src", "tests"]).iter().flat_map(names));
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let needles = [concat!("/wo", "rk/"), concat!("/tmp/", "w-")];
    let mut faults = Vec::new();
    for path in project_files() {
        let Ok(bytes) = fs::read(root().join(&path)) else { continue };
        for needle in needles {
            if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle.as_bytes()) {
                let line = bytes[..at].iter().filter(|b| **b == b'\n').count() + 1;
                faults.push(format!("{}:{line}: contains {needle}", path.display()));
            }
        }
    }
    pass(faults);
}

/// Our own HTTP fields are written where channels are known.
#[test]
fn proto_knows_no_header_of_ours() {
    let proto = project_files().into_iter().filter(|path| path.starts_with("src/proto"));
    let ours = |path: &PathBuf| fs::read_to_string(root().join(path)).is_ok_and(|text| text.contains("Slotcast-"));
    pass(proto.filter(ours).map(|path| format!("{}: names a header of ours", path.display())));
}

#[test]
fn the_crate_stays_light_and_has_no_async_runtime() {
    let embedded = cargo_tree(&["--no-default-features"]);
    assert!(
        embedded.len() <= MOST_CRATES,
        "without default features {} crates, at most {MOST_CRATES}: {embedded:?}",
        embedded.len()
    );
    pass(runtimes(&cargo_tree(&[])));
}

#[track_caller]
fn pass(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{} faults\n{}\n", faults.len(), faults.join("\n"));
}

// ------------------------------------------------------------------------------------------------ the checkers

fn imports(source: &Source) -> Vec<String> {
    let own = source.module();
    let Some(from) = floor(own) else {
        return vec![format!("{}:1: `{own}` has no floor; give it one in FLOORS of tests/tidy.rs", source.path)];
    };
    let mut faults = Vec::new();
    if from > DOOR {
        return faults; // the binary may name everything
    }
    for path in source.paths() {
        let Some(target) = path.segments.first().filter(|_| path.inside) else { continue };
        let target = target.as_str();
        if target == own {
            continue;
        }
        let Some(to) = floor(target) else {
            if from < DOOR {
                let whole = path.segments.join("::");
                faults.push(source.fault(
                    path.line,
                    &format!("`crate::{whole}` goes through the door (lib.rs); name the module that owns it"),
                ));
            }
            continue;
        };
        if to > from {
            let message = format!("{own} (floor {from}) imports {target} (floor {to}): imports only go down");
            faults.push(source.fault(path.line, &message));
        } else if SEPARATE.contains(&(own, target)) {
            faults.push(source.fault(path.line, &format!("{own} must not know {target}")));
        }
    }
    faults
}

fn leftovers(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for at in source.find(&["#", "[", "ignore"]) {
        faults.push(source.fault(at.line, "`#[ignore]` is not for a test that is kept"));
    }
    for path in source.paths() {
        if path.segments.windows(2).any(|pair| pair[0] == "thread" && pair[1] == "sleep") {
            faults.push(source.fault(path.line, "`thread::sleep`: wait for what you wait for, with a deadline"));
        }
    }
    faults
}

fn names(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for part in source.path.trim_end_matches(".rs").split('/') {
        if let Some(word) = banned_word(part) {
            faults.push(source.fault(1, &format!("the file is named `{part}`; `{word}` says nothing here")));
        }
    }
    for token in &source.tokens {
        if let Some(word) = banned_word(&token.text) {
            let message = format!("`{}`: `{word}` is not one of our words, see ARCHITECTURE.md", token.text);
            faults.push(source.fault(token.line, &message));
        }
    }
    faults
}

fn runtimes(crates: &BTreeSet<String>) -> Vec<String> {
    let is_runtime = |name: &str| {
        NO_RUNTIME.iter().any(|no| name == *no || name.strip_prefix(no).is_some_and(|rest| rest.starts_with('-')))
    };
    crates.iter().filter(|name| is_runtime(name)).map(|name| format!("cargo tree names {name}")).collect()
}

fn floor(module: &str) -> Option<u8> {
    if module == "lib" {
        return Some(DOOR);
    }
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The banned word that an identifier contains as a word: `topic`, `topic_name`, `TopicTree`, `topics`.
fn banned_word(identifier: &str) -> Option<&'static str> {
    let mut words = String::new();
    let mut lower_before = false;
    for c in identifier.chars() {
        if c.is_uppercase() && lower_before {
            words.push('_');
        }
        lower_before = c.is_lowercase();
        words.extend(c.to_lowercase());
    }
    let is = |word: &str, banned: &str| word == banned || word.strip_suffix('s') == Some(banned);
    words.split('_').find_map(|word| BANNED.into_iter().find(|banned| is(word, banned)))
}

// ---------------------------------------------------------------------------------------------- reading sources

/// One source file, in tokens.
struct Source {
    /// From the project's root, with slashes.
    path: String,
    tokens: Vec<Token>,
}

struct Token {
    text: String,
    line: usize,
}

/// A path in the source: `use` trees are taken apart, `self`, `super` and `crate` are resolved.
struct NamedPath {
    line: usize,
    /// Begins at the crate's own root, which `segments` does not repeat.
    inside: bool,
    segments: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), tokens: tokens(text) }
    }

    fn fault(&self, line: usize, message: &str) -> String {
        format!("{}:{line}: {message}", self.path)
    }

    /// The module below `src/` that the file belongs to: `proto` for src/proto/frame.rs.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    fn module_path(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut path: Vec<String> = below.split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| last == "mod") || below == "lib" || below == "main" {
            path.pop();
        }
        path
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text.as_str())
    }

    fn find<'a>(&'a self, wanted: &'a [&str]) -> impl Iterator<Item = &'a Token> {
        let matches = |at: &usize| wanted.iter().enumerate().all(|(i, text)| self.text(at + i) == *text);
        (0..self.tokens.len()).filter(matches).map(|at| &self.tokens[at])
    }

    fn paths(&self) -> Vec<NamedPath> {
        let mut found = Vec::new();
        let mut modules = self.module_path();
        let mut depth = 0usize;
        let mut inline: Vec<usize> = Vec::new(); // the depths at which inline modules began
        let mut at = 0;
        while at < self.tokens.len() {
            match self.text(at) {
                "mod" if is_identifier(self.text(at + 1)) && self.text(at + 2) == "{" => {
                    modules.push(self.text(at + 1).to_owned());
                    inline.push(depth);
                    at += 1;
                }
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        modules.pop();
                    }
                }
                "use" => at = self.tree(at + 1, &modules, None, &mut found),
                text if is_identifier(text) && self.text(at + 1) == "::" && !self.follows_path(at) => {
                    at = self.tree(at, &modules, None, &mut found);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }

    fn follows_path(&self, at: usize) -> bool {
        at > 0 && self.text(at - 1) == "::"
    }

    /// Takes the path or tree at `at` apart and returns where it ends.
    fn tree(&self, mut at: usize, modules: &[String], start: Option<&NamedPath>, found: &mut Vec<NamedPath>) -> usize {
        let line = self.tokens.get(at).map_or(0, |t| t.line);
        let mut path = match start {
            Some(start) => NamedPath { line, inside: start.inside, segments: start.segments.clone() },
            None => NamedPath { line, inside: false, segments: Vec::new() },
        };
        let mut fresh = start.is_none();
        if self.text(at) == "::" {
            at += 1;
        }
        loop {
            match self.text(at) {
                "crate" => path.inside = true,
                "self" if fresh => (path.inside, path.segments) = (true, modules.to_vec()),
                "self" => {}
                "super" => {
                    if fresh {
                        (path.inside, path.segments) = (true, modules.to_vec());
                    }
                    path.segments.pop();
                }
                "{" => return self.branches(at + 1, modules, &path, fresh, found),
                text if is_identifier(text) || text == "*" => path.segments.push(text.to_owned()),
                _ => break,
            }
            fresh = false;
            at += 1;
            if self.text(at) != "::" {
                break;
            }
            at += 1;
        }
        if !path.segments.is_empty() {
            found.push(path);
        }
        at
    }

    fn branches(
        &self,
        mut at: usize,
        modules: &[String],
        start: &NamedPath,
        fresh: bool,
        found: &mut Vec<NamedPath>,
    ) -> usize {
        while at < self.tokens.len() && self.text(at) != "}" {
            let next = self.tree(at, modules, (!fresh).then_some(start), found);
            at = if next == at { at + 1 } else { next };
            if self.text(at) == "as" {
                at += 2;
            }
            if self.text(at) == "," {
                at += 1;
            }
        }
        at + 1
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Identifiers, `::`, and single characters; without comments and the contents of literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let (mut found, mut line, mut at) = (Vec::new(), 1, 0);
    while at < chars.len() {
        let end = match chars[at] {
            '/' if peek(at + 1) == '/' => at + chars[at..].iter().take_while(|c| **c != '\n').count(),
            '/' if peek(at + 1) == '*' => end_of_comment(&chars, at),
            '"' => end_of_string(&chars, at),
            '\'' => end_of_quote(&chars, at),
            c if c.is_alphabetic() || c == '_' => {
                let end = at + chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                let word: String = chars[at..end].iter().collect();
                match end_of_prefixed(&chars, &word, end) {
                    Some(end) => end,
                    None => {
                        found.push(Token { text: word, line });
                        end
                    }
                }
            }
            c if c.is_ascii_digit() => {
                at + chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count()
            }
            ':' if peek(at + 1) == ':' => {
                found.push(Token { text: "::".to_owned(), line });
                at + 2
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token { text: c.to_string(), line });
                }
                at + 1
            }
        };
        let end = end.min(chars.len());
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    found
}

fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(chars: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    end + 1
}

/// A character literal, or the quote of a lifetime.
fn end_of_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let mut end = at + 3;
            while end < chars.len() && chars[end] != '\'' {
                end += 1;
            }
            end + 1
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// `b"…"`, `r#"…"#` and their like: where the literal that `word` begins ends.
fn end_of_prefixed(chars: &[char], word: &str, at: usize) -> Option<usize> {
    match word {
        "b" if chars.get(at) == Some(&'\'') => Some(end_of_quote(chars, at)),
        "b" | "c" if chars.get(at) == Some(&'"') => Some(end_of_string(chars, at)),
        "r" | "br" | "cr" => {
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            if chars.get(at + hashes) != Some(&'"') {
                return None;
            }
            let mut end = at + hashes + 1;
            while end < chars.len() {
                if chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
                    return Some(end + 1 + hashes);
                }
                end += 1;
            }
            Some(end)
        }
        _ => None,
    }
}

// --------------------------------------------------------------------------------------------- reading the disk

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source below these folders, but not this one.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut files = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut files);
    }
    files.retain(|file| file.extension().is_some_and(|e| e == "rs") && !file.ends_with("tests/tidy.rs"));
    files.sort();
    assert!(!files.is_empty(), "no sources in {folders:?}");
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        Source::new(&path, &fs::read_to_string(file).unwrap())
    };
    files.iter().map(source).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    const BUILT: [&str; 4] = ["target", "node_modules", ".git", ".tools"];
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && !path.is_symlink() {
            if !BUILT.iter().any(|built| name == *built) {
                walk(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

/// The files that git tracks, or would; without git, every file that is not built.
fn project_files() -> Vec<PathBuf> {
    let listing = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    if let Ok(listing) = listing
        && listing.status.success()
    {
        let names = String::from_utf8(listing.stdout).unwrap();
        return names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    }
    let mut files = Vec::new();
    walk(root(), &mut files);
    files.iter().map(|file| file.strip_prefix(root()).unwrap().to_owned()).collect()
}

/// The names of all crates that the given features need, slotcast's own not counted.
fn cargo_tree(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .args(features)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).unwrap();
    let mut crates: BTreeSet<String> =
        listing.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(crates.remove("slotcast") && !crates.is_empty(), "cargo tree said: {listing}");
    crates
}

// --------------------------------------------------------------------------------------------- the checkers bite

/// The faults that a checker finds in one inline source, each as `LINE: words`.
#[track_caller]
fn faults(checker: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    let prefix = format!("{path}:");
    checker(&Source::new(path, text)).iter().map(|fault| fault.strip_prefix(&prefix).unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_lines(checker: fn(&Source) -> Vec<String>, path: &str, text: &str, lines: &[usize]) {
    let said = faults(checker, path, text);
    let got: Vec<usize> = said.iter().map(|fault| fault.split(':').next().unwrap().parse().unwrap()).collect();
    assert_eq!(got, lines, "{path}: {said:#?}");
}

#[test]
fn bites_imports_that_go_up() {
    assert_lines(imports, "src/proto/frame.rs", "use crate::limits::Limits;\nuse super::mask::mask;\n", &[]);
    assert_lines(imports, "src/proto/frame.rs", "use crate::channel::Log;", &[1]);
    assert_lines(imports, "src/proto/frame.rs", "use super::super::broker::Slots;", &[1]);
    assert_lines(imports, "src/proto/mod.rs", "pub mod frame;\nuse super::server;\nuse self::frame::Frame;", &[2]);
    assert_lines(imports, "src/proto.rs", "use super::server::Server;", &[1]);
    assert_lines(imports, "src/proto/frame.rs", "fn f() {\n  let x = crate::relay::Intent::new();\n}", &[2]);
    assert_lines(imports, "src/proto/frame.rs", "mod tests {\n use super::*;\n use super::super::mask;\n}", &[]);
    assert_lines(imports, "src/proto/frame.rs", "mod tests {\n use super::super::super::net::Listener;\n}", &[2]);
    assert_lines(imports, "src/limits.rs", "mod a { }\nmod b { use super::super::handle::Handle; }", &[2]);
    assert_lines(imports, "src/relay.rs", "use crate::{\n server::Server,\n daemon::{cli, log},\n page,\n};", &[3, 3]);
    assert_lines(imports, "src/server.rs", "use crate::{broker::{self, Slots}, handle::Handle as H, net};", &[]);
    assert_lines(imports, "src/server/turn.rs", "use super::Server;\nuse crate::relay;", &[2]);
    assert_lines(
        imports,
        "src/lib.rs",
        "pub use crate::relay::Relay;\npub use daemon::x;\nuse crate::daemon::x;",
        &[3],
    );
    assert_lines(imports, "src/main.rs", "use crate::daemon::run;\nuse slotcast::Server;", &[]);
}

#[test]
fn bites_imports_between_neighbours() {
    assert_lines(imports, "src/channel/log.rs", "use crate::proto::frame;\nuse crate::broker::slots;", &[2]);
    assert_lines(imports, "src/broker/slots.rs", "use crate::channel::Log;", &[]);
    let net = "use crate::limits::Limits;\nuse crate::proto::frame;\nuse crate::channel;\nuse crate::server::Server;";
    assert_lines(imports, "src/net/listener.rs", net, &[2, 3, 4]);
}

#[test]
fn bites_imports_through_the_door_and_new_modules() {
    assert_lines(imports, "src/channel/log.rs", "use crate::Config;\nuse crate::*;", &[1, 2]);
    assert_lines(imports, "src/novelty.rs", "", &[1]);
    let said = faults(imports, "src/proto/frame.rs", "\n use crate::server::Server;").join("");
    assert_eq!(said, "2: proto (floor 0) imports server (floor 3): imports only go down");
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "// use crate::server::Server;\n/* /* todo!() */ crate::relay::X */\nconst S: &str = \"crate::server::x \\\" todo!()\";\n\
                const R: &str = r#\"crate::\"server\"::x\"#;\nconst B: &[u8] = b\"topic\";\nfn f<'a>(x: &'a str) -> char { '\"' }\n\
                fn g() -> char { '\\'' }\nuse crate::server::Server;";
    assert_lines(imports, "src/proto/frame.rs", text, &[8]);
    assert_lines(leftovers, "src/proto/frame.rs", text, &[]);
    assert_lines(names, "src/proto/frame.rs", text, &[]);
}

#[test]
fn bites_leftovers() {
    let text = "fn f() {\n std::thread::sleep(d);\n}\n#[ignore = \"slow\"]\nuse std::thread::{self, sleep};";
    assert_lines(leftovers, "tests/x.rs", text, &[4, 2, 5]);
}

#[test]
fn bites_names() {
    let text = "struct SessionId;\nfn topic_of() {}\nfn of() { let helpers = 1; }\nfn utility() { possession(); }";
    assert_lines(names, "src/relay.rs", text, &[1, 2, 3]);
    assert_lines(names, "src/proto/util.rs", "", &[1]);
}

#[test]
fn bites_runtimes() {
    let crates = ["bytes", "tokio", "tokio-util", "futures-core", "openssl-sys", "hyperspace"].map(str::to_owned);
    assert_eq!(runtimes(&BTreeSet::from(crates)).len(), 4);
}
