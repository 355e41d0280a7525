#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| elo_fuzz::batch(data));
