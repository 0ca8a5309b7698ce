//! Numbers that look like chance and can be taken back: public ids.

/// The last step of SplitMix64, which makes a different number of each.
pub(super) fn scrambled(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What `scrambled` made that number of.
pub(super) fn unscrambled(mut number: u64) -> u64 {
    number = (number ^ (number >> 31) ^ (number >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    number = (number ^ (number >> 27) ^ (number >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    number ^ (number >> 30) ^ (number >> 60)
}

#[cfg(test)]
mod tests {
    use super::{scrambled, unscrambled};

    #[test]
    fn there_and_back() {
        let mut number = 1_u64;
        for _ in 0..1000 {
            assert_eq!(unscrambled(scrambled(number)), number);
            assert_eq!(scrambled(unscrambled(number)), number);
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        }
    }
}
