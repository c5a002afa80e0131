//! Every program of every operation, on the emulator: results, bounds, races, and what each dispatch says it touches.
//! The cases are those of `candlewick verify` on a GPU, the edges of these kernels first.
//!
//! `KERNELS_CASES` and `KERNELS_SEEDS` set how many cases of a class and dtype run, and from how many seeds.

use candlewick_core::op::OpClass;
use candlewick_core::{DType, MatMul};
use candlewick_kernels::{
    Access, Alignment, Dispatch, Entry, File, GpuLimits, Place, Program, Target, programs, source,
};
use candlewick_verify::{Case, Fault, Hardware, Memory, Trial, Values, dtypes, fixed_count, gpu_edge_count};
use emulator_msl::{Binding, Function, Launch, Library, Options, Region, SLOTS, compile, run};
use kernels_on_the_emulator::{Gpu, Tensor, launch};
use std::collections::HashMap;
use std::sync::Arc;

/// Beyond the edges of these kernels, cases that cost more are left out; `emulator/product` runs them.
const LARGEST: u64 = 400_000;

/// The emulator as the GPU of a trial.
struct Emulator {
    libraries: HashMap<(File, DType), Arc<Library>>,
    functions: HashMap<Entry, Function>,
    /// The order of threads and groups.
    seed: u64,
}

impl Emulator {
    fn new() -> Self {
        Emulator { libraries: HashMap::new(), functions: HashMap::new(), seed: 1 }
    }

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

    /// Each binding is a region of its own, so that any access outside it is a fault.
    fn dispatch(&mut self, dispatch: &Dispatch, addresses: &[*mut u8]) -> Result<(), String> {
        let seed = self.seed;
        let function = self.function(dispatch.entry);
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
            return Err(format!("{} takes {arguments} arguments", dispatch.entry.name));
        }
        if function.max_total_threads().is_none_or(|most| most < dispatch.threads) {
            return Err(format!("{} does not allow {} threads", dispatch.entry.name, dispatch.threads));
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
            let (read, wrote) = (!access.reads.is_empty(), !access.writes.is_empty());
            let may = match binding.access {
                Access::Read => !wrote,
                // A kernel may read what it wrote, but not what was there before: poison would show that.
                Access::Write => !read,
                Access::ReadWrite => true,
            };
            if !may {
                return Err(format!("{}: slot {} is not {:?}", dispatch.entry.name, access.region, binding.access));
            }
        }
        Ok(())
    }
}

impl Gpu for Emulator {
    fn run(&mut self, program: &Program, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), String> {
        // NaN in every format: nothing may rely on what the workspace held.
        let mut workspace = vec![u128::MAX; (program.workspace_bytes as usize).div_ceil(16)];
        let mut inputs = inputs.to_vec();
        for dispatch in &program.dispatches {
            let addresses: Vec<*mut u8> = dispatch
                .bindings
                .iter()
                .map(|binding| {
                    let base = match binding.memory.place {
                        Place::Input(i) => start_of(&mut inputs[usize::from(i)]),
                        Place::Output(i) => start_of(&mut outputs[usize::from(i)]),
                        Place::Workspace => workspace.as_mut_ptr().cast(),
                    };
                    base.wrapping_add(binding.memory.offset as usize)
                })
                .collect();
            self.dispatch(dispatch, &addresses)?;
        }
        Ok(())
    }
}

fn start_of(tensor: &mut Tensor) -> *mut u8 {
    tensor.memory.as_mut_ptr().wrapping_add(tensor.start)
}

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs a case by every way there is, for both alignments: the ways, and what is wrong.
fn run_case(case: &Case, gpu: &mut Emulator, judge: Judge) -> Vec<(&'static str, Result<(), String>)> {
    let trial = Trial::new(case).expect("cases are legal");
    let mut outcomes = Vec::new();
    for alignment in [Alignment::Sixteen, Alignment::Element] {
        let programs = programs(&case.op, &GpuLimits::apple(10), alignment);
        assert!(!programs.is_empty(), "nothing runs {:?}", case.op);
        for program in programs {
            let verdict = launch(&trial, &program, gpu);
            let verdict = verdict.and_then(|memory| judge(&trial, &memory).map_err(|fault| fault.to_string()));
            let (op, values, variant) = (case.op, case.values, program.variant);
            let verdict =
                verdict.map_err(|fault| format!("{op} {values:?} {alignment:?} {variant}: {fault}\n  {op:?}"));
            outcomes.push((variant, verdict));
        }
    }
    outcomes
}

/// What is asked of a result.
type Judge = fn(&Trial, &Memory) -> Result<(), Fault>;

fn within_bound(trial: &Trial, memory: &Memory) -> Result<(), Fault> {
    trial.judge(memory).map(drop)
}

/// Cases of a class.
fn run_class(class: OpClass) {
    let count = from_environment("KERNELS_CASES", fixed_count(class, Hardware::Gpu) + 15);
    let mut failures = Vec::new();
    let mut ways = HashMap::<&str, usize>::new();
    for seed in 0..from_environment("KERNELS_SEEDS", 1) as u64 {
        for &dtype in dtypes(class) {
            let mut gpu = Emulator::new();
            for index in 0..count {
                let case = Case::new(seed, class, dtype, index, Hardware::Gpu);
                if index >= gpu_edge_count(class) && case.cost() > LARGEST {
                    continue;
                }
                gpu.seed = seed.wrapping_mul(1 << 20) + index as u64;
                for (way, verdict) in run_case(&case, &mut gpu, within_bound) {
                    *ways.entry(way).or_default() += 1;
                    failures.extend(verdict.err());
                }
            }
        }
    }
    println!("{class}: {ways:?}");
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[..failures.len().min(20)].join("\n"));
}

/// Within the bounds of the other tests, a result may be cut off instead of rounded.
fn rounds_to_nearest_even(dtype: DType) {
    let mut gpu = Emulator::new();
    for values in [Values::Ordinary, Values::NonFinite] {
        let any = Case::new(5, OpClass::MatMul, dtype, 0, Hardware::Gpu);
        let case = Case { op: MatMul::new(40, 40, 1, dtype).into(), values, ..any };
        for (_, verdict) in run_case(&case, &mut gpu, Trial::judge_exactly) {
            verdict.unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
}

#[test]
fn results_are_rounded_to_nearest_even() {
    rounds_to_nearest_even(DType::F16);
    rounds_to_nearest_even(DType::BF16);
}

macro_rules! classes {
    ($($name:ident: $class:ident),*) => {$(
        #[test]
        fn $name() {
            run_class(OpClass::$class);
        }
    )*};
}
classes! {
    matmul: MatMul,
    softmax: Softmax,
    softmax_backward: SoftmaxBackward,
    rms_norm: RmsNorm,
    rms_norm_backward: RmsNormBackward,
    lora_linear: LoraLinear,
    lora_linear_backward: LoraLinearBackward,
    lora_delta: LoraDelta,
    lora_delta_backward: LoraDeltaBackward
}
