//! Masking (RFC 6455 §5.3): XOR with a four-byte key that repeats, at memory speed.

/// Appends `source` to `target`, unmasked with `key`; `phase` is how many payload bytes of the frame came before.
pub fn extend_unmasked(target: &mut Vec<u8>, source: &[u8], key: [u8; 4], phase: usize) {
    let mut turned = key;
    turned.rotate_left(phase % 4);
    let mut wide = [0; 64];
    wide.as_chunks_mut::<4>().0.iter_mut().for_each(|four| *four = turned);
    target.reserve(source.len());
    // Unmasks in registers, instead of copying first and going over the copy again.
    let (blocks, rest) = source.as_chunks::<64>();
    for block in blocks {
        let mut block = *block;
        block.iter_mut().zip(&wide).for_each(|(byte, key)| *byte ^= key);
        target.extend_from_slice(&block);
    }
    target.extend_from_slice(rest);
    let copied = target.len() - rest.len();
    target.iter_mut().skip(copied).zip(&wide).for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn oracle(payload: &[u8], key: [u8; 4], phase: usize) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key[(i + phase) % 4]).collect()
    }

    #[test]
    fn equals_the_naive_loop_at_every_length_and_phase() {
        let mut random = Random::seeded();
        for length in (0..200).chain([4095, 4096, 4097, 9000]) {
            let payload = random.bytes(length);
            let key = [random.byte(), random.byte(), random.byte(), random.byte()];
            for phase in 0..9 {
                let mut target = vec![7; 3];
                extend_unmasked(&mut target, &payload, key, phase);
                assert_eq!(target[3..], oracle(&payload, key, phase), "length {length}, phase {phase}, {random}");
            }
        }
    }

    #[test]
    fn a_cut_anywhere_gives_the_same() {
        let mut random = Random::seeded();
        let (payload, key) = (random.bytes(150), [1, 20, 128, 255]);
        let whole = oracle(&payload, key, 0);
        for cut in 0..=payload.len() {
            let mut target = Vec::new();
            extend_unmasked(&mut target, &payload[..cut], key, 0);
            extend_unmasked(&mut target, &payload[cut..], key, cut);
            assert_eq!(target, whole, "cut at {cut}, {random}");
        }
    }
}
