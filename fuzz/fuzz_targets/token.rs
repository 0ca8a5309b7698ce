//! See `slotcast::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| slotcast::fuzz::token(input));
