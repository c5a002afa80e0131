//! What a system does not have is not there: messages raise, languages are refused.

mod harness;

use harness::*;
use metal_emulator::{Settings, watch};
use objc2::runtime::{AnyClass, NSObjectProtocol};
use objc2_foundation::NSProcessInfo;
use objc2_metal::*;

fn system(major: u32, minor: u32) -> Settings {
    Settings { macos: (major, minor), ..Settings::default() }
}

#[test]
fn newer_parts_are_hidden_from_older_systems() {
    for (major, has_14, has_15) in [(13, false, false), (14, true, false), (15, true, true), (26, true, true)] {
        let _watch = watch(system(major, 0));
        let device = device();
        let residency = objc2::sel!(newResidencySetWithDescriptor:error:);
        assert_eq!(device.respondsToSelector(residency), has_15);
        assert_eq!(AnyClass::get(c"MTLResidencySetDescriptor").is_some(), has_15);
        let options = MTLCompileOptions::new();
        assert_eq!(options.respondsToSelector(objc2::sel!(setMathMode:)), has_15);
        let architecture = || drop(device.architecture().name());
        if has_14 {
            architecture();
        } else {
            let text = exception(architecture);
            assert!(text.contains("architecture"), "{text}");
        }
        if !has_15 {
            let text = exception(|| options.setMathMode(MTLMathMode::Safe));
            assert!(text.contains("setMathMode:"), "{text}");
        }
        let version = NSProcessInfo::processInfo().operatingSystemVersion();
        assert_eq!(version.majorVersion, major as isize);
    }
    // Once the watch ends, all is as it was.
    assert!(device().respondsToSelector(objc2::sel!(newResidencySetWithDescriptor:error:)));
}

#[test]
fn the_newest_language_is_the_systems() {
    let source = "#include <metal_stdlib>\nkernel void f(device uint *v [[buffer(0)]]) { v[0] = __METAL_VERSION__; }";
    for (major, newest) in [(13, 300), (14, 310), (15, 320), (26, 400)] {
        let _watch = watch(system(major, 2));
        let device = device();
        let queue = device.newCommandQueue().unwrap();
        let pipeline = pipeline_of(&device, source, "f");
        let y = empty(&device, 1, SHARED);
        run(&queue, false, |encoder| {
            encoder.setComputePipelineState(&pipeline);
            bind(encoder, &y, 0, 0);
            encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1));
        });
        assert_eq!(read(&y)[0].to_bits(), newest);
        let options = MTLCompileOptions::new();
        options.setLanguageVersion(MTLLanguageVersion::Version4_0);
        let library = device.newLibraryWithSource_options_error(&name(source), Some(&options));
        assert_eq!(library.is_ok(), major >= 26);
    }
}

#[test]
fn a_gpu_is_of_all_families_up_to_its_own() {
    let families = [MTLGPUFamily::Apple7, MTLGPUFamily::Apple9, MTLGPUFamily::Apple10, MTLGPUFamily::Metal4];
    for (settings, expected) in [
        (system(15, 0), [true, false, false, false]),
        (Settings { family: 9, ..system(15, 0) }, [true, true, false, false]),
        (Settings { family: 10, ..system(26, 0) }, [true, true, true, true]),
    ] {
        let _watch = watch(settings);
        assert_eq!(families.map(|family| device().supportsFamily(family)), expected);
    }
}
