//! Safetensors headers: `cargo +nightly fuzz run safetensors`. The input is a header and the data behind it.
#![no_main]

use candlewick_model::safetensors::Safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (header, data) = input;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    let Ok(file) = Safetensors::from_bytes("fuzz.safetensors", bytes) else { return };
    let lengths = file.names().map(|name| file.get(name).expect("one of its names").bytes.len());
    assert_eq!(lengths.sum::<usize>(), data.len());
});
