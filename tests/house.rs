//! The broker is made of parts that own their fields, and of policies that use them: the drawing in docs/internals.md
//! must match the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The most fields that `Broker` may have.
const MAX_FIELDS: usize = 14;

/// Folders with parts and policies, in `src/`.
const FOLDERS: [&str; 5] = ["", "broker", "channel", "channel/store", "delivery"];

/// A source file, without comments and its own tests.
#[derive(Clone)]
struct Source {
    /// The name in docs/internals.md, such as `broker/flush.rs`.
    path: String,
    text: String,
    tests: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let (text, tests) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        Source { path: path.to_owned(), text: lines.map(|line| format!("{line}\n")).collect(), tests: tests.to_owned() }
    }

    fn is_policy(&self) -> bool {
        self.text.contains("\nimpl Broker {")
    }

    /// Whether the file contains this word.
    fn names(&self, word: &str) -> bool {
        let is_part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        self.text.match_indices(word).any(|(at, _)| {
            let before = self.text[..at].chars().next_back().is_some_and(is_part_of_word);
            let after = self.text[at + word.len()..].chars().next().is_some_and(is_part_of_word);
            !before && !after
        })
    }

    /// The methods of `Broker` in this file.
    fn methods(&self) -> BTreeSet<&str> {
        let blocks = self.text.split("\nimpl Broker {").skip(1).map(|rest| rest.split("\n}").next().unwrap_or(rest));
        let heads = blocks.flat_map(|block| block.split("\n    ")).filter(|line| !line.starts_with(' '));
        let is_head = |before: &str| !before.contains('(') || before.starts_with("pub");
        let named = heads.filter_map(|line| line.split_once("fn ").filter(|(before, _)| is_head(before)));
        named.filter_map(|(_, rest)| rest.split(['(', '<']).next()).collect()
    }

    /// Whether the file calls one of these methods of the broker, also on a line of its own.
    fn calls(&self, methods: &BTreeSet<&str>) -> bool {
        let joined: String = self.text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" .", ".");
        let is_called = |method: &&str| ["self", "broker"].iter().any(|it| joined.contains(&format!("{it}.{method}(")));
        methods.iter().any(is_called)
    }

    /// The fields of a struct, a line each; None if it is not in this file.
    fn fields(&self, kind: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("struct {kind} {{\n"))?;
        rest.split("\n}").next()
    }
}

/// The house: its sources, the fields of `Broker`, and the table of parts.
#[derive(Clone)]
struct House {
    sources: Vec<Source>,
    /// The name and type of each field of `Broker`.
    fields: Vec<(String, String)>,
    /// The table's file and borrowed parts, by the name of the field.
    drawn: BTreeMap<String, (String, String)>,
}

