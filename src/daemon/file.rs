//! The configuration file: TOML, taken apart into keys and values that know where they stand. Here is what is true of
//! any such file. Which keys there are is for the table of flags to say, and for those who read the tables of tables.

use std::fs::{self, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest file, in bytes: more than thousands of rules take.
const LONGEST: u64 = 4 << 20;

/// How alike a known word must be to be named in place of an unknown one: what clap takes for flags.
const ALIKE: f64 = 0.7;

/// A file that was read.
pub struct File {
    /// Its name, as it was given.
    name: String,
    /// The settings, in the order of the file.
    pub flags: Vec<Entry>,
    /// The tables `[[channel]]`.
    pub channels: Vec<Table>,
    /// The tables `[[key]]`.
    pub keys: Vec<Table>,
    /// Others than its owner and its group may write to it.
    pub is_writable: bool,
    /// Others than its owner and its group may read it.
    pub is_readable: bool,
}

/// A place in the file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    line: usize,
    column: usize,
}

/// A key and its value.
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub at: Place,
    /// The value.
    pub value: Value,
}

/// A table of a list of tables.
pub struct Table {
    /// Where it begins.
    pub at: Place,
    /// What is in it, in the order of the file.
    #[allow(dead_code, reason = "there are no rules yet that read it")]
    pub entries: Vec<Entry>,
}

/// A value.
pub struct Value {
    /// Where it stands.
    pub at: Place,
    /// What it is.
    pub content: Content,
}

/// What a value is.
pub enum Content {
    /// A string.
    Text(String),
    /// A number, in decimal.
    Number(String),
    /// A boolean.
    Switch(bool),
    /// An array.
    List(Vec<Value>),
    /// A table.
    Table(Vec<Entry>),
    /// A date or a time of day: no setting has one.
    Date,
}

impl Content {
    /// What it is, as a message says it.
    pub fn kind(&self) -> &'static str {
        match self {
            Content::Text(_) => "a string",
            Content::Number(_) => "a number",
            Content::Switch(_) => "a boolean",
            Content::List(_) => "an array",
            Content::Table(_) => "a table",
            Content::Date => "a date",
        }
    }
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// One line, with the place if there is one. It contains nothing of the file but keys.
    pub fn read(name: &str) -> Result<File, String> {
        let cannot = |error: std::io::Error| format!("{}: {error}", name.escape_debug());
        let file = fs::File::open(name).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        let mut text = String::new();
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
        if text.len() as u64 > LONGEST {
            return Err(format!("{}: it is longer than 4 MiB", name.escape_debug()));
        }
        let mut read = File::parse(name, &text)?;
        (read.is_writable, read.is_readable) = open_to_others(&metadata);
        Ok(read)
    }

    fn parse(name: &str, text: &str) -> Result<File, String> {
        let mut file = File {
            name: name.to_owned(),
            flags: Vec::new(),
            channels: Vec::new(),
            keys: Vec::new(),
            is_writable: false,
            is_readable: false,
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = place(text, error.span().map_or(0, |span| span.start));
            file.error(at, &error.message().lines().collect::<Vec<_>>().join("; "))
        })?;
        for entry in entries(text, table.into_inner()) {
            let tables = match entry.key.as_str() {
                "channel" => &mut file.channels,
                "key" => &mut file.keys,
                _ => {
                    file.flags.push(entry);
                    continue;
                }
            };
            match tables_of(entry) {
                Ok(all) => *tables = all,
                Err(Entry { key, at, .. }) => {
                    return Err(file.error(at, &format!("{key} is a list of tables: write [[{key}]]")));
                }
            }
        }
        Ok(file)
    }

    /// A message about a place in this file, in one line.
    pub fn error(&self, at: Place, message: &str) -> String {
        format!("{}: {message}", self.place(at))
    }

    /// A place in this file, as a message begins with it.
    pub fn place(&self, at: Place) -> String {
        format!("{}:{}:{}", self.name.escape_debug(), at.line, at.column)
    }

    /// What is said of a key that does not exist, where these do.
    pub fn no_such_key<'a>(&self, entry: &Entry, known: impl IntoIterator<Item = &'a str>) -> String {
        let key = &entry.key;
        let is_table = matches!(entry.value.content, Content::Table(_) | Content::List(_));
        let hint = match nearest(key, known) {
            Some(known) => format!("; did you mean {known:?}?"),
            None if is_table => "; settings stand at the top of the file, outside of tables".to_owned(),
            None => "; see slotcast --help".to_owned(),
        };
        self.error(entry.at, &format!("there is no key {key:?}{hint}"))
    }

    /// The name of a file that stands in this file: it is relative to this file's folder.
    pub fn beside(&self, name: &str) -> String {
        let folder = Path::new(&self.name).parent().map(Path::to_owned).unwrap_or_default();
        let path: PathBuf = folder.join(name);
        path.to_string_lossy().into_owned()
    }

    /// Its name, as a message shows it.
    pub fn shown(&self) -> String {
        self.name.escape_debug().to_string()
    }
}

