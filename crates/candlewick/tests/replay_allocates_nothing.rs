//! `replay` allocates nothing on the CPU: not for calls one after the other, nor for those that run together.

use candlewick::{DType, Device, Plan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;

/// Of every thread, the pool's included.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// One test, so that no other allocates meanwhile.
#[test]
fn replay_allocates_nothing() {
    // Threads allocate while they start: the pool's, and the test harness's own.
    drop(Device::cpu().stream().unwrap());
    std::thread::sleep(Duration::from_millis(200));
    for device in [Device::cpu(), Device::cpu_with_threads(1)] {
        for (rows, width) in [(1, 32), (1, 512), (64, 256)] {
            let (mut plan, weights) = Plan::record(&device, |p| {
                let mut x = p.input("x", rows, width, DType::F32);
                let mut weights = Vec::new();
                for _ in 0..3 {
                    let norm = p.constant("norm", 1, width, DType::F32);
                    let normed = p.rms_norm(x, norm, 1e-5)?;
                    weights.push((norm, width));
                    let mut products = Vec::new();
                    for _ in 0..3 {
                        let w = p.constant("w", width, width, DType::F32);
                        let (a, b) = (p.constant("a", 8, width, DType::F32), p.constant("b", width, 8, DType::F32));
                        weights.extend([(w, width * width), (a, 8 * width), (b, 8 * width)]);
                        products.push(p.lora_linear(normed, w, None, a, b, 1.0)?);
                    }
                    let gated = p.silu_mul(products[0], products[1])?;
                    x = p.add(gated, products[2])?;
                }
                p.output(x)?;
                Ok(weights)
            })
            .unwrap();
            for (weight, count) in weights {
                plan.load(weight, &vec![0.01f32; count]).unwrap();
            }
            plan.run().unwrap();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..3 {
                plan.run().unwrap();
            }
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert_eq!(allocations, 0, "{rows}x{width} on {} threads", device.info().facts[1].1);
        }
    }
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0, "the counter counts");
}
