//! All of Candle's Metal sources compile, with all their kernels.

mod support;

use std::path::Path;
use std::time::Instant;

/// Cold, this takes minutes; `emulator/patch.sh --candle` fetches the sources.
#[test]
fn all_sources_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../patched/candle-metal-kernels/src/metal_src");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: run `patch.sh --candle` to fetch Candle's Metal sources");
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut kernels = 0;
    if let Ok(only) = std::env::var("ONLY") { paths.retain(|p| only.split(',').any(|o| p.file_stem().unwrap() == o)); }
    // utils.metal is an include of an older version: Candle loads it nowhere.
    for path in paths.iter().filter(|path| path.file_stem().is_some_and(|stem| stem != "utils")) {
        let source = std::fs::read_to_string(path).unwrap();
        let start = Instant::now();
        let library = emulator_msl::compile(&source, &support::options());
        let library = library.unwrap_or_else(|error| panic!("{}:\n{error}", path.display()));
        let count = library.function_names().count();
        eprintln!("{:50} {count:5} kernels {:8.3} s", path.file_name().unwrap().display(), start.elapsed().as_secs_f64());
        assert!(count > 0);
        kernels += count;
    }
    eprintln!("{kernels} kernels");
    assert!(kernels >= 1700);
}
