//! Sends everything that came in one turn in one `send` to every subscriber.
fn main() {
    floor::serve(true);
}
