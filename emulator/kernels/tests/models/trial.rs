//! One case, run by a program on the emulator, judged against the f64 reference.

use crate::values::{Rng, Values, before, inputs, round, rows};
use candlewick_core::op::Operand;
use candlewick_core::{DType, Element, Op, reference};
use candlewick_kernels::{Access, Dispatch, Entry, File, Place, Program, Target, source};
use emulator_msl::{Binding, Function, Launch, Library, Options, Region, SLOTS, compile, run};
use std::collections::HashMap;
use std::sync::Arc;

/// In the gaps of outputs: exact in every dtype, and nothing that the operations compute.
const SENTINEL: f64 = -1024.0;
/// Bytes on both sides of an operand, so that a store beside it is seen.
const MARGIN: usize = 64;

/// The emulator, with what it has compiled.
#[derive(Default)]
pub struct Emulator {
    libraries: HashMap<(File, DType), Arc<Library>>,
    functions: HashMap<Entry, Function>,
}

/// An operand in memory.
pub struct Tensor {
    memory: Vec<u8>,
    start: usize,
}

/// A case with its operands and the right answers.
pub struct Trial {
    op: Op,
    seed: u64,
    inputs: Vec<Vec<f64>>,
    outputs: Vec<Vec<f64>>,
    places: Vec<Vec<bool>>,
    expected: Vec<Vec<f64>>,
}

impl Trial {
    pub fn new(op: &Op, values: Values, spans: &[u32], seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let operands = op.operands().expect("cases are legal");
        let inputs = inputs(op, values, spans, &mut rng);
        let places: Vec<Vec<bool>> = operands.outputs.iter().map(places).collect();
        let outputs: Vec<Vec<f64>> = operands
            .outputs
            .iter()
            .enumerate()
            .map(|(i, operand)| {
                let before = before(op, i, operand, &mut rng);
                before.into_iter().zip(&places[i]).map(|(x, &inside)| if inside { x } else { SENTINEL }).collect()
            })
            .collect();
        let mut expected = outputs.clone();
        let mut written: Vec<&mut [f64]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
        let read: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        reference::run(op, &read, &mut written).expect("the operands were made for the operation");
        Trial { op: *op, seed, inputs, outputs, places, expected }
    }

    /// Runs a program; with `alias`, (input, output), on one piece of memory for both. The largest relative error.
    pub fn run(&self, program: &Program, gpu: &mut Emulator, alias: Option<(usize, usize)>) -> Result<f64, String> {
        let operands = self.op.operands().map_err(|error| error.to_string())?;
        let place =
            |(values, operand): (&Vec<f64>, &Operand)| tensor(values, operand.dtype, program.alignment as usize);
        let mut inputs: Vec<Tensor> = self.inputs.iter().zip(&operands.inputs).map(place).collect();
        let mut outputs: Vec<Tensor> = self.outputs.iter().zip(&operands.outputs).map(place).collect();
        // NaN in every format: nothing may rely on what the workspace held.
        let mut workspace = vec![u128::MAX; (program.workspace_bytes as usize).div_ceil(16)];
        for dispatch in &program.dispatches {
            let addresses: Vec<*mut u8> = dispatch
                .bindings
                .iter()
                .map(|binding| {
                    let base = match binding.memory.place {
                        Place::Input(i) => inputs[usize::from(i)].address(),
                        Place::Output(o) => match alias {
                            Some((input, output)) if output == usize::from(o) => inputs[input].address(),
                            _ => outputs[usize::from(o)].address(),
                        },
                        Place::Workspace => workspace.as_mut_ptr().cast(),
                    };
                    base.wrapping_add(binding.memory.offset as usize)
                })
                .collect();
            gpu.dispatch(dispatch, &addresses, self.seed, alias.is_some())?;
        }
        if let Some((input, output)) = alias {
            outputs[output] = inputs.swap_remove(input);
        }
        let mut worst = 0.0f64;
        for (index, operand) in operands.outputs.iter().enumerate() {
            let gaps = alias.is_none_or(|(_, output)| output != index);
            worst = worst.max(self.judge(index, operand, &outputs[index], gaps)?);
        }
        Ok(worst)
    }

