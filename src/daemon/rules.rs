//! Who may do what: the tables `[[channel]]` and `[[key]]` of the configuration file, and the flags about tokens.

use std::fs::File as OpenFile;
use std::io::Read;

use slotcast::access::Access;
use slotcast::access::keys::{Algorithm, Key, KeyError, Keys, Usage};
use slotcast::access::pattern::Pattern;
use slotcast::access::rule::{Presence, Rule, Rules, Who};
use slotcast::access::verifier::{Ages, Verifier};
use slotcast::{LimitsError, SlowConsumer};

use super::args::Values;
use super::file::{Content, Entry, File, Place, Table, Value};
use super::units;

/// The longest file with a key, in bytes.
const LONGEST_KEY: u64 = 1 << 20;

/// The keys of a table `[[channel]]`.
const OF_CHANNELS: [&str; 14] = [
    "match",
    "subscribe",
    "publish",
    "send",
    "presence",
    "tell-user",
    "single-channel",
    "history-messages",
    "history-bytes",
    "history-age",
    "slow-consumer",
    "max-message",
    "publish-rate",
    "max-members",
];

/// The keys of a table `[[key]]`.
const OF_KEYS: [&str; 8] = ["id", "alg", "file", "jwks", "issuer", "audience", "user-prefix", "use"];

/// What files and flags say of who may do what.
#[derive(Default)]
pub struct Said {
    rules: Option<Rules>,
    /// Each with the place that it comes from, as a message begins with it.
    keys: Vec<(Key, String)>,
    /// The files that keys were read from.
    pub key_files: Vec<String>,
}

impl Said {
    /// Reads the tables of a file.
    ///
    /// # Errors
    /// One line with the place. It contains nothing of a key.
    pub fn read(file: &File) -> Result<Said, String> {
        let mut said = Said::default();
        for table in &file.keys {
            said.read_key(file, table)?;
        }
        if let Some(first) = file.channels.first() {
            let rules = file.channels.iter().map(|table| rule(file, table)).collect::<Result<_, _>>()?;
            let rules = Rules::new(rules).map_err(|error| {
                let culprit = error.number().checked_sub(1).and_then(|at| file.channels.get(at)).unwrap_or(first);
                file.error(culprit.at, &error.to_string())
            });
            said.rules = Some(rules?);
        }
        Ok(said)
    }

    /// Reads the keys of `--token-key-file`, which have no id.
    ///
    /// # Errors
    /// One line, which begins with `source`.
    pub fn read_key_files(&mut self, source: &str, names: &[String]) -> Result<(), String> {
        for name in names {
            let key = read_bytes(name).and_then(|secret| Key::hs256("", &secret).map_err(|error| error.to_string()));
            let place = format!("{source}: {name:?}");
            self.keys.push((key.map_err(|error| format!("{place}: {error}"))?, place));
            self.key_files.push(name.clone());
        }
        Ok(())
    }

    /// Whether there are rules, or keys.
    pub fn is_something(&self) -> bool {
        self.rules.is_some() || !self.keys.is_empty()
    }

    /// Makes it what the broker asks.
    ///
    /// # Errors
    /// One line, if keys contradict each other, or a rule that names users.
    pub fn access(self, values: &Values) -> Result<Access, String> {
        let ages = Ages { leeway: values.token_leeway, max_token_age: values.max_token_age };
        let (keys, places): (Vec<Key>, Vec<String>) = self.keys.into_iter().unzip();
        let with_place = |error: KeyError| {
            let place = error.number().and_then(|number| places.get(number.checked_sub(1)?));
            place.map_or_else(|| error.to_string(), |place| format!("{place}: {error}"))
        };
        let keys = Keys::new(keys).map_err(with_place)?;
        let access = Access::by_rules(self.rules, Verifier::new(keys, ages)).map_err(with_place)?;
        Ok(access.cookie(values.token_cookie.as_deref()))
    }

    fn read_key(&mut self, file: &File, table: &Table) -> Result<(), String> {
        let fields = Fields::of(file, table, &OF_KEYS)?;
        let error = |what: &dyn std::fmt::Display| fields.error(table.at, what);
        let (id, issuer, audience) = (fields.text("id")?, fields.text("issuer")?, fields.text("audience")?);
        let prefix = fields.text("user-prefix")?;
        let usage = fields.word("use", [("token", Usage::Token), ("url", Usage::Url)])?.unwrap_or(Usage::Token);
        let algorithm = fields.word("alg", Algorithm::ALL.map(|one| (one.as_str(), one)))?;
        let read = match (fields.text("file")?, fields.text("jwks")?) {
            (Some(name), None) => {
                let algorithm = algorithm.ok_or_else(|| error(&"a key in a file needs alg, as in alg = \"HS256\""))?;
                let name = file.beside(name);
                let bytes = read_bytes(&name).map_err(|why| error(&format!("{name:?}: {why}")))?;
                self.key_files.push(name);
                let id = id.unwrap_or_default();
                let key = match algorithm {
                    Algorithm::Hs256 => Key::hs256(id, &bytes),
                    _ => Key::public(id, algorithm, &String::from_utf8_lossy(&bytes)),
                };
                vec![key.map_err(|why| error(&why))?]
            }
            (None, Some(name)) => {
                let (Some(issuer), Some(audience)) = (issuer, audience) else {
                    return Err(error(&"a key set needs issuer and audience"));
                };
                if id.is_some() || algorithm.is_some() || usage == Usage::Url {
                    return Err(error(&"a key set names its keys and algorithms itself: leave out id, alg and use"));
                }
                let name = file.beside(name);
                let bytes = read_bytes(&name).map_err(|why| error(&format!("{name:?}: {why}")))?;
                self.key_files.push(name);
                Key::from_jwks(&String::from_utf8_lossy(&bytes), issuer, audience).map_err(|why| error(&why))?
            }
            _ => return Err(error(&"a key needs either file or jwks")),
        };
        for key in read {
            let key = issuer.map_or_else(|| Ok(key.clone()), |issuer| key.clone().issuer(issuer));
            let key = key.and_then(|key| audience.map_or_else(|| Ok(key.clone()), |text| key.clone().audience(text)));
            let key = key.and_then(|key| key.user_prefix(prefix.unwrap_or_default())).and_then(|key| key.usage(usage));
            self.keys.push((key.map_err(|why| error(&why))?, file.place(table.at)));
        }
        Ok(())
    }
}

