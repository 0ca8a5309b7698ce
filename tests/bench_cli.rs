//! `slotcast bench` as a child process: with the broker it finds no faults, and with servers that lie it says how they
//! lie.
#![cfg(feature = "daemon")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use common::{ACCEPT, BINARY, Broker, CLOSE, FIN, PING, Peer, TEXT, close_payload};
use serde_json::Value;

/// Runs with these arguments; returns exit code and report, and what was printed instead of a report.
fn bench(url: &str, arguments: &str) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
    command.env_clear().args(["bench", url, "--json"]).args(arguments.split_whitespace());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), report, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_broker_loses_nothing_in_any_mode() {
    let broker = Broker::start(|_| {});
    let own = std::process::id();
    let table = [
        ("--subscribers 20 --messages 50 --size 20", 1000),
        ("--subscribers 30 --messages 70 --size 512 --in-flight 64 --publishers 7", 2100),
        ("--subscribers 10 --messages 20 --size 70000 --in-flight 3", 200),
        ("--subscribers 10 --messages 40 --rate 2000 --publishers 10", 400),
        ("--subscribers 20 --messages 100 --mode echo --in-flight 5", 100),
        ("--subscribers 3 --messages 9 --mode echo --size 1MiB", 9),
        ("--subscribers 5 --messages 50 --mode echo --rate 1000", 50),
        ("--mode connect --messages 30 --in-flight 4", 30),
    ];
    for (i, (arguments, deliveries)) in table.into_iter().enumerate() {
        let url = format!("ws://{}/load{i}", broker.address);
        let (code, report, said) = bench(&url, &format!("{arguments} --warmup 0 --server-pid {own}"));
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments}: {report}");
        assert_eq!(report["clean"], true, "{arguments}: {report}");
        let counted = report["deliveries"].as_u64().unwrap();
        // Many handshakes are under way at once, and more than one may be the last.
        assert!(
            counted == deliveries || arguments.contains("connect") && counted > deliveries,
            "{arguments}: {report}"
        );
        assert!(report["latency_us"]["p50"].as_f64() > Some(0.0), "{arguments}: {report}");
        assert_eq!(report["server"].is_object(), cfg!(target_os = "linux"), "{arguments}: {report}");
    }
}

#[test]
fn idle_connections_are_held_and_counted() {
    let broker = Broker::start(|config| config.limits.ping_interval = std::time::Duration::from_millis(50));
    let url = format!("ws://{}/idle", broker.address);
    let (code, report, said) = bench(&url, "--mode idle --subscribers 50 --warmup 0 --duration 500ms");
    // The pings were answered, or the broker would have closed.
    assert_eq!((code, said.as_str(), &report["closed"]), (Some(0), "", &Value::from(0)), "{report}");
}

#[test]
fn the_report_is_text_unless_it_is_to_be_json() {
    let broker = Broker::start(|_| {});
    let url = format!("ws://{}/text", broker.address);
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotcast"));
    let command = command.env_clear().args(["bench", &url, "--subscribers", "3", "--messages", "5", "--warmup", "0"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("broadcast "), "{text}");
    for part in ["deliveries   1", "latency, ms  p50 ", "0 lost, 0 doubled, 0 disordered, 0 wrong", "generator "] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn usage_errors_exit_2_and_a_server_that_is_not_there_1() {
    let (code, _, said) = bench("http://localhost/", "");
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("slotcast: ") && said.contains("does not begin with ws://"), "{said}");
    // This socket has the port and does not listen, so that nobody else gets the port meanwhile.
    let deaf = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let free = deaf.local_addr().unwrap().as_socket().unwrap();
    let (code, _, said) = bench(&format!("ws://{free}/"), "--subscribers 1 --messages 1");
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    let broker = Broker::start(|_| {});
    let (code, _, said) = bench(&format!("ws://{}/a//b", broker.address), "--subscribers 1 --messages 1");
    assert!(code == Some(1) && said.contains("400"), "{said}");
}

/// A server for one connection: it sends back each of 20 messages as `lie` changes it, by its number. Then it closes,
/// or waits to be closed.
fn liar(lie: Lie, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut peer = Peer::over(listener.accept().unwrap().0);
        peer.read_head();
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        peer.write(head.as_bytes());
        for number in 0..20 {
            let (opcode, payload) = read_masked(&mut peer);
            assert_eq!(opcode, FIN | BINARY);
            peer.write(&lie(number, &payload));
        }
        if closes {
            peer.write(&served(CLOSE, &close_payload(1013, "slow")));
        }
        while read_masked(&mut peer).0 != FIN | CLOSE {}
    });
    format!("ws://{address}/")
}

