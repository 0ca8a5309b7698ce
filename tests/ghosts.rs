//! Peers whose network is gone while messages flow. Once, they stayed members until the system gave up the connections,
//! after 938 s.
#![cfg(all(feature = "daemon", target_os = "linux"))]

use std::process::Command;

#[test]
fn followers_whose_network_is_gone_are_no_members_for_long() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ghosts.sh");
    let has =
        |tool: &str| Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success();
    let missing: Vec<&str> =
        ["unshare", "nsenter", "ip", "curl", "pgrep", "bash"].into_iter().filter(|tool| !has(tool)).collect();
    let allowed = missing.is_empty() && {
        let veth = "ip link add here type veth peer name there";
        Command::new("unshare").args(["-n", "sh", "-c", veth]).output().unwrap().status.success()
    };
    if !allowed {
        eprintln!("SKIPPED: ghosts need networks of their own, so root, and these tools: {missing:?}");
        return;
    }
    let output = Command::new("unshare").args(["-n", "bash", script, env!("CARGO_BIN_EXE_slotcast")]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}
