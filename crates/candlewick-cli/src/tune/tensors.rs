//! Candlewick's and Candle's own operation on the same Candle tensors, in turns: what `candlewick-candle` chooses by.

use super::trial::{Schedule, Turns, compete};
use crate::bench::cases::Case;
use crate::bench::runner::Runner as _;
use crate::bench::timing::Regime;
use crate::peers::{self, Tensors};
use candlewick::op::Format;
use candlewick::profile::Time;
use candlewick::{LoraLinear, Op};
use candlewick_candle::engine::{self, CANDLE, CANDLEWICK};

/// Whether the two compete for an operation.
pub(super) fn compete_for(op: &Op) -> bool {
    engine::candidates(*op).len() > 1
}

/// Both libraries on one device.
pub(crate) struct OnTensors {
    libraries: [(engine::Engine, Tensors); 2],
    regime: Regime,
    /// Whether both have run for a while: the first operation took half as long again, whichever it was.
    warm: bool,
    /// How the Candle in this binary was built.
    pub built: String,
}

impl OnTensors {
    /// Nothing where this binary's Candle does not compute on the device.
    pub fn open(device: &str, asynchronous: bool) -> Option<Self> {
        let (ours, built) = peers::on_candle_tensors(device).ok()?;
        let (candles, _) = peers::on_candle_tensors(device).ok()?;
        let regime = if asynchronous { Regime::Pipelined } else { Regime::Latency };
        Some(OnTensors { libraries: [(CANDLEWICK, ours), (CANDLE, candles)], regime, warm: false, built })
    }

    /// The times of both, fastest first; what goes wrong is told to `warn`, and then there are none.
    pub fn times(&mut self, op: &Op, schedule: Schedule, warn: &mut impl FnMut(String)) -> Vec<Time> {
        let Some(case) = case(op) else { return Vec::new() };
        if !std::mem::replace(&mut self.warm, true) {
            self.times(op, schedule, warn);
        }
        let regime = self.regime;
        let mut turns = Vec::new();
        for (engine, library) in &mut self.libraries {
            let engine = *engine;
            if let Err(error) = library.prepare(&case) {
                warn(format!("{op}: {engine} is left out: {error}"));
                return Vec::new();
            }
            turns.push(Turns::new(engine, move || engine::with(engine, || library.measure(regime, schedule.turn))));
        }
        let times = compete(turns, op, schedule, warn);
        if times.len() == 2 { times } else { Vec::new() }
    }
}

/// The operation as a case of `bench`, which makes its tensors; nothing where Candle has none such.
fn case(op: &Op) -> Option<Case> {
    let op = match *op {
        // The layer packs its W by itself.
        Op::LoraLinear(op) => LoraLinear { w_format: Format::Plain, ..op }.into(),
        op => op,
    };
    if compete_for(&op) { op.to_string().parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::{DType, LoraDelta, MatMul, RmsNorm, Softmax};

    #[test]
    fn every_operation_that_candle_has_is_measured() {
        let layer = LoraLinear::new(32, 512, 512, 8, 1.0, DType::F32);
        for op in [
            Op::from(MatMul::new(64, 32, 16, DType::BF16)),
            Softmax::new(4, 64, DType::F32).into(),
            RmsNorm::new(4, 64, 1e-6, DType::F32).into(),
            layer.into(),
            layer.packed().into(),
            LoraDelta::new(32, 512, 512, 8, 1.0, DType::F32).into(),
        ] {
            assert!(case(&op).is_some(), "{op}");
        }
        assert_eq!(case(&Op::LoraLinearBackward(layer)), None);
    }
}
