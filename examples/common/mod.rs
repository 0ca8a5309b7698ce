//! How every example begins: `--help`, where to listen, and errors that say what to do.

use std::io::ErrorKind;
use std::process::ExitCode;

use slotcast::Config;

/// Runs an example with a configuration that listens where the user says, and with all arguments. `usage` begins with
/// the example's name, and has the word ADDRESS in the place of that argument. Without the argument and PORT it listens
/// on `port`.
pub fn start(
    usage: &str,
    about: &str,
    port: u16,
    run: impl FnOnce(Config, &[String]) -> std::io::Result<()>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--help" || it == "-h") {
        println!("{about}\n\nUsage: cargo run --example {usage}\n");
        println!("ADDRESS is 9000, :9000 (all interfaces) or HOST:PORT [localhost:{port}].");
        println!("PORT in the environment counts where there is no ADDRESS.\n");
        println!("Exit codes: 1 failed while running, 2 wrong usage.");
        return ExitCode::SUCCESS;
    }
    let name = usage.split(' ').next().unwrap_or_default();
    let fail = |code: u8, why: String| {
        eprintln!("{name}: {why}");
        ExitCode::from(code)
    };
    if let Some(flag) = arguments.iter().find(|it| it.starts_with("--")) {
        return fail(2, format!("there is no {flag}; see --help"));
    }
    let place = usage.split(' ').skip(1).position(|it| it.contains("ADDRESS"));
    let given = place.and_then(|place| arguments.get(place).cloned()).or(std::env::var("PORT").ok());
    let address = given.unwrap_or(port.to_string());
    let done = match Config::listen_on(&address) {
        Ok(config) => run(config, &arguments),
        Err(error) => return fail(2, error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::AddrInUse => fail(
            1,
            format!("cannot listen on {address}: address already in use; choose another, as in PORT=9000 or {usage}"),
        ),
        Err(error) => fail(1, error.to_string()),
    }
}
