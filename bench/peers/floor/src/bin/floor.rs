//! One `send` for every message to every subscriber.
fn main() {
    floor::serve(false);
}