impl House {
    fn read() -> House {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        for folder in FOLDERS {
            for entry in fs::read_dir(root.join("src").join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(root.join("src")).unwrap().to_string_lossy().into_owned();
                    sources.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
                }
            }
        }
        sources.sort_by(|one, other| one.path.cmp(&other.path));
        let broker = sources.iter().find(|source| source.path == "broker/mod.rs").and_then(|it| it.fields("Broker"));
        let field = |line: &str| {
            let (name, kind) = line.trim().trim_end_matches(',').split_once(": ").expect(line);
            (name.to_owned(), kind.to_owned())
        };
        let fields = broker.expect("the struct").lines().map(field).collect();
        let text = fs::read_to_string(root.join("docs/internals.md")).unwrap();
        let table = text.split("## The parts of the broker").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = table.expect("a section on the parts").lines().filter(|line| line.starts_with("| `"));
        let row = |line: &str| {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|it| it.trim().replace('`', "")).collect();
            let [name, file, _, borrows] = cells.as_slice() else { panic!("{line}") };
            (name.clone(), (file.clone(), borrows.clone()))
        };
        House { drawn: rows.map(row).collect(), sources, fields }
    }

    /// The source that has a part's struct.
    fn part(&self, kind: &str) -> &Source {
        let part = self.sources.iter().find(|source| source.fields(kind).is_some());
        part.unwrap_or_else(|| panic!("no `struct {kind}`"))
    }

    /// A part with all files that implement it.
    fn whole(&self, kind: &str) -> Source {
        let part = self.part(kind);
        let also = self.sources.iter().filter(|source| source.path != part.path && !source.is_policy());
        let also = also.filter(|source| source.text.contains(&format!("\nimpl {kind} {{")));
        Source { text: also.fold(part.text.clone(), |text, source| text + &source.text), ..part.clone() }
    }

    /// The other parts that a part names, by their fields.
    fn borrows(&self, name: &str, kind: &str) -> Vec<&str> {
        let whole = self.whole(kind);
        let others = self.fields.iter().filter(|(other, kind)| other != name && whole.names(kind));
        others.map(|(other, _)| other.as_str()).collect()
    }

    fn check_drawing(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.fields.len() > MAX_FIELDS {
            faults.push(format!("{} fields", self.fields.len()));
        }
        let names: BTreeSet<&String> = self.fields.iter().map(|(name, _)| name).collect();
        if self.drawn.keys().collect::<BTreeSet<_>>() != names {
            faults.push("the table of parts and the fields of `Broker` differ".to_owned());
        }
        for (name, kind) in &self.fields {
            let Some((file, borrows)) = self.drawn.get(name) else { continue };
            let path = &self.part(kind).path;
            let others = self.borrows(name, kind).join(", ");
            let others = if others.is_empty() { "–".to_owned() } else { others };
            if (file, borrows) != (path, &others) {
                faults.push(format!("{name} stands in {path} and borrows {others}"));
            }
        }
        faults
    }

    /// A part does not know the broker. A part of the broker keeps its fields to itself, and one of its tests builds it
    /// alone.
    fn check_ownership(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, kind) in &self.fields {
            let part = self.part(kind);
            if part.is_policy() || part.names("Broker") {
                faults.push(format!("{name}: a part that knows the broker"));
            }
            if !part.path.starts_with("broker/") {
                continue;
            }
            // Every delivery walks over an array: that is not a part's secret.
            let is_public = |line: &&str| ["pub ", "pub("].iter().any(|word| line.trim().starts_with(word));
            let mut public = part.fields(kind).into_iter().flat_map(str::lines).filter(is_public);
            if let Some(line) = public.find(|line| line.trim() != "pub hot: Vec<Hot>,") {
                faults.push(format!("{name}: somebody else may reach into `{}`", line.trim()));
            }
            if !part.tests.contains(kind) {
                faults.push(format!("{name}: no unit test builds a `{kind}` alone"));
            }
        }
        faults
    }

    fn check_cycles(&self) -> Vec<String> {
        let borrows: BTreeMap<&str, Vec<&str>> =
            self.fields.iter().map(|(name, kind)| (name.as_str(), self.borrows(name, kind))).collect();
        let mut faults = Vec::new();
        for (one, others) in &borrows {
            let both = others.iter().filter(|other| one < *other && borrows[**other].contains(one));
            faults.extend(both.map(|other| format!("{one} and {other} name each other")));
        }
        faults
    }

    /// A policy that everybody calls should be a part.
    fn check_policies(&self) -> Vec<String> {
        let policies: Vec<&Source> = self.sources.iter().filter(|source| source.is_policy()).collect();
        let mut faults = Vec::new();
        for policy in &policies {
            let methods = policy.methods();
            let others = policies.iter().filter(|other| other.path != policy.path);
            let callers: Vec<&str> =
                others.filter(|other| other.calls(&methods)).map(|other| other.path.as_str()).collect();
            let most = (policies.len() - 1) / 2;
            if callers.len() > most {
                faults.push(format!("{} is called by {} of {most}: {callers:?}", policy.path, callers.len()));
            }
        }
        faults
    }

    /// The same house, with something added to the struct of a part, or after it.
    fn with(&self, kind: &str, field: &str, after: &str) -> House {
        let mut house = self.clone();
        let path = self.part(kind).path.clone();
        let source = house.sources.iter_mut().find(|source| source.path == path).unwrap();
        source.text =
            source.text.replace(&format!("struct {kind} {{\n"), &format!("struct {kind} {{\n{field}")) + after;
        house
    }
}

#[test]
fn the_drawing_shows_the_parts_and_what_they_borrow() {
    let house = House::read();
    assert_eq!(house.check_drawing(), [""; 0]);
    let borrows = house.with("Effort", "", "fn f(batches: &Batches) {}\n");
    assert_eq!(borrows.check_drawing(), ["effort stands in broker/effort.rs and borrows batches"]);
    let more = house.with("Broker", "    one_more: Effort,\n", "");
    let fields = [more.fields.clone(), vec![("one_more".to_owned(), "Effort".to_owned())]].concat();
    let faults = House { fields, ..more }.check_drawing();
    assert_eq!(faults[..2], ["15 fields", "the table of parts and the fields of `Broker` differ"]);
}

#[test]
fn parts_own_their_fields() {
    let house = House::read();
    assert_eq!(house.check_ownership(), [""; 0]);
    let open = house.with("Effort", "    pub(super) more: u64,\n", "");
    assert_eq!(open.check_ownership(), ["effort: somebody else may reach into `pub(super) more: u64,`"]);
    let knows = house.with("Effort", "", "\nimpl Broker {\n}\n");
    assert_eq!(knows.check_ownership(), ["effort: a part that knows the broker"]);
    let mut untested = house;
    untested.sources.iter_mut().for_each(|source| source.tests.clear());
    assert!(untested.check_ownership().len() > 8);
}

#[test]
fn no_two_parts_call_each_other() {
    let house = House::read();
    assert_eq!(house.check_cycles(), [""; 0]);
    let both = house.with("Slots", "", "fn f(timers: &Timers) {}\n");
    assert_eq!(both.check_cycles(), ["slots and timers name each other"]);
}

#[test]
fn no_policy_is_called_by_more_than_half_of_the_others() {
    let house = House::read();
    assert_eq!(house.check_policies(), [""; 0]);
    let mut called = house;
    for source in called.sources.iter_mut().filter(|source| source.is_policy()) {
        source.text += "\nfn f(broker: &mut Broker) {\n    broker\n        .shutting_down();\n}\n";
    }
    assert!(called.check_policies().iter().any(|fault| fault.starts_with("broker/shutdown.rs is called by")));
}
