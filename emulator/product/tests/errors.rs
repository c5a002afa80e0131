//! Errors of the GPU. Alone in its process: nobody may watch, so that a report fails the command buffer it is about.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Op, Softmax};
use candlewick_metal::Device;
use product_on_the_emulator as _;

/// The race of two streams that write the same.
#[test]
fn an_error_of_the_gpu_reaches_the_reader_and_no_later_one() {
    let device = Device::open().unwrap();
    let mut streams = [device.stream().unwrap(), device.stream().unwrap()];
    let op = Op::from(Softmax::new(4, 64, DType::F32));
    let x = device.alloc(DType::F32, 256).unwrap();
    let y = device.alloc(DType::F32, 256).unwrap();
    let mut errors = Vec::new();
    for stream in &mut streams {
        let kernel = stream.prepare(&op, None).unwrap();
        // SAFETY: nothing safe lets two streams write the same memory at once; a test of errors may.
        let mut alias = unsafe { std::ptr::read(&y) };
        stream.encode(&kernel, &[(&x).into()], &mut [(&mut alias).into()]).unwrap();
        std::mem::forget(alias);
        stream.flush().unwrap();
    }
    let mut found = [0f32; 256];
    for stream in &mut streams {
        errors.extend(stream.read(&y, &mut found).err());
    }
    assert_eq!(errors.len(), 1, "{errors:?}");
    let text = errors[0].to_string();
    assert!(text.contains("the last softmax") && text.contains("failed"), "{text}");
    for stream in &mut streams {
        stream.read(&y, &mut found).unwrap();
    }
}
