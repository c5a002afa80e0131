//! Which library computes an operation on Candle's tensors: Candlewick, or Candle's own operation.
//!
//! Candle's own is one engine more, chosen like any other: where `candlewick tune` measured both on this machine, on tensors,
//! the faster one runs, and Candle's only where it is clearly faster; where nothing was measured, Candlewick runs. The
//! choice is made once per operation, thread and device, and costs a look-up from then on; where no profile has times of
//! Candle's, not even that. [`with`] asks for one of the two.
//!
//! | operation | Candle's own | where it is a candidate |
//! |---|---|---|
//! | `matmul`, and its gradients | `Tensor::matmul` | f32, f16, bf16; contiguous or transposed matrices, one matrix of B for each of A |
//! | `softmax` | `candle_nn::ops::softmax_last_dim` | f32, contiguous, no gradient asked for |
//! | `rms_norm` | `candle_nn::ops::rms_norm` | f32, contiguous, no gradient asked for |
//! | `lora_linear`, `LoraLinear` | three products and two sums | f32, contiguous |
//! | `lora_delta` | two products | f32, contiguous |
//!
//! In f16 and bf16 Candle rounds what lies between the products, and on the CPU the sums of a row: that is another result,
//! beyond [`Op::error_bound`], so it is no candidate there. Its softmax and RMSNorm have no gradient: a tensor that needs
//! one goes through Candlewick. Gradients are Candlewick's own in every case, but for the products of `matmul`'s.

use crate::candles;
use crate::compute;
use candle_core::Device;
use candlewick::profile::Profile;
use candlewick::{DeviceInfo, DispatchTable, Op};
use candlewick_core::cache::Cache;
use std::cell::Cell;
use std::sync::Arc;

pub use candlewick::Engine;
pub use candlewick::profile::{CANDLE, CANDLEWICK};

/// Operations of which a thread remembers the choice, per device.
const MOST: usize = 1024;

thread_local! {
    static ASKED_FOR: Cell<Option<Engine>> = const { Cell::new(None) };
}

/// Runs `work` with every operation of the calling thread on one engine: [`CANDLE`] where it is a candidate, or
/// [`CANDLEWICK`]. A backward pass is asked for where it is called, not where its forward was.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candlewick_candle::{engine, matmul};
/// let a = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let c = engine::with(engine::CANDLE, || matmul(&a, &a))?;
/// assert_eq!(c.to_vec2::<f32>()?, a.matmul(&a)?.to_vec2::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Panics
/// Where `engine` is neither: engines of a device are chosen below Candlewick's.
pub fn with<T>(engine: Engine, work: impl FnOnce() -> T) -> T {
    struct Before(Option<Engine>);
    impl Drop for Before {
        fn drop(&mut self) {
            ASKED_FOR.set(self.0);
        }
    }
    assert!(
        [CANDLE, CANDLEWICK].contains(&engine),
        "{engine}: on Candle's tensors there are {CANDLE} and {CANDLEWICK}"
    );
    let _before = Before(ASKED_FOR.replace(Some(engine)));
    work()
}

/// The engines that can run `op` on Candle's tensors, Candlewick first.
pub fn candidates(op: impl Into<Op>) -> &'static [Engine] {
    if candles::has(&op.into()) { &[CANDLEWICK, CANDLE] } else { &[CANDLEWICK] }
}

/// The engine that runs `op` on tensors of a device, where no gradient is asked for.
///
/// # Errors
/// What opening the device says.
pub fn of(op: impl Into<Op>, device: &Device) -> candle_core::Result<Engine> {
    Ok(if compute::candle_runs(&op.into(), device)? { CANDLE } else { CANDLEWICK })
}

pub(crate) fn asked_for() -> Option<Engine> {
    ASKED_FOR.get()
}

/// What was measured of a device: of its own engines, and of both libraries on its tensors.
pub(crate) fn measured(info: &DeviceInfo) -> (Option<Profile>, Arc<DispatchTable>) {
    let profile = Profile::of(info).map(|(profile, _)| profile);
    let table = profile.as_ref().map(Profile::table_on_candle_tensors).unwrap_or_default();
    (profile, Arc::new(table))
}

/// A thread's choices on a device.
pub(crate) struct Choices {
    measured: Arc<DispatchTable>,
    made: Cache<Op, bool>,
}

impl Choices {
    pub(crate) fn new(measured: Arc<DispatchTable>) -> Self {
        Choices { measured, made: Cache::new(MOST) }
    }

    /// Whether Candle's own is known to be faster for `op`, which it has.
    pub(crate) fn candle_pays(&mut self, op: &Op) -> bool {
        if self.measured.is_empty() {
            return false;
        }
        if let Some(&made) = self.made.get(op) {
            return made;
        }
        let decision = self.measured.choose(op, &[CANDLEWICK, CANDLE]);
        let candle = decision.is_some_and(|decision| decision.engine == CANDLE);
        self.made.insert(*op, candle);
        candle
    }
}