    fn judge(&self, index: usize, operand: &Operand, output: &Tensor, gaps: bool) -> Result<f64, String> {
        let (name, dtype) = (operand.name, operand.dtype);
        let margin = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0x5a);
        let end = output.start + operand.span * dtype.bytes();
        if !margin(&output.memory[..output.start]) || !margin(&output.memory[end..]) {
            return Err(format!("{name}: memory beside it was overwritten"));
        }
        let found = decode(&output.memory[output.start..end], dtype);
        let (expected, bound) = (&self.expected[index], self.op.error_bound());
        let mut error = (0.0f64, 0);
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            if !self.places[index][at] {
                if gaps && found != SENTINEL {
                    return Err(format!("{name}: the gap at {at} was overwritten with {found:e}"));
                }
                continue;
            }
            let near = [1.0 - bound, 1.0, 1.0 + bound].map(|factor| round(expected * factor, dtype));
            if !near.iter().any(|&near| same_class(near, found)) {
                return Err(format!("{name}[{at}] is {found:e}, not {expected:e}"));
            }
            let distance = (found - expected).abs();
            if distance.is_finite() && distance > error.0 {
                error = (distance, at);
            }
        }
        // Below this an output's rounding is absolute.
        let floor = if dtype == DType::F16 { 2f64.powi(-14) } else { 1e-25 };
        let inside = expected.iter().zip(&self.places[index]).filter(|(x, inside)| **inside && x.is_finite());
        let magnitude = inside.fold(floor, |most, (x, _)| most.max(x.abs())).max(self.terms(index));
        if error.0 > bound * magnitude {
            let (found, expected, relative) = (found[error.1], expected[error.1], error.0 / magnitude);
            return Err(format!("{name}[{}] is {found:e}, not {expected:e}: {relative:.2e} > {bound:.2e}", error.1));
        }
        Ok(error.0 / magnitude)
    }

    /// The magnitude that an output would have if its terms did not cancel, where sums are few enough for that to show.
    fn terms(&self, index: usize) -> f64 {
        let most = |values: &[f64]| values.iter().filter(|x| x.is_finite()).fold(0.0f64, |most, x| most.max(x.abs()));
        match (&self.op, index) {
            (Op::SoftmaxBackward(op), _) => most(&self.inputs[0]) * most(&self.inputs[1]) * (op.cols as f64).sqrt(),
            (Op::Add(_), _) => most(&self.inputs[0]).max(most(&self.inputs[1])),
            (Op::Rope(_) | Op::RopeBackward(_), _) => most(&self.inputs[0]),
            // ds = scale p (dp - D), where dp and D may be equal; then sums over keys, or over queries.
            (Op::AttentionBackward(op), 0 | 1) => {
                let [q, k, v, dy] = [0, 1, 2, 6].map(|i| most(&self.inputs[i]));
                f64::from(op.scale.get()).abs() * (op.head as f64).sqrt() * v * dy * if index == 0 { k } else { q }
            }
            (Op::AttentionBackward(_), _) => most(&self.inputs[6]),
            (Op::EmbeddingBackward(_), _) => most(&self.inputs[1]),
            (Op::QuantLinear(op), _) => most(&self.inputs[0]) * (op.in_features as f64).sqrt(),
            _ => 0.0,
        }
    }
}

impl Emulator {
    fn function(&mut self, entry: Entry) -> &Function {
        let library = self.libraries.entry((entry.file, entry.dtype)).or_insert_with(|| {
            // What `sources.rs` checks need not be checked again.
            let options = Options { fast_math: false, language_version: (3, 0), check: false, ..Options::default() };
            match compile(&source(Target::Metal, entry.file, &[entry.dtype]), &options) {
                Ok(library) => library,
                Err(error) => panic!("{error}"),
            }
        });
        self.functions.entry(entry).or_insert_with(|| library.function(entry.name).expect("a kernel of its source"))
    }

