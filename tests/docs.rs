//! Checks the documents against the command and the files: flags and their defaults, causes, links, and the length of
//! pages and of their lines.

use std::fs;
use std::path::{Path, PathBuf};

use slotcast::Cause;

/// The longest that pages for newcomers may be, in bytes; the rest of the manual is in docs/.
const LONGEST: [(&str, usize); 2] = [("README.md", 8192), ("ARCHITECTURE.md", 9216)];

/// The longest line, in characters, in blocks of code as well; only rows of tables may be longer.
const LONGEST_LINE: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: those at the root, those in docs/, and those beside the code that they describe.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "bench", "tests/silence", "tests/planted"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let mut pages: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages
}

/// The lines of a page that are prose or tables, without blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The targets of a page's links: `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// A page's headings, written like the part of a link after `#`, as GitHub makes it.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The fault of a link of this page.
fn fault(page: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.to_owned() } else { page.parent()?.join(path) };
    if !target.exists() {
        return Some(format!("{}: there is no {link}", page.display()));
    }
    let text = if path.is_empty() { text.to_owned() } else { fs::read_to_string(&target).unwrap_or_default() };
    let is_there = anchor.is_empty() || anchors(&text).iter().any(|it| it == anchor);
    (!is_there).then(|| format!("{}: {link}: no such heading", page.display()))
}

#[test]
fn what_is_read_first_is_short() {
    for (name, most) in LONGEST {
        let length = fs::read_to_string(root().join(name)).unwrap().len();
        assert!(length <= most, "{name} has {length} bytes, at most {most}; move some into docs/");
    }
}

#[test]
fn the_picture_is_small() {
    let length = fs::metadata(root().join("docs/chat.webp")).unwrap().len();
    assert!(length <= 60 << 10, "docs/chat.webp has {length} bytes");
}

/// The lines of a page that are too long.
fn long_lines(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('|'));
    lines.filter(|line| line.chars().count() > LONGEST_LINE).collect()
}

#[test]
fn lines_are_short() {
    let mut faults = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        faults.extend(long_lines(&text).iter().map(|line| format!("{}: {line}", page.display())));
    }
    assert!(faults.is_empty(), "more than {LONGEST_LINE} characters\n{}", faults.join("\n"));
}

