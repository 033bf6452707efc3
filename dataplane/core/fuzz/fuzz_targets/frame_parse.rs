#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpip_core_fuzz::frame_parse(data));
