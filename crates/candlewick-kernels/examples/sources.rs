//! The sources, one file per dtype: `cargo run --example sources` lists their names and lengths; with `-- cuda <folder>`
//! or `-- metal <folder>` they are written there.

use candlewick_core::DType;
use candlewick_kernels::{File, Target, source};
use std::io::Error;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (target, extension) = match arguments.next().as_deref() {
        Some("cuda") | None => (Target::Cuda, "cu"),
        Some("metal") => (Target::Metal, "metal"),
        Some(other) => return Err(Error::other(format!("the first argument is cuda or metal, not {other}"))),
    };
    let folder = arguments.next();
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder)?;
    }
    for file in File::ALL {
        for dtype in DType::ALL {
            let name = format!("{}_{dtype}.{extension}", file.name());
            let text = source(target, file, &[dtype]);
            match &folder {
                Some(folder) => std::fs::write(Path::new(folder).join(name), text)?,
                None => println!("{name:<20} {:>5} lines", text.lines().count()),
            }
        }
    }
    Ok(())
}
