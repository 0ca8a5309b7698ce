//! The code that a byte goes through, without sockets: `make micro`. Times are of one call; items and bytes say how
//! much work that is.

mod rig;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

use slotcast::delivery::batch::Batches;
use slotcast::limits::Limits;
use slotcast::proto::decoder::{Decoder, Step};
use slotcast::proto::frame::{Opcode, write_header};
use slotcast::proto::{mask, utf8};

use rig::{Rig, frame};

const SIZES: [usize; 4] = [32, 512, 16 * 1024, 1024 * 1024 - 14];
const KEY: [u8; 4] = [1, 2, 3, 4];

fn main() {
    divan::main();
}

/// Unmasks while copying, like the decoder.
#[divan::bench(args = SIZES)]
fn unmask_and_copy(bencher: Bencher, size: usize) {
    let payload = vec![7; size];
    let mut target = Vec::with_capacity(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        target.clear();
        mask::extend_unmasked(&mut target, black_box(&payload), KEY, 0);
    });
}

/// Decodes a frame that is whole in the buffer into a message of its own.
#[divan::bench(args = SIZES)]
fn decode(bencher: Bencher, size: usize) {
    let (bytes, limits) = (frame(size), Limits::default());
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let mut decoder = Decoder::default();
        assert!(matches!(decoder.decode(black_box(&bytes), &limits), Ok((_, Step::Message(_)))));
    });
}

/// Writes frames one after another into a batch: the cost of a message in one encoding.
#[divan::bench(args = SIZES)]
fn encode(bencher: Bencher, size: usize) {
    let payload = vec![7; size];
    let mut batches = Batches::default();
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let batch = batches.open();
        batches.append(batch, &[], |bytes| {
            write_header(bytes, Opcode::Binary, size);
            bytes.extend_from_slice(black_box(&payload));
        });
        batches.release(batch);
    });
}

#[divan::bench(args = SIZES)]
fn utf8_of_ascii(bencher: Bencher, size: usize) {
    let text = "a".repeat(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| utf8::check(black_box(text.as_bytes())));
}

#[divan::bench(args = SIZES)]
fn utf8_of_many_scripts(bencher: Bencher, size: usize) {
    let text = "aß好🦀 ".repeat(size / 11);
    bencher.counter(BytesCount::new(text.len())).bench_local(|| utf8::check(black_box(text.as_bytes())));
}

/// A thousand handshakes, from accept until the 101 is written.
#[divan::bench(sample_count = 20)]
fn handshakes(bencher: Bencher) {
    bencher.counter(ItemsCount::new(1000_u32)).bench_local(|| Rig::new(1000, true, 1, 32));
}

/// Members, messages a turn, bytes: one turn of the broker, from the publisher's frames to the last write.
#[divan::bench(args = [(1000, 1, 32), (1000, 1, 512), (1000, 64, 32), (10_000, 1, 32), (1000, 16, 16 * 1024)])]
fn turn(bencher: Bencher, (members, burst, size): (usize, usize, usize)) {
    let mut rig = Rig::new(members, true, burst, size);
    let before = rig.calls();
    let mut turns = 0;
    bencher.counter(ItemsCount::new(members * burst)).bench_local(|| {
        turns += 1;
        rig.broadcast()
    });
    assert_eq!(rig.calls() - before, turns * members as u64, "one call a subscriber and turn");
}

/// Connections, each of which gets its own messages back, as the loop's schedule reads and writes them.
#[divan::bench(args = [(1000, 1, 32), (100, 300, 32)])]
fn schedule(bencher: Bencher, (connections, burst, size): (usize, usize, usize)) {
    let mut rig = Rig::new(connections, false, burst, size);
    bencher.counter(ItemsCount::new(connections * burst)).bench_local(|| rig.scheduled());
}

/// Connections, each of which gets its own message back, in one turn.
#[divan::bench(args = [(1000, 32), (100, 16 * 1024)])]
fn echo(bencher: Bencher, (connections, size): (usize, usize)) {
    let mut rig = Rig::new(connections, false, 1, size);
    bencher.counter(ItemsCount::new(connections)).bench_local(|| rig.echo());
}