#[test]
fn bites_long_lines() {
    let (long, longer) = ("ä".repeat(120), "ä".repeat(121));
    let text = format!("{long}\n{longer}\n| {longer} |\n```\n{longer}\n```\n");
    assert_eq!(long_lines(&text), [&longer, &longer]);
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    assert!(pages.len() >= 12, "{pages:?}");
    let mut faults = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        faults.extend(links(&text).iter().filter_map(|link| fault(&page, &text, link)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn bites_links_that_lead_nowhere() {
    let page = root().join("docs/internals.md");
    let text = "# A: b → c\n[1](#a-b--c) [2](#a) [3](websocket.md)\n```\n[4](nowhere.md)\n# x\n```\n[5](nowhere.md)\n\
                [6](websocket.md#order) [7](websocket.md#nowhere) [8](https://example.com/nowhere) [9](#x)";
    let found = links(text);
    assert_eq!(found.len(), 8, "{found:?}");
    let faulty: Vec<&str> = found.into_iter().filter(|link| fault(&page, text, link).is_some()).collect();
    assert_eq!(faulty, ["#a", "nowhere.md", "websocket.md#nowhere", "#x"]);
}

#[test]
fn the_manual_is_linked_from_the_readme() {
    let readme = include_str!("../README.md");
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !name.ends_with(".md") || readme.contains(&format!("](docs/{name})")),
            "README.md has no link to {name}"
        );
    }
}

#[test]
fn every_cause_is_explained() {
    let page = include_str!("../docs/operations.md");
    let (_, table) = page.split_once("### Why connections end").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let names: Vec<&str> = table.lines().filter_map(|line| line.split('|').nth(1)).collect();
    let count = |cause: &str| names.iter().filter(|cell| cell.contains(&format!("`{cause}`"))).count();
    for cause in Cause::ALL {
        assert_eq!(count(cause.as_str()), 1, "{cause} in the table of docs/operations.md");
    }
    let told = names.iter().map(|cell| cell.matches('`').count() / 2).sum::<usize>();
    assert_eq!(told, Cause::ALL.len(), "one of these is no cause: {names:?}");
}

#[test]
fn every_metric_is_explained() {
    let (source, page) = (include_str!("../src/relay/metrics.rs"), include_str!("../docs/operations.md"));
    let literals = source.split('"').skip(1).step_by(2);
    let names: Vec<&str> =
        literals.filter(|text| text.starts_with("slotcast_")).filter(|text| !text.contains('{')).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}{{")), "{name}");
    }
}

#[cfg(feature = "daemon")]
mod flags {
    use std::fs;
    use std::process::Command;

    use super::root;

    const BEGIN: &str = "<!-- flags -->\n";
    const END: &str = "<!-- end of flags -->\n";

    /// Flags under these headings are bounds, so the page says what happens past each.
    const BOUNDS: [&str; 3] = ["Limits", "Timeouts", "History (of each channel)"];

    /// One line of `slotcast --help`.
    struct Flag {
        heading: String,
        name: String,
        /// The kind of value that it takes, such as `ADDR`; empty for a switch.
        value: String,
        default: Option<String>,
        text: String,
        /// When a change in the configuration file holds.
        reload: &'static str,
    }

    /// What the help says of flags whose changes do not hold at once, and what the page says.
    const RELOADS: [(&str, &str); 3] =
        [("for new connections:", "new connections"), ("after a restart:", "restart"), ("not in the file:", "")];

    /// Every flag that has a default or sets something: all except `-h` and `-V`.
    fn flags() -> Vec<Flag> {
        let output = Command::new(env!("CARGO_BIN_EXE_slotcast")).arg("--help").env_clear().output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let (mut heading, mut flags) = (String::new(), Vec::new());
        let lines = |start| {
            help.lines().find_map(move |line| line.trim().strip_prefix(start)).unwrap_or_else(|| panic!("{start}"))
        };
        let reload = |name: &str| {
            let later = RELOADS.iter().find(|(start, _)| lines(*start).split_whitespace().any(|flag| flag == name));
            later.map_or("at once", |(_, reload)| reload)
        };
        for line in help.lines() {
            match line.strip_suffix(':') {
                Some(title) if !line.starts_with(' ') => heading = title.to_owned(),
                _ if line.trim_start().starts_with("--") => {
                    let flag = flag(&heading, line.trim());
                    flags.push(Flag { reload: reload(&flag.name), ..flag });
                }
                _ => {}
            }
        }
        flags
    }

    fn flag(heading: &str, line: &str) -> Flag {
        let (left, text) = line.split_once("  ").unwrap_or_else(|| panic!("{line}: it is wrapped"));
        let (name, value) = left.split_once(' ').unwrap_or((left, ""));
        let (text, default) = match text.strip_suffix(']').and_then(|text| text.rsplit_once(" [")) {
            // This one depends on the machine.
            Some((text, _)) if name == "--max-connections" => (text, Some("descriptors − 128".to_owned())),
            Some((text, default)) => (text, Some(format!("`{default}`"))),
            None => (text, None),
        };
        let value = value.trim_matches(['<', '>']).to_owned();
        let (heading, name, text) = (heading.to_owned(), name.to_owned(), text.trim().to_owned());
        Flag { heading, name, value, default, text, reload: "at once" }
    }

    /// A table for each heading of the help.
    fn tables(flags: &[Flag]) -> String {
        let (mut page, mut heading) = (String::new(), "");
        for flag in flags {
            if flag.heading != heading {
                heading = &flag.heading;
                page.push_str(&format!(
                    "\n### {heading}\n\n| flag | default | reload | |\n| --- | --- | --- | --- |\n"
                ));
            }
            let shown = format!("{} {}", flag.name, flag.value);
            let default = flag.default.as_deref().unwrap_or_default();
            let (shown, reload) = (shown.trim(), flag.reload);
            page.push_str(&format!("| `{shown}` | {default} | {reload} | {} |\n", with_code(&flag.text)));
        }
        page + "\n"
    }

    /// The text with each flag in it as code.
    fn with_code(text: &str) -> String {
        let word = |word: &str| {
            let end = word.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(word.len());
            let (flag, rest) = word.split_at(end);
            if flag.starts_with("--") { format!("`{flag}`{rest}") } else { word.to_owned() }
        };
        text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_configuration_page_has_the_table_of_flags() {
        let path = root().join("docs/configuration.md");
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect(BEGIN);
        let (found, after) = rest.split_once(END).expect(END);
        let flags = flags();
        assert!(flags.len() >= 30, "{} flags", flags.len());
        let tables = tables(&flags);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
            return;
        }
        assert!(
            found == tables,
            "docs/configuration.md does not have the flags of `slotcast --help`; write them with\n  \
             UPDATE=1 cargo test --test docs configuration"
        );
    }

    #[test]
    fn the_configuration_page_says_what_happens_past_each_limit() {
        let page = include_str!("../docs/configuration.md");
        let (_, by_hand) = page.split_once(END).unwrap();
        let (_, past) = by_hand.split_once("## Past a limit").unwrap();
        let (past, _) = past.split_once("\n## ").unwrap();
        let flags = flags();
        for flag in flags.iter().filter(|flag| BOUNDS.contains(&flag.heading.as_str())) {
            let rows = past.matches(&format!("\n| `{}` |", flag.name)).count();
            assert_eq!(rows, 1, "rows of {} in \"Past a limit\" of docs/configuration.md", flag.name);
        }
        for row in by_hand.lines().filter_map(|line| line.strip_prefix("| `--")) {
            let name = format!("--{}", row.split(['`', ' ']).next().unwrap_or_default());
            assert!(flags.iter().any(|flag| flag.name == name), "there is no {name}");
        }
    }

    #[test]
    fn bites_flags_of_the_help_that_are_not_as_in_the_table() {
        let line = "--max-outbound <SIZE>   Unsent; at least 8 x --max-message, see --help. [8MiB]";
        let tables = tables(&[flag("Limits", line), flag("Running", "--check   Check the configuration, and exit")]);
        let expected = "\n### Limits\n\n| flag | default | reload | |\n| --- | --- | --- | --- |\n\
                        | `--max-outbound SIZE` | `8MiB` | at once | Unsent; at least 8 x `--max-message`, see `--help`. |\n\
                        \n### Running\n\n| flag | default | reload | |\n| --- | --- | --- | --- |\n\
                        | `--check` |  | at once | Check the configuration, and exit |\n\n";
        assert_eq!(tables, expected);
    }
}

#[test]
fn the_oldest_rust_is_the_same_in_the_readme_and_in_the_manifest() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let oldest = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    let readme = fs::read_to_string("README.md").unwrap();
    assert!(readme.contains(&format!("Rust {oldest} or later")), "the README does not say Rust {oldest}");
}
