//! All that came in one turn in one `send` for every subscriber.
fn main() {
    floor::serve(true);
}
