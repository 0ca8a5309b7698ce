//! The README's table of flags against what the command itself says.
#![cfg(feature = "daemon")]

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
fn the_readme_names_every_flag_with_its_default() {
    let readme = include_str!("../README.md");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `--")).collect();
    let flags = flags();
    assert!(flags.len() >= 30, "{flags:?}");
    for (name, default) in &flags {
        let names = |row: &&&str| {
            let names = row.split('|').nth(1).unwrap_or_default();
            names.contains(&format!("`{name}`")) || names.contains(&format!("`{name} "))
        };
        let row = rows.iter().find(names);
        let row = row.unwrap_or_else(|| panic!("{name} is not in the README's table"));
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
