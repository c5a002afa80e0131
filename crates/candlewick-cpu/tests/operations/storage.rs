//! Formats that are stored and not computed with.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{Add, DType, Op};
use candlewick_cpu::Device;

#[test]
fn storage_dtypes_are_written_and_read_and_computed_with_by_nothing() {
    let device = Device::new();
    let mut stream = device.stream().unwrap();
    let mut ids = device.alloc(DType::U32, 3).unwrap();
    stream.write(&mut ids, &[1u32, u32::MAX, 7]).unwrap();
    let mut read = [0u32; 3];
    stream.read(&ids, &mut read).unwrap();
    assert_eq!(read, [1, u32::MAX, 7]);
    assert!(stream.read(&ids, &mut [0f32; 3]).unwrap_err().to_string().contains("u32"));
    for dtype in [DType::U32, DType::U8] {
        let error = stream.prepare(&Op::from(Add::new(1, 1, dtype)), None).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}
