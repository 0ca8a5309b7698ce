//! The planted bugs: checks that each still applies. `make planted` proves that each is noticed.

use std::path::Path;
use std::process::Command;

#[test]
fn every_patch_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut patches: Vec<_> = std::fs::read_dir(root.join("tests/planted"))
        .expect("tests/planted")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    assert!(patches.len() >= 10, "{} planted bugs", patches.len());
    let mut stale = Vec::new();
    for patch in &patches {
        let check = Command::new("git").args(["apply", "--check"]).arg(patch).current_dir(root).output();
        let check = check.expect("git");
        if !check.status.success() {
            stale.push(format!("{}: {}", patch.display(), String::from_utf8_lossy(&check.stderr)));
        }
    }
    assert!(stale.is_empty(), "{} patches do not apply; see tests/planted/README.md\n{}", stale.len(), stale.concat());
}
