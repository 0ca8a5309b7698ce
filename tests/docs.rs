//! What is written for readers, against what the command says and what is there: flags and their defaults, causes, links,
//! and the length of the README.

use std::fs;
use std::path::{Path, PathBuf};

use slotcast::Cause;

/// A newcomer reads no more than this, in bytes; the rest of the manual is in docs/.
const LONGEST_README: usize = 8192;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page: those at the root, in docs/, and beside what they are about.
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

/// A page's headings as the part of a link after `#`, which is made of them as GitHub does.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// What is wrong with a link of that page.
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
fn the_readme_is_short() {
    let length = include_str!("../README.md").len();
    assert!(length <= LONGEST_README, "README.md has {length} bytes, at most {LONGEST_README}; move some into docs/");
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
    let text = "# A: b → c\n[1](#a-b--c) [2](#a) [3](dialect.md)\n```\n[4](nowhere.md)\n# x\n```\n[5](nowhere.md)\n\
                [6](dialect.md#order) [7](dialect.md#nowhere) [8](https://example.com/nowhere) [9](#x)";
    let found = links(text);
    assert_eq!(found.len(), 8, "{found:?}");
    let faulty: Vec<&str> = found.into_iter().filter(|link| fault(&page, text, link).is_some()).collect();
    assert_eq!(faulty, ["#a", "nowhere.md", "dialect.md#nowhere", "#x"]);
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
    let page = include_str!("../docs/operating.md");
    let (_, table) = page.split_once("### Why connections end").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let names: Vec<&str> = table.lines().filter_map(|line| line.split('|').nth(1)).collect();
    let count = |cause: &str| names.iter().filter(|cell| cell.contains(&format!("`{cause}`"))).count();
    for cause in Cause::ALL {
        assert_eq!(count(cause.as_str()), 1, "{cause} in the table of docs/operating.md");
    }
    let told = names.iter().map(|cell| cell.matches('`').count() / 2).sum::<usize>();
    assert_eq!(told, Cause::ALL.len(), "one of these is no cause: {names:?}");
}

#[test]
fn every_metric_is_explained() {
    let (source, page) = (include_str!("../src/relay/metrics.rs"), include_str!("../docs/operating.md"));
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
    use std::process::Command;

    /// `--name` and its default, for each flag of `slotcast --help`.
    fn flags() -> Vec<(String, Option<String>)> {
        let output = Command::new(env!("CARGO_BIN_EXE_slotcast")).arg("--help").env_clear().output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let lines = help.lines().map(str::trim).filter(|line| line.starts_with("--"));
        let default =
            |line: &str| line.strip_suffix(']').and_then(|line| line.rsplit_once('[')).map(|(_, it)| it.to_owned());
        lines.map(|line| (line.split(' ').next().unwrap_or_default().to_owned(), default(line))).collect()
    }

    #[test]
    fn each_has_one_row_with_its_default() {
        let page = include_str!("../docs/operating.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `--")).collect();
        let flags = flags();
        assert!(flags.len() >= 30, "{flags:?}");
        for (name, default) in &flags {
            let names = |row: &&&str| {
                let names = row.split('|').nth(1).unwrap_or_default();
                names.contains(&format!("`{name}`")) || names.contains(&format!("`{name} "))
            };
            let found: Vec<_> = rows.iter().filter(names).collect();
            let [row] = found[..] else { panic!("{name} has {} rows in docs/operating.md", found.len()) };
            let shown = row.split('|').nth(2).unwrap_or_default();
            // That of --max-connections depends on the machine.
            if let Some(default) = default.as_ref().filter(|_| name != "--max-connections") {
                assert!(shown.contains(&format!("`{default}`")), "{name}: {default} is not in {row}");
            }
        }
        for row in rows {
            let name = row.trim_start_matches(['|', ' ', '`']).split(['`', ' ']).next().unwrap_or_default();
            assert!(flags.iter().any(|(flag, _)| flag == name), "there is no {name}");
        }
    }
}
