//! The tables `[[channel]]` and `[[key]]` of the configuration file: who may do what.

use super::file::File;

/// Reads the rules and the keys of a file.
///
/// # Errors
/// One line with the place. This version has no rules: to ignore one would let in whom it keeps out.
pub fn read(file: &File) -> Result<(), String> {
    for (name, tables) in [("channel", &file.channels), ("key", &file.keys)] {
        if let Some(first) = tables.first() {
            return Err(file.error(first.at, &format!("[[{name}]] is for a later version: this one has no rules")));
        }
    }
    Ok(())
}
