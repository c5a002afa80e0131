//! The table of costs in the emulator's README is what is measured.

#[test]
fn the_readme_has_the_table_that_is_measured() {
    let watch = metal_emulator::watch(metal_emulator::Settings::default());
    let device = candle_core::Device::new_metal(0).unwrap();
    let table = candle_on_the_emulator::table(&candle_on_the_emulator::costs(&device).unwrap());
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    assert!(
        readme.contains(table.trim_end()),
        "emulator/README.md is out of date: `cargo run -p candle-on-the-emulator --example costs` prints\n{table}"
    );
    candle_on_the_emulator::assert_nothing_new(&watch);
}
