//! Chunks (RFC 9112 §7.1). Each event of a stream is one chunk, so that every range of a batch consists of whole
//! chunks. Without chunks many clients read a stream in blocks: a message then waits until later ones have filled
//! the block.

/// What ends a stream.
pub(super) const LAST: &[u8] = b"0\r\n\r\n";

/// Stands for a chunk's size until that is known. Leading zeros are allowed: they keep room, so that nothing is moved.
const SIZE: &[u8] = b"0000";

/// What follows the size of a chunk, and the chunk itself.
pub(super) const AFTER: &[u8] = b"\r\n";

/// Appends one chunk with what `encode` writes; nothing if it writes nothing, because an empty chunk ends the stream.
pub(super) fn write(target: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = target.len();
    target.extend_from_slice(SIZE);
    target.extend_from_slice(b"\r\n");
    let begin = target.len();
    encode(target);
    let mut left = target.len() - begin;
    if left == 0 {
        target.truncate(start);
        return;
    }
    let mut at = start + SIZE.len();
    while left > 0 {
        if at == start {
            // Only a chunk of 64 KiB or more has a longer size.
            target.insert(at, b'0');
            at += 1;
        }
        at -= 1;
        if let Some(place) = target.get_mut(at) {
            *place = b"0123456789abcdef"[left % 16];
        }
        left /= 16;
    }
    target.extend_from_slice(b"\r\n");
}

/// Appends the size line of a chunk of `length` bytes. The caller then appends the bytes and `AFTER`.
pub(super) fn begin(target: &mut Vec<u8>, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(SIZE.len() as u32);
    target.extend((0..digits).rev().map(|place| b"0123456789abcdef"[length >> (4 * place) & 15]));
    target.extend_from_slice(AFTER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (length, size) in [
            (1, "0001"),
            (15, "000f"),
            (16, "0010"),
            (0xfedc, "fedc"),
            (0xffff, "ffff"),
            (0x1_0000, "10000"),
            (0x10_00ab, "1000ab"),
        ] {
            let mut target = b"before".to_vec();
            let content = vec![b'x'; length];
            write(&mut target, |target| target.extend_from_slice(&content));
            let expected = [b"before", size.as_bytes(), b"\r\n", &content, b"\r\n"].concat();
            assert!(target == expected, "{length}: {:?}", String::from_utf8_lossy(&target[..20.min(target.len())]));
            let mut target = b"before".to_vec();
            begin(&mut target, length);
            target.extend_from_slice(&content);
            target.extend_from_slice(AFTER);
            assert!(target == expected, "{length}, known before");
        }
        let mut target = b"before".to_vec();
        write(&mut target, |_| {});
        assert_eq!(target, b"before", "a chunk of nothing is the last");
    }
}
