//! Many connections at once.

use crate::common::{Broker, Peer, TEXT, bind, upgrade_request};

/// All come back at once after a restart, some of them before the broker has begun to look.
#[test]
fn a_herd_of_two_thousand_reconnects() {
    let server = bind(|_| {});
    let address = server.local_addrs()[0];
    let request = upgrade_request("/herd", "");
    let connect = |count: usize| -> Vec<Peer> {
        let one = |_| {
            let mut peer = Peer::connect(address);
            peer.write(request.as_bytes());
            peer
        };
        (0..count).map(one).collect()
    };
    // Fewer than the backlog: the kernel holds them.
    let mut peers = connect(1000);
    let broker = Broker::of(server);
    peers.extend(connect(1000));
    for (i, peer) in peers.iter_mut().enumerate() {
        let head = peer.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{i}: {head}");
    }
    peers[1234].send(TEXT, b"all here?");
    for peer in &mut peers {
        peer.expect_text("all here?");
    }
    for peer in peers.drain(..500) {
        peer.reset();
    }
    for _ in 0..500 {
        broker.next_cause();
    }
    peers[0].send(TEXT, b"and now?");
    for peer in &mut peers {
        peer.expect_text("and now?");
    }
}
