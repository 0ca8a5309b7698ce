//! Many threads that publish through a handle.
//!
//! THREAD_MESSAGES and THREAD_SUBSCRIBERS make it larger.

use std::collections::HashMap;
use std::time::Instant;

use slotcast::Config;
use slotcast::handle::HandleError;

use crate::common::{Broker, Peer};

const THREADS: usize = 10;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// No publisher waits: a message that does not fit is an error value, and is tried again here. All messages that were
/// taken come to everybody, in the order of each thread.
#[test]
fn ten_publish_to_everybody_in_their_order() {
    let (each, subscribers) = (number("THREAD_MESSAGES", 2000), number("THREAD_SUBSCRIBERS", 10));
    let broker = Broker::start(|config: &mut Config| {
        // Readers share two cores with publishers: how fast they are does not matter here.
        config.limits.max_outbound = 1 << 30;
        config.limits.max_outbound_total = 2 << 30;
    });
    let mut peers: Vec<Peer> = (0..subscribers).map(|_| broker.join("/chat")).collect();
    let begun = Instant::now();
    let full: usize = std::thread::scope(|scope| {
        for peer in &mut peers {
            scope.spawn(move || expect_all(peer, each));
        }
        let publishers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let handle = broker.handle.clone();
                scope.spawn(move || {
                    let mut full = 0;
                    for i in 0..each {
                        let message = format!("{thread} {i:07}");
                        while let Err(error) = handle.publish("/chat", message.as_str()) {
                            assert_eq!(error, HandleError::Full);
                            full += 1;
                            std::thread::yield_now();
                        }
                    }
                    full
                })
            })
            .collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum()
    });
    let deliveries = THREADS * each * subscribers;
    println!("{deliveries} deliveries in {:.1?}; {full} times there was no room", begun.elapsed());
}

/// Expects the frames of all messages, all of one size. `Peer` would read them one by one.
fn expect_all(peer: &mut Peer, each: usize) {
    let mut next: HashMap<u8, usize> = HashMap::new();
    for _ in 0..THREADS * each {
        let frame = peer.read_exact(11);
        assert_eq!((frame[0], frame[1], frame[3]), (0x81, 9, b' '), "{frame:?}");
        let number: usize = std::str::from_utf8(&frame[4..]).unwrap().parse().unwrap();
        let expected = next.entry(frame[2]).or_default();
        assert_eq!(number, *expected, "thread {}", frame[2]);
        *expected += 1;
    }
    assert!(next.len() == THREADS && next.values().all(|count| *count == each));
}