type Lie = fn(usize, &[u8]) -> Vec<u8>;

fn read_masked(peer: &mut Peer) -> (u8, Vec<u8>) {
    let start = peer.read_exact(6);
    assert!((0x80..0x80 + 126).contains(&start[1]), "a short masked frame");
    let payload = peer.read_exact(usize::from(start[1] & 0x7f));
    (start[0], payload.iter().zip(start[2..].iter().cycle()).map(|(byte, key)| byte ^ key).collect())
}

fn served(opcode: u8, payload: &[u8]) -> Vec<u8> {
    [&[FIN | opcode, payload.len() as u8], payload].concat()
}

/// The payload with a larger sequence, which comes after run and publisher, 32 bits each.
fn renumbered(payload: &[u8], by: u8) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload[8] ^= by;
    served(BINARY, &payload)
}

#[test]
fn a_server_that_lies_is_found_out() {
    let loses: Lie = |number, payload| if number == 7 { Vec::new() } else { served(BINARY, payload) };
    let doubles: Lie = |number, payload| served(BINARY, payload).repeat(1 + usize::from(number == 7));
    let disorders: Lie = |number, payload| renumbered(payload, u8::from(number == 6 || number == 7));
    let invents: Lie = |number, payload| renumbered(payload, if number == 7 { 0xff } else { 0 });
    let cuts: Lie = |number, payload| served(BINARY, &payload[usize::from(number == 7)..]);
    let shortens: Lie = |number, payload| served(BINARY, &payload[..31 + usize::from(number != 7)]);
    let babbles: Lie = |_, payload| [served(PING, b"?"), served(TEXT, b"queued"), served(BINARY, payload)].concat();
    let masks: Lie = |_, _| vec![FIN | BINARY, 0x80, 0, 0, 0, 0];
    // lie, whether it closes; lost, doubled, disordered, wrong, foreign, closed
    let table: [(&str, Lie, bool, [u64; 6]); 9] = [
        ("is honest", |_, payload| served(BINARY, payload), false, [0, 0, 0, 0, 0, 0]),
        ("babbles", babbles, false, [0, 0, 0, 0, 20, 0]),
        ("loses one", loses, true, [1, 0, 0, 0, 0, 1]),
        ("doubles one", doubles, false, [0, 1, 0, 0, 0, 0]),
        ("disorders two", disorders, false, [0, 0, 1, 0, 0, 0]),
        ("invents one", invents, true, [1, 0, 0, 1, 0, 1]),
        ("cuts one, and thereby its run's number", cuts, true, [1, 0, 0, 0, 1, 1]),
        ("shortens one", shortens, true, [1, 0, 0, 1, 0, 1]),
        ("masks", masks, true, [20, 0, 0, 0, 0, 1]),
    ];
    for (name, lie, closes, expected) in table {
        // All at once, so that the server has several when it disorders them.
        let arguments = "--subscribers 1 --size 32 --rate 100000 --messages 20 --warmup 0";
        let (code, report, said) = bench(&liar(lie, closes), arguments);
        let found = ["lost", "doubled", "disordered", "wrong", "foreign", "closed"].map(|key| report[key].as_u64());
        assert_eq!(found, expected.map(Some), "{name}: {report} {said}");
        let is_clean = expected[..4] == [0; 4] && !closes;
        assert_eq!(code, Some(i32::from(!is_clean)), "{name}: {report}");
        if closes && name != "masks" {
            assert_eq!(report["why"], "connection 0: Close with 1013 \"slow\"", "{name}");
        }
    }
}