fn rule(file: &File, table: &Table) -> Result<Rule, String> {
    let fields = Fields::of(file, table, &OF_CHANNELS)?;
    let Some(shape) = fields.get("match") else {
        return Err(fields.error(table.at, &"a rule needs match, as in match = \"/rooms/*\""));
    };
    let text = fields.text("match")?.unwrap_or_default();
    let pattern = Pattern::parse(text).map_err(|error| fields.error(shape.at, &error))?;
    let words = Who::ALL.map(|who| (who.as_str(), who));
    let who = |name| fields.word(name, words);
    let needed = |name: &'static str| -> Result<Who, String> {
        let missing = || fields.error(table.at, &format!("a rule needs {name}, as in {name} = \"granted\""));
        who(name)?.ok_or_else(missing)
    };
    let mut rule = Rule::new(pattern, needed("subscribe")?, needed("publish")?);
    rule.send = who("send")?;
    let levels = Presence::ALL.map(|level| (level.as_str(), level));
    rule.presence = fields.word("presence", levels)?.unwrap_or_default();
    rule.tell_user = fields.switch("tell-user")?.unwrap_or_default();
    rule.single_channel = fields.switch("single-channel")?;
    let settings = &mut rule.settings;
    settings.history_messages = fields.parsed("history-messages", units::parse_count)?;
    settings.history_bytes = fields.parsed("history-bytes", units::parse_size)?;
    settings.history_age = fields.parsed("history-age", units::parse_time)?;
    settings.max_message = fields.parsed("max-message", units::parse_size)?;
    settings.max_members = fields.parsed("max-members", units::parse_count)?;
    let policy = |text: &str| text.parse::<SlowConsumer>().map_err(|error: LimitsError| error.to_string());
    settings.slow_consumer = fields.parsed("slow-consumer", policy)?;
    settings.publish_rate = fields.parsed("publish-rate", units::parse_count)?;
    Ok(rule)
}

/// What stands in one table.
struct Fields<'a> {
    file: &'a File,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// Checks that there are no others than the known ones.
    fn of(file: &'a File, table: &'a Table, known: &[&str]) -> Result<Fields<'a>, String> {
        let unknown = table.entries.iter().find(|entry| !known.contains(&entry.key.as_str()));
        if let Some(entry) = unknown {
            return Err(file.no_such_key(entry, known.iter().copied()));
        }
        Ok(Fields { file, entries: &table.entries })
    }

    fn error(&self, at: Place, what: &dyn std::fmt::Display) -> String {
        self.file.error(at, &what.to_string())
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name).map(|value| (value, &value.content)) {
            None => Ok(None),
            Some((_, Content::Text(text))) => Ok(Some(text)),
            Some((value, other)) => Err(self.error(value.at, &format!("{name} is a string, and not {}", other.kind()))),
        }
    }

    fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name).map(|value| (value, &value.content)) {
            None => Ok(None),
            Some((_, Content::Switch(switch))) => Ok(Some(*switch)),
            Some((value, other)) => {
                Err(self.error(value.at, &format!("{name} is true or false, and not {}", other.kind())))
            }
        }
    }

    /// A word of a list.
    fn word<T: Copy, const N: usize>(&self, name: &str, words: [(&str, T); N]) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let at = self.get(name).map(|value| value.at);
        found.map(Some).ok_or_else(|| {
            let all = words.map(|(word, _)| word).join(", ");
            at.map_or_else(String::new, |at| self.error(at, &format!("{name} is one of {all}")))
        })
    }

    /// A number, or a string that is read as on the command line.
    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = match &value.content {
            Content::Text(text) | Content::Number(text) => text,
            other => {
                let what = format!("{name} is a number or a string, and not {}", other.kind());
                return Err(self.error(value.at, &what));
            }
        };
        parse(text).map(Some).map_err(|error| self.error(value.at, &format!("{name}: {error}")))
    }
}

fn read_bytes(name: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = OpenFile::open(name).map_err(|error| error.to_string())?;
    file.take(LONGEST_KEY + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST_KEY {
        return Err("it is longer than 1 MiB".to_owned());
    }
    Ok(bytes)
}
