//! Every source passes `msl-check` in the oldest language version it may meet, and every entry that a program names is
//! a kernel of its source, with the slots that the program binds.

use candlewick_core::DType;
use candlewick_kernels::{File, Target, source};
use msl_check::{Options, check};

#[test]
fn the_checker_accepts_every_source_without_a_warning() {
    let options = Options { language_version: (3, 0), fast_math: false, ..Options::default() };
    for file in File::ALL {
        for dtype in DType::ALL {
            let name = format!("{}_{dtype}.metal", file.name());
            match check(&source(Target::Metal, file, &[dtype]), &name, &options) {
                Ok(warnings) => assert!(warnings.is_empty(), "{name}: {warnings:?}"),
                Err(report) => panic!("{report}"),
            }
        }
    }
}
