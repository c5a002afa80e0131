//! A profile decides between Candlewick and Candle's own, and costs an operation nothing from the second time on.

mod numbers;

use candle_core::{DType, Device, Result, Tensor};
use candlewick::profile::{Machine, Profile, Row, Time};
use candlewick::{Bucket, MatMul, Op};
use candlewick_candle::engine::{self, CANDLE, CANDLEWICK, Engine};
use candlewick_candle::matmul;
use numbers::tensor;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    /// Of this thread: Candle's own threads are not what is counted.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

fn product(n: usize) -> Op {
    MatMul::new(n, n, n, candlewick::DType::F32).into()
}

/// What `candlewick tune` would write, had it measured these times.
fn row(op: Op, times: [(Engine, f64); 2]) -> Row {
    let time = |(engine, microseconds): (Engine, f64)| Time { engine: engine.to_string(), microseconds, samples: 9 };
    Row {
        op: op.name().into(),
        dtype: op.dtype().name().into(),
        shape: op.shape(),
        bucket: Bucket::of(&op).exponents(),
        limit: 1.0,
        times: Vec::new(),
        on_candle_tensors: times.map(time).into(),
    }
}

// One test: the profile is read once in a process.
#[test]
fn a_profile_decides_at_no_cost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // SAFETY: no other thread runs that reads or writes the environment: this is the binary's only test, at its start.
    unsafe { std::env::set_var("CANDLEWICK_PROFILES", folder.path()) };
    let info = candlewick::Device::cpu().info();
    let profile = Profile {
        machine: Machine::of(&info),
        candlewick: env!("CARGO_PKG_VERSION").into(),
        date: String::new(),
        settings: String::new(),
        seconds_per_thread: None,
        threads: Vec::new(),
        operations_per_command_buffer: None,
        rows: vec![
            row(product(64), [(CANDLE, 1.0), (CANDLEWICK, 2.0)]),
            row(product(512), [(CANDLEWICK, 1.0), (CANDLE, 2.0)]),
        ],
    };
    profile.save(&Profile::path(&info).expect("the folder is named")).unwrap();

    let cpu = Device::Cpu;
    assert_eq!(engine::of(product(64), &cpu)?, CANDLE);
    assert_eq!(engine::of(product(512), &cpu)?, CANDLEWICK);
    assert_eq!(engine::of(product(4096), &cpu)?, CANDLEWICK, "nothing was measured near it");
    let x = tensor(1, &[64, 64], DType::F32);
    let bits = |y: Tensor| y.flatten_all()?.to_vec1::<f32>();
    assert_eq!(bits(matmul(&x, &x)?)?, bits(x.matmul(&x)?)?);
    assert_eq!(engine::with(CANDLEWICK, || engine::of(product(64), &cpu))?, CANDLEWICK, "who asks is given");

    // The same operation on the same engine, chosen and asked for: the choice allocates nothing.
    for (n, engine) in [(64, CANDLE), (512, CANDLEWICK)] {
        let x = tensor(1, &[n, n], DType::F32);
        let count = |work: &dyn Fn() -> Result<Tensor>| -> Result<usize> {
            drop((work()?, work()?));
            let before = ALLOCATIONS.get();
            drop(work()?);
            Ok(ALLOCATIONS.get() - before)
        };
        let chosen = count(&|| matmul(&x, &x))?;
        assert_eq!(chosen, count(&|| engine::with(engine, || matmul(&x, &x)))?, "{engine}");
    }
    let before = ALLOCATIONS.get();
    assert_eq!(engine::of(product(64), &cpu)?, CANDLE);
    assert_eq!(ALLOCATIONS.get(), before, "a choice that was made before");
    Ok(())
}
