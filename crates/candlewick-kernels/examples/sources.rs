//! Writes every source into a folder, one file per dtype: `cargo run --example sources -- cuda <folder>`, or `metal`.

use candlewick_core::DType;
use candlewick_kernels::{File, Target, source};
use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (target, extension) = match arguments.next().as_deref() {
        Some("cuda") => (Target::Cuda, "cu"),
        Some("metal") => (Target::Metal, "metal"),
        _ => panic!("the first argument is cuda or metal"),
    };
    let folder = arguments.next().expect("the second argument is a folder");
    std::fs::create_dir_all(&folder)?;
    for file in File::ALL {
        for dtype in DType::ALL {
            let name = format!("{}_{dtype}.{extension}", file.name());
            std::fs::write(Path::new(&folder).join(name), source(target, file, &[dtype]))?;
        }
    }
    Ok(())
}