/// Whether others than the owner and the group may write to a file, and read it. What is no plain file, such as a pipe,
/// is nobody else's.
#[cfg(unix)]
pub fn open_to_others(metadata: &Metadata) -> (bool, bool) {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode();
    (metadata.is_file() && mode & 0o002 != 0, metadata.is_file() && mode & 0o004 != 0)
}

/// Other systems have no such bits.
#[cfg(not(unix))]
pub fn open_to_others(_: &Metadata) -> (bool, bool) {
    (false, false)
}

/// The known word that is most like this one, if any is like it.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    let known = known.into_iter().map(|known| (strsim::jaro(&word, known), known));
    known.filter(|(alike, _)| *alike > ALIKE).max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}

fn tables_of(entry: Entry) -> Result<Vec<Table>, Entry> {
    let Content::List(values) = &entry.value.content else { return Err(entry) };
    if !values.iter().all(|value| matches!(value.content, Content::Table(_))) {
        return Err(entry);
    }
    let Content::List(values) = entry.value.content else { return Ok(Vec::new()) };
    let tables = values.into_iter().filter_map(|value| match value.content {
        Content::Table(entries) => Some(Table { at: value.at, entries }),
        _ => None,
    });
    Ok(tables.collect())
}

fn entries(text: &str, table: DeTable<'_>) -> Vec<Entry> {
    let entry = |(key, content): (Spanned<std::borrow::Cow<'_, str>>, _)| Entry {
        at: place(text, key.span().start),
        key: key.into_inner().into_owned(),
        value: value(text, content),
    };
    let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

fn value(text: &str, spanned: Spanned<DeValue<'_>>) -> Value {
    let at = place(text, spanned.span().start);
    let content = match spanned.into_inner() {
        DeValue::String(text) => Content::Text(text.into_owned()),
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            Content::Number(number.map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string()))
        }
        DeValue::Float(float) => Content::Number(float.as_str().to_owned()),
        DeValue::Boolean(switch) => Content::Switch(switch),
        DeValue::Datetime(_) => Content::Date,
        DeValue::Array(values) => Content::List(values.into_iter().map(|each| value(text, each)).collect()),
        DeValue::Table(table) => Content::Table(entries(text, table)),
    };
    Value { at, content }
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(line..).unwrap_or_default().chars().count() + 1;
    Place { line: before.matches('\n').count() + 1, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let line = File::parse("a/b.toml", text).err().unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let text = "# ä\na = \"x\"\n  b = [1, 0x1_0,\n 2.5]\n[[channel]]\nmatch = \"/**\"\n[[channel]]\n";
        let file = File::parse("b.toml", text).ok().unwrap();
        let keys: Vec<_> =
            file.flags.iter().map(|entry| (entry.key.as_str(), entry.at.line, entry.at.column)).collect();
        assert_eq!(keys, [("a", 2, 1), ("b", 3, 3)]);
        let Content::List(values) = &file.flags[1].value.content else {
            panic!("{}", file.flags[1].value.content.kind())
        };
        let numbers: Vec<_> = values
            .iter()
            .map(|value| match &value.content {
                Content::Number(number) => (number.as_str(), value.at.line, value.at.column),
                other => panic!("{}", other.kind()),
            })
            .collect();
        assert_eq!(numbers, [("1", 3, 8), ("16", 3, 11), ("2.5", 4, 2)]);
        let tables: Vec<_> = file.channels.iter().map(|table| (table.at.line, table.entries.len())).collect();
        assert_eq!((tables, file.keys.len()), (vec![(5, 1), (7, 0)], 0));
    }

    #[test]
    fn what_is_no_toml_is_one_line_with_its_place() {
        for (text, start) in [
            ("a = 1\nb = \"s3cret", "a/b.toml:2:"),
            ("a = 1\na = 2", "a/b.toml:2:1: "),
            ("a", "a/b.toml:1:"),
            ("channel = 1", "a/b.toml:1:1: channel is a list of tables: write [[channel]]"),
            ("\n[key]\nid = 1", "a/b.toml:2:2: key is a list of tables: write [[key]]"),
        ] {
            let line = refusal(text);
            assert!(line.starts_with(start) && !line.contains("s3cret"), "{line}");
        }
    }

    #[test]
    fn the_nearest_known_word_is_named() {
        let known = ["max-message", "max-head", "origin"];
        for (word, expected) in [
            ("max-mesage", Some("max-message")),
            ("MAX_HEAD", Some("max-head")),
            ("origins", Some("origin")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn names_in_a_file_are_relative_to_its_folder() {
        for (file, name, expected) in [
            ("b.toml", "token", "token"),
            ("/etc/slotcast/b.toml", "token", "/etc/slotcast/token"),
            ("conf/b.toml", "../token", "conf/../token"),
            ("conf/b.toml", "/run/token", "/run/token"),
        ] {
            assert_eq!(File::parse(file, "").ok().unwrap().beside(name), expected);
        }
    }
}
