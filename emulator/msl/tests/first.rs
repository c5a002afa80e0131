mod support;
use support::{Buffer, Run, clean, kernel};
#[test]
fn adds() {
    let k = kernel("kernel void add(device const float* a, device float* b, uint i [[thread_position_in_grid]]) { b[i] += a[i]; }");
    let mut buffers = [Buffer::of(&[1f32, 2.0, 3.0]), Buffer::of(&[10f32, 20.0, 30.0, 40.0])];
    let outcome = clean(Run::new(&k).threads(3, 2, &mut buffers));
    assert_eq!(buffers[1].elements::<f32>(), [11.0, 22.0, 33.0, 40.0]);
    eprintln!("{outcome:?}");
    let outcome = Run::new(&k).threads(4, 2, &mut buffers);
    eprintln!("{}", outcome.faults[0]);
}
