//! Sends every message to every subscriber in a `send` of its own.
fn main() {
    floor::serve(false);
}
