//! Prints what Candle's operations cost on Metal: the table of the emulator's README.

fn main() -> candle_core::Result<()> {
    // Watched, because what is known of Candle would fail its command buffers.
    let _watch = metal_emulator::watch(metal_emulator::Settings::default());
    let device = candle_core::Device::new_metal(0)?;
    print!("{}", candle_on_the_emulator::table(&candle_on_the_emulator::costs(&device)?));
    Ok(())
}
