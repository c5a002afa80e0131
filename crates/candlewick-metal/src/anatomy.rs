//! What one product through Metal Performance Shaders is made of, stage by stage: as naive code does it, and as we do. For
//! `candlewick bench --anatomy`.
//!
//! Both take a closure that is told when a stage is over: the emulator's account can be read there, to count messages and
//! objects where times mean nothing.

pub use crate::mps::Stage;

use crate::{Device, Input, Kernel, Output, Stream, naive_product};
use candlewick_core::backend::{Device as _, Engine, Stream as _};
use candlewick_core::{MatMul, Op, Result};
use std::time::Instant;

/// How many operations a stage serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One: it comes again with every call.
    Call,
    /// As many as a command buffer holds.
    CommandBuffer(usize),
    /// All with this operation on these tensors, however many there are.
    Once,
    /// All of the stream.
    Life,
}

impl Share {
    /// As tables print it.
    pub fn name(self) -> String {
        match self {
            Share::Call => "every call".into(),
            Share::CommandBuffer(operations) => format!("once per {operations} calls"),
            Share::Once => "once per shape and place".into(),
            Share::Life => "once in a stream's life".into(),
        }
    }
}

/// A stage that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageTime {
    /// Which.
    pub stage: Stage,
    /// How long it took; of encoding, the mean of its calls.
    pub seconds: f64,
    /// How many operations it serves.
    pub share: Share,
}

impl StageTime {
    /// Seconds that fall to one call, in the long run.
    pub fn seconds_per_call(&self) -> f64 {
        match self.share {
            Share::Call => self.seconds,
            Share::CommandBuffer(operations) => self.seconds / operations as f64,
            Share::Once | Share::Life => 0.0,
        }
    }
}

/// Times stages that follow each other.
struct Clock<'a> {
    stages: Vec<StageTime>,
    after: &'a mut dyn FnMut(Stage),
    start: Instant,
}

impl<'a> Clock<'a> {
    fn new(after: &'a mut dyn FnMut(Stage)) -> Self {
        Clock { stages: Vec::with_capacity(Stage::ALL.len()), after, start: Instant::now() }
    }

    fn is_over(&mut self, stage: Stage, calls: usize, share: Share) {
        let seconds = self.start.elapsed().as_secs_f64() / calls as f64;
        self.stages.push(StageTime { stage, seconds, share });
        (self.after)(stage);
        self.start = Instant::now();
    }
}

/// One product as naive code runs it: everything made anew, and waited for. The stages come in the order of
/// [`Stage::ALL`]; `after` is told when each is over.
///
/// # Errors
/// A product that `MPSMatrixMultiplication` does not run, wrong arguments, what the driver says.
pub fn naive(
    device: &Device,
    op: &MatMul,
    inputs: &[Input<'_>; 2],
    output: &mut Output<'_>,
    after: &mut dyn FnMut(Stage),
) -> Result<Vec<StageTime>> {
    let mut clock = Clock::new(after);
    naive_product(device, op, inputs, output, &mut |stage| clock.is_over(stage, 1, Share::Call))?;
    Ok(clock.stages)
}

/// The same product as we run it on `engine`, `calls` times in one command buffer (no more than it holds), on a stream of
/// its own. The stages come in the order in which they happen: the kernel object before the command buffer, and matrices
/// before anything is encoded. An engine without descriptors or matrices passes through their stages at once.
///
/// `after` is told when each stage is over; of encoding, once for all calls.
///
/// # Errors
/// No such engine for the product, wrong arguments, what the driver says.
pub fn ours(
    device: &Device,
    op: &MatMul,
    engine: Engine,
    inputs: &[Input<'_>; 2],
    output: &mut Output<'_>,
    calls: usize,
    after: &mut dyn FnMut(Stage),
) -> Result<Vec<StageTime>> {
    let calls = calls.clamp(1, device.operations_per_command_buffer());
    let mut clock = Clock::new(after);
    let mut stream: Stream = device.stream()?;
    clock.is_over(Stage::Queue, 1, Share::Life);
    let kernel: Kernel = stream.prepare(&Op::MatMul(*op), Some(engine))?;
    clock.is_over(Stage::Kernel, 1, Share::Once);
    stream.make_views(&kernel, inputs, output, Stage::Descriptors)?;
    clock.is_over(Stage::Descriptors, 1, Share::Once);
    stream.make_views(&kernel, inputs, output, Stage::Matrices)?;
    clock.is_over(Stage::Matrices, 1, Share::Once);
    stream.open()?;
    clock.is_over(Stage::CommandBuffer, 1, Share::CommandBuffer(calls));
    for _ in 0..calls {
        stream.encode(&kernel, inputs, &mut [output.reborrow()])?;
    }
    clock.is_over(Stage::Encode, calls, Share::Call);
    stream.flush()?;
    clock.is_over(Stage::Commit, 1, Share::CommandBuffer(calls));
    stream.wait()?;
    clock.is_over(Stage::Wait, 1, Share::CommandBuffer(calls));
    Ok(clock.stages)
}
