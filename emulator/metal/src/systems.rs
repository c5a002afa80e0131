//! What versions of macOS have and do not have: of what is emulated, and since macOS 13.
//!
//! From Apple's documentation of each symbol (developer.apple.com/documentation/metal, /metalperformanceshaders,
//! "Availability").

use objc2_metal::MTLLanguageVersion;

/// A class, a method of it or the whole class, and the first major version of macOS with it.
const SINCE: [(&str, Option<&str>, u32); 17] = [
    ("EmulatedMTLDevice", Some("architecture"), 14),
    ("MTLArchitecture", None, 14),
    ("EmulatedMTLDevice", Some("newResidencySetWithDescriptor:error:"), 15),
    ("MTLResidencySetDescriptor", None, 15),
    ("EmulatedMTLCommandQueue", Some("addResidencySet:"), 15),
    ("EmulatedMTLCommandQueue", Some("removeResidencySet:"), 15),
    ("EmulatedMTLCommandBuffer", Some("useResidencySet:"), 15),
    ("MPSCommandBuffer", Some("useResidencySet:"), 15),
    ("MPSCommandBuffer", Some("useResidencySets:count:"), 15),
    ("MTLCompileOptions", Some("mathMode"), 15),
    ("MTLCompileOptions", Some("setMathMode:"), 15),
    ("MTLCompileOptions", Some("mathFloatingPointFunctions"), 15),
    ("MTLCompileOptions", Some("setMathFloatingPointFunctions:"), 15),
    ("MPSNDArrayDescriptor", Some("preferPackedRows"), 15),
    ("MPSNDArrayDescriptor", Some("setPreferPackedRows:"), 15),
    ("MPSNDArray", Some("initWithBuffer:offset:descriptor:"), 15),
    ("MPSNDArrayMatrixMultiplication", Some("encodeToCommandEncoder:commandBuffer:sourceArrays:destinationArray:"), 15),
];

/// `26.2` or `13`.
pub fn parse(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Hides what this macOS does not have, and nothing else.
pub fn apply((major, _): (u32, u32)) {
    for (class, selector, since) in SINCE {
        emulator_objc::hide(class, selector, major < since);
    }
}

/// The newest version of the shading language (MTLLibrary.h, `MTLLanguageVersion`).
pub fn language((major, _): (u32, u32)) -> MTLLanguageVersion {
    match major {
        ..=13 => MTLLanguageVersion::Version3_0,
        14 => MTLLanguageVersion::Version3_1,
        15..=25 => MTLLanguageVersion::Version3_2,
        _ => MTLLanguageVersion::Version4_0,
    }
}