    /// Each binding is a region of its own, so that any access outside it is a fault. Of what lies on one piece of
    /// memory nobody knows which slot it was accessed through.
    pub fn dispatch(
        &mut self,
        dispatch: &Dispatch,
        addresses: &[*mut u8],
        seed: u64,
        aliased: bool,
    ) -> Result<(), String> {
        let (name, function) = (dispatch.entry.name, self.function(dispatch.entry));
        let mut buffers = [None; SLOTS];
        for (slot, (binding, &address)) in dispatch.bindings.iter().zip(addresses).enumerate() {
            let region = Region { id: slot as u64, address, length: binding.memory.bytes as usize };
            buffers[slot] = Some(Binding { region, offset: 0 });
        }
        let mut params = dispatch.params.bytes().to_vec();
        let region = Region { id: SLOTS as u64, address: params.as_mut_ptr(), length: params.len() };
        buffers[dispatch.bindings.len()] = Some(Binding { region, offset: 0 });
        let arguments = function.arguments().len();
        if arguments != dispatch.bindings.len() + 1 {
            return Err(format!("{name} takes {arguments} arguments"));
        }
        if function.max_total_threads().is_none_or(|most| most < dispatch.threads) {
            return Err(format!("{name} does not allow {} threads", dispatch.threads));
        }
        let launch = Launch {
            constants: &HashMap::new(),
            buffers,
            threadgroup_bytes: [0; SLOTS],
            threads_per_grid: [dispatch.groups * dispatch.threads, 1, 1],
            threads_per_threadgroup: [dispatch.threads, 1, 1],
            seed,
        };
        // SAFETY: the regions are vectors that `run` of the trial owns, or the parameters above; one thread uses them.
        let outcome = unsafe { run(function, &launch) };
        if let Some(fault) = outcome.faults.first() {
            return Err(fault.to_string());
        }
        for access in &outcome.accesses {
            let Some(binding) = dispatch.bindings.get(access.region as usize) else { continue };
            let may = match binding.access {
                Access::Read => access.writes.is_empty(),
                Access::Write => access.reads.is_empty(),
                Access::ReadWrite => true,
            };
            if !may && !aliased {
                return Err(format!("{name}: slot {} is not {:?}", access.region, binding.access));
            }
        }
        Ok(())
    }
}

impl Tensor {
    pub fn address(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().wrapping_add(self.start)
    }

    /// All of it.
    pub fn decoded(&self, dtype: DType) -> Vec<f64> {
        decode(&self.memory[self.start..self.memory.len() - MARGIN], dtype)
    }
}

/// Whether each element belongs to an operand; the others are gaps between its rows.
fn places(operand: &Operand) -> Vec<bool> {
    let (_, cols, row) = rows(operand);
    (0..operand.span).map(|at| at % row.max(1) < cols).collect()
}

/// Both are NaN, both the same infinity, or both numbers.
pub fn same_class(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite()) || (a.is_infinite() && a == b)
}

/// No better aligned than asked for: to 16 bytes, or to an element.
pub fn tensor(values: &[f64], dtype: DType, alignment: usize) -> Tensor {
    // A vector's memory is a multiple of 16 bytes at least.
    let start = MARGIN + if alignment == 16 { 16 } else { dtype.bytes() };
    let mut memory = vec![0x5a; start];
    for &value in values {
        match dtype {
            DType::F32 => memory.extend((value as f32).to_le_bytes()),
            DType::F16 => memory.extend(half::f16::from_f64(value).to_le_bytes()),
            DType::BF16 => memory.extend(half::bf16::from_f64(value).to_le_bytes()),
            DType::U32 => memory.extend(u32::from_f64(value).to_le_bytes()),
            DType::U8 => memory.push(u8::from_f64(value)),
        }
    }
    memory.extend([0x5a; MARGIN]);
    Tensor { memory, start }
}

fn decode(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let two = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let value = |x: &[u8]| match dtype {
        DType::F32 => f32::from_le_bytes([x[0], x[1], x[2], x[3]]).into(),
        DType::F16 => half::f16::from_bits(two(x)).to_f64(),
        DType::BF16 => half::bf16::from_bits(two(x)).to_f64(),
        DType::U32 => u32::from_le_bytes([x[0], x[1], x[2], x[3]]).into(),
        DType::U8 => x[0].into(),
    };
    bytes.chunks_exact(dtype.bytes()).map(value).collect()
}
