//! The broker is made of parts that own their fields, and of policies that use them: what ARCHITECTURE.md draws is what the
//! sources say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The most fields that `Broker` may have.
const MAX_FIELDS: usize = 14;

/// A source of the broker, without comments and its own tests.
struct Source {
    name: String,
    text: String,
}

impl Source {
    fn is_policy(&self) -> bool {
        self.text.contains("\nimpl Broker {")
    }

    /// Whether the word stands there.
    fn names(&self, word: &str) -> bool {
        let is_part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        self.text.match_indices(word).any(|(at, _)| {
            let before = self.text[..at].chars().next_back().is_some_and(is_part_of_word);
            let after = self.text[at + word.len()..].chars().next().is_some_and(is_part_of_word);
            !before && !after
        })
    }

    /// The methods of `Broker` that stand here.
    fn methods(&self) -> BTreeSet<&str> {
        let blocks = self.text.split("\nimpl Broker {").skip(1).map(|rest| rest.split("\n}").next().unwrap_or(rest));
        let heads = blocks.flat_map(|block| block.split("\n    ")).filter(|line| !line.starts_with(' '));
        let named = heads.filter_map(|line| {
            line.split_once("fn ").filter(|(before, _)| !before.contains('(') || before.starts_with("pub"))
        });
        named.filter_map(|(_, rest)| rest.split(['(', '<']).next()).collect()
    }

    /// How often one of these methods of the broker is called here.
    fn calls(&self, methods: &BTreeSet<&str>) -> bool {
        methods
            .iter()
            .any(|method| ["self", "broker"].iter().any(|object| self.text.contains(&format!("{object}.{method}("))))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text).to_owned();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The sources of `src/broker/`, but for its tests.
fn sources() -> Vec<Source> {
    let entries = fs::read_dir(root().join("src/broker")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let source = |path: std::path::PathBuf| Source {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        text: read(&path),
    };
    let mut sources: Vec<Source> = files.map(source).collect();
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    sources
}

/// The fields of `Broker` and their types, in order.
fn fields() -> Vec<(String, String)> {
    let text = read(&root().join("src/broker/mod.rs"));
    let body =
        text.split("pub struct Broker {\n").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the struct");
    let field = |line: &str| {
        let (name, kind) = line.trim().trim_end_matches(',').split_once(": ").expect(line);
        (name.to_owned(), kind.to_owned())
    };
    body.lines().map(field).collect()
}

/// The part that a type is: the source that has its struct, if it is one of the broker's own.
fn part_of<'a>(kind: &str, sources: &'a [Source]) -> Option<&'a Source> {
    sources.iter().find(|source| source.text.contains(&format!("struct {kind} {{")))
}

/// A part with all files that say what it does.
fn whole(part: &Source, kind: &str, sources: &[Source]) -> Source {
    let also = sources.iter().filter(|source| source.name != part.name && !source.is_policy());
    let also = also.filter(|source| source.text.contains(&format!("\nimpl {kind} {{")));
    Source { name: part.name.clone(), text: also.fold(part.text.clone(), |text, source| text + &source.text) }
}

/// The rows of the table of parts in ARCHITECTURE.md: field, file, borrows.
fn drawn() -> BTreeMap<String, (String, String)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table =
        text.split("## The parts of the broker").nth(1).expect("a section on the parts").split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        let bare = |cell: &str| cell.replace('`', "");
        (bare(cells[0]), (bare(cells[1]), bare(cells[3])))
    });
    rows.collect()
}

#[test]
fn the_drawing_shows_the_parts_and_what_they_borrow() {
    let (sources, fields) = (sources(), fields());
    assert!(fields.len() <= MAX_FIELDS, "{} fields", fields.len());
    let drawn = drawn();
    let names: BTreeSet<&String> = fields.iter().map(|(name, _)| name).collect();
    assert_eq!(drawn.keys().collect::<BTreeSet<_>>(), names, "the table of parts and the fields of `Broker` differ");
    for (name, kind) in &fields {
        let (file, borrows) = &drawn[name];
        let Some(part) = part_of(kind, &sources) else {
            assert!(!file.starts_with("broker/"), "{name}: {file} has no `struct {kind}`");
            continue;
        };
        assert_eq!(*file, format!("broker/{}.rs", part.name), "{name} stands elsewhere");
        let part = whole(part, kind, &sources);
        let others =
            fields.iter().filter(|(other, kind)| other != name && part.names(kind)).map(|(other, _)| other.as_str());
        let others: Vec<&str> = others.collect();
        let others = if others.is_empty() { "–".to_owned() } else { others.join(", ") };
        assert_eq!(*borrows, others, "{name} borrows other parts than the drawing says");
    }
}

/// A part knows nothing of the broker, keeps its fields to itself, and is built alone by a test of its own.
#[test]
fn parts_own_their_fields() {
    let sources = sources();
    for (name, kind) in fields() {
        let Some(part) = part_of(&kind, &sources) else { continue };
        assert!(!part.is_policy() && !part.names("Broker"), "{}: a part that knows the broker", part.name);
        let body =
            part.text.split(&format!("struct {kind} {{\n")).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
        // What every delivery walks over is an array, and not a part's secret.
        let public = body.lines().find(|line| {
            (line.trim().starts_with("pub ") || line.trim().starts_with("pub(")) && line.trim() != "pub hot: Vec<Hot>,"
        });
        assert_eq!(public, None, "{name}: somebody else may reach into it");
        let whole = fs::read_to_string(root().join(format!("src/broker/{}.rs", part.name))).unwrap();
        let tests = whole.split("#[cfg(test)]\nmod tests {").nth(1);
        assert!(tests.is_some_and(|tests| tests.contains(&kind)), "{name}: no unit test builds a `{kind}` alone");
    }
}

#[test]
fn no_two_parts_call_each_other() {
    let (sources, fields) = (sources(), fields());
    let part = |kind: &String| part_of(kind, &sources).map(|part| whole(part, kind, &sources));
    let parts: Vec<(&str, Source)> = fields.iter().filter_map(|(_, kind)| Some((kind.as_str(), part(kind)?))).collect();
    for (one, one_source) in &parts {
        for (other, other_source) in parts.iter().filter(|(other, _)| other != one) {
            let both = one_source.names(other) && other_source.names(one);
            assert!(!both, "{one} and {other} name each other");
        }
    }
}

/// A policy that everybody calls is a part that was not found.
#[test]
fn no_policy_is_called_by_more_than_half_of_the_others() {
    let sources = sources();
    let policies: Vec<&Source> = sources.iter().filter(|source| source.is_policy()).collect();
    for policy in &policies {
        let methods = policy.methods();
        let others = policies.iter().filter(|other| other.name != policy.name);
        let callers: Vec<&str> =
            others.filter(|other| other.calls(&methods)).map(|other| other.name.as_str()).collect();
        let most = (policies.len() - 1) / 2;
        assert!(callers.len() <= most, "{} is called by {} of {most}: {callers:?}", policy.name, callers.len());
    }
    let called = |name: &str| {
        policies.iter().find(|policy| policy.name == name).is_some_and(|policy| policy.methods().contains("end"))
    };
    assert!(called("ending"), "the checker finds no methods");
}
