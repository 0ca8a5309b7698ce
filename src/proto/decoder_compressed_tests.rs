//! Compressed messages (RFC 7692 §6): collected as they are, and checked once they are inflated.

use super::tests::End::{Fails, Rest};
use super::tests::{check_deflating, frame};
use super::*;

#[test]
fn rfc_7692_section_6() {
    let text = |payload: &[u8]| Step::Compressed(Kind::Text, payload.to_vec());
    // The payload need not be UTF-8: the text is checked once it is inflated.
    check_deflating("whole", &[frame(0xc1, b"\xff\x00")], vec![text(b"\xff\x00")], Rest);
    check_deflating("empty", &[frame(0xc1, b"")], vec![text(b"")], Rest);
    let pieces = [frame(0x41, b"\xff"), frame(0x00, b"\xc0"), frame(0x80, b"!")];
    check_deflating("pieces", &pieces, vec![Step::Fragment, Step::Fragment, text(b"\xff\xc0!")], Rest);
    let long = [frame(0x42, &[1; 4]), frame(0x80, &[2; MOST_GROWTH])];
    let whole = Step::Compressed(Kind::Binary, [&[1; 4][..], &[2; MOST_GROWTH]].concat());
    check_deflating("as long as it may be", &long, vec![Step::Fragment, whole], Rest);
    let longer = [frame(0x42, &[1; 4]), frame(0x80, &[2; MOST_GROWTH + 1])];
    check_deflating("one byte longer", &longer, vec![Step::Fragment], Fails(1009, 10 + 14));
    check_deflating("not compressed", &[frame(0x82, b"abcde")], vec![], Fails(1009, 6));
    let after = [frame(0xc2, b"a"), frame(0x81, b"\xff")];
    check_deflating(
        "the next one is not",
        &after,
        vec![Step::Compressed(Kind::Binary, b"a".to_vec())],
        Fails(1007, 14),
    );
    for (name, first) in [("RSV1 on a ping", 0xc9), ("on a Close", 0xc8), ("RSV2", 0xa1), ("RSV1 and RSV3", 0xd1)] {
        check_deflating(name, &[frame(first, b"")], vec![], Fails(1002, 1));
    }
    check_deflating("RSV1 inside", &[frame(0x41, b"a"), frame(0xc0, b"")], vec![Step::Fragment], Fails(1002, 8));
}
