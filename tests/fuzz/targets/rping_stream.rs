#![no_main]

#[path = "../checks/mod.rs"]
#[allow(dead_code, reason = "a target needs one of them")]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::rping_stream::check(data));
