//! `MPSNDArrayMatrixMultiplication` (MPSNDArrayMatrixMultiplication.h) and its superclasses (MPSNDArrayKernel.h).

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSZone, ProtocolObject};
use objc2::{ClassType, DefinedClass, define_class, msg_send};
use objc2_foundation::NSArray;
use objc2_metal::MTLComputeCommandEncoder;
use objc2_metal_performance_shaders::{MPSDataType, MPSNDArray};

use super::call::Call;
use super::data_type;
use super::kernel::{EmulatedKernel, Fields};
use super::ndarray::{EmulatedNdArray, NdArray};
use super::ndarray_descriptor::{Description, EmulatedNdArrayDescriptor};
use super::object::{Commands, Device, emulated, require_same_device};
use super::product::{Factors, multiply};
use super::strided::{Layout, Operand, Plane, positions};
use crate::foundation::new_object;
use crate::gpu::work::{Span, Usage};

const CLASS: &str = "MPSNDArrayMatrixMultiplication";

type Encoder = ProtocolObject<dyn MTLComputeCommandEncoder>;
type Sources = NSArray<MPSNDArray>;

define_class!(
    // SAFETY: EmulatedKernel's initialiser is called.
    #[unsafe(super(EmulatedKernel))]
    #[name = "MPSNDArrayMultiaryBase"]
    #[ivars = usize]
    pub(super) struct EmulatedMultiaryBase;

    impl EmulatedMultiaryBase {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(_this: Allocated<Self>, _device: &Device) -> Retained<Self> {
            Call::new(CLASS, "initWithDevice:").refuse("use initWithDevice:sourceCount: instead (MPSNDArrayKernel.h)")
        }

        // "The maximum number of NDArrays read by the kernel."
        #[unsafe(method_id(initWithDevice:sourceCount:))]
        fn init_with_sources(this: Allocated<Self>, device: &Device, count: usize) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(count);
            // SAFETY: the superclass has this initialiser.
            unsafe { msg_send![super(this), initWithDevice: device] }
        }
    }
);

define_class!(
    // SAFETY: the initialiser is inherited, and there is nothing to initialise here.
    #[unsafe(super(EmulatedMultiaryBase))]
    #[name = "MPSNDArrayMultiaryKernel"]
    pub(super) struct EmulatedMultiaryKernel;
);

/// alpha and beta.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    alpha: f64,
    beta: f64,
}

define_class!(
    // SAFETY: EmulatedMultiaryBase's initialiser is called.
    #[unsafe(super(EmulatedMultiaryKernel))]
    #[name = "MPSNDArrayMatrixMultiplication"]
    #[ivars = Fields<Scale>]
    pub(super) struct EmulatedNdArrayMatrixMultiplication;

    impl EmulatedNdArrayMatrixMultiplication {
        #[unsafe(method_id(initWithDevice:sourceCount:))]
        fn init_with_sources(this: Allocated<Self>, device: &Device, count: usize) -> Retained<Self> {
            // Both factors "default to 1.0 at initialization time".
            Self::init_with(this, device, count, Scale { alpha: 1.0, beta: 1.0 })
        }

        #[unsafe(method_id(copyWithZone:device:))]
        fn copy_for(&self, _zone: *mut NSZone, device: Option<&Device>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let device = device.unwrap_or_else(|| self.its_device());
            // SAFETY: `alloc` of an emulated class.
            let this: Allocated<Self> = unsafe { msg_send![Self::class(), alloc] };
            let copy = Self::init_with(this, device, self.source_count(), self.ivars().values(CLASS));
            copy.copy_common(self);
            copy
        }

        #[unsafe(method(alpha))]
        fn alpha(&self) -> f64 {
            self.ivars().enter(CLASS).alpha
        }

        #[unsafe(method(setAlpha:))]
        fn set_alpha(&self, alpha: f64) {
            self.ivars().enter(CLASS).alpha = alpha;
        }

        #[unsafe(method(beta))]
        fn beta(&self) -> f64 {
            self.ivars().enter(CLASS).beta
        }

        #[unsafe(method(setBeta:))]
        fn set_beta(&self, beta: f64) {
            self.ivars().enter(CLASS).beta = beta;
        }

        #[unsafe(method_id(destinationArrayDescriptorForSourceArrays:sourceState:))]
        fn destination_descriptor(
            &self,
            sources: &Sources,
            _state: Option<&AnyObject>,
        ) -> Retained<EmulatedNdArrayDescriptor> {
            let call = Call::new(CLASS, "destinationArrayDescriptorForSourceArrays:sourceState:");
            new_object(destination(call, &self.sources(call, sources)))
        }

        #[unsafe(method_id(encodeToCommandBuffer:sourceArrays:))]
        fn encode_new(&self, commands: &Commands, sources: &Sources) -> Retained<EmulatedNdArray> {
            let call = Call::new(CLASS, "encodeToCommandBuffer:sourceArrays:");
            let arrays = self.sources(call, sources);
            let result = new_object(NdArray::lazy(call, self.its_device(), &destination(call, &arrays)));
            self.encode_product(call, None, commands, &arrays, &result);
            result
        }

        #[unsafe(method(encodeToCommandBuffer:sourceArrays:destinationArray:))]
        fn encode_to(&self, commands: &Commands, sources: &Sources, result: &MPSNDArray) {
            let call = Call::new(CLASS, "encodeToCommandBuffer:sourceArrays:destinationArray:");
            self.encode_product(call, None, commands, &self.sources(call, sources), emulated(result));
        }

        #[unsafe(method(encodeToCommandBuffer:sourceArrays:resultState:destinationArray:))]
        fn encode_with_state(
            &self,
            commands: &Commands,
            sources: &Sources,
            state: Option<&AnyObject>,
            result: &MPSNDArray,
        ) {
            let call = Call::new(CLASS, "encodeToCommandBuffer:sourceArrays:resultState:destinationArray:");
            call.require(state.is_none(), || "gradient states are not emulated".to_owned());
            self.encode_product(call, None, commands, &self.sources(call, sources), emulated(result));
        }

        #[unsafe(method(encodeToCommandEncoder:commandBuffer:sourceArrays:destinationArray:))]
        fn encode_into_encoder(
            &self,
            encoder: Option<&Encoder>,
            commands: &Commands,
            sources: &Sources,
            result: &MPSNDArray,
        ) {
            let call = Call::new(CLASS, "encodeToCommandEncoder:commandBuffer:sourceArrays:destinationArray:");
            self.encode_product(call, encoder, commands, &self.sources(call, sources), emulated(result));
        }
    }
);

impl EmulatedMultiaryBase {
    fn source_count(&self) -> usize {
        *self.ivars()
    }
}

type Arrays = Vec<Retained<MPSNDArray>>;

impl EmulatedNdArrayMatrixMultiplication {
    fn init_with(this: Allocated<Self>, device: &Device, count: usize, scale: Scale) -> Retained<Self> {
        let _own = emulator_objc::own();
        let call = Call::new(CLASS, "initWithDevice:sourceCount:");
        // D = alpha * A * B + beta * C
        call.require(count == 2 || count == 3, || format!("{count} sources; a product has 2, or 3 with an addend"));
        let this = this.set_ivars(Fields::new(scale));
        // SAFETY: the superclass has this initialiser.
        unsafe { msg_send![super(this), initWithDevice: device, sourceCount: count] }
    }

    fn sources(&self, call: Call, sources: &Sources) -> Arrays {
        let _own = emulator_objc::own();
        let (count, most) = (sources.count(), self.source_count());
        call.require((2..=most).contains(&count), || {
            format!("{count} source arrays for a kernel initialised with a sourceCount of {most}")
        });
        (0..count).map(|index| sources.objectAtIndex(index)).collect()
    }

    fn encode_product(
        &self,
        call: Call,
        encoder: Option<&Encoder>,
        commands: &Commands,
        sources: &Arrays,
        result: &EmulatedNdArray,
    ) {
        let scale = self.ivars().enter(CLASS);
        let arrays: Vec<&EmulatedNdArray> = sources.iter().map(|source| emulated(&**source)).collect();
        for (array, what) in arrays.iter().chain([&result]).zip(["left array", "right array", "addend", "result"]) {
            require_same_device(call, self.its_device(), what, array.its_device());
        }
        require_types(call, &arrays, result);
        require_shapes(call, &arrays, result);

        let factors = Factors::new(result.layout().data_type, scale.alpha, scale.beta);
        let operands: Vec<Operand> = arrays.iter().map(|array| array.operand()).collect();
        let target = result.operand();
        require_apart(call, &target, &operands);
        let reads_addend = operands.len() == 3 && factors.reads_addend();
        let read = operands.iter().take(if reads_addend { 3 } else { 2 });
        let mut spans: Vec<Span> = read.map(|operand| operand.span(Usage::Read)).collect();
        spans.push(target.span(Usage::Write));
        let layouts: Vec<Layout> = operands.into_iter().map(|operand| operand.layout).collect();
        let target = target.layout;
        let run = move |memories: &[*mut u8]| run(&layouts, &target, factors, memories);
        match encoder {
            Some(encoder) => self.encode_into(call, encoder, commands, spans, run),
            None => self.encode(call, commands, spans, run),
        }
    }
}

/// `memories`: the sources that are read, and the result.
fn run(sources: &[Layout], result: &Layout, factors: Factors, memories: &[*mut u8]) {
    let batches = result.axes.get(2..).unwrap_or(&[]).iter().map(|axis| axis.length);
    for batch in positions(batches) {
        let target = result.plane(&batch);
        let (left, right) = (broadcast(&sources[0], &batch), broadcast(&sources[1], &batch));
        let addend = (memories.len() == 4).then(|| {
            let mut plane = broadcast(&sources[2], &batch);
            if plane.rows.length == 1 {
                plane.rows.length = target.rows.length;
                plane.rows.stride = 0;
            }
            (plane, memories[2])
        });
        let result = (target, memories[memories.len() - 1]);
        // SAFETY: the shapes were compared, and every array was checked against its buffer.
        unsafe { multiply((left, memories[0]), (right, memories[1]), addend, result, factors) };
    }
}

/// "If an input's 3rd or 4th dimension is 1 its data will be broadcast."
fn broadcast(source: &Layout, batch: &[usize]) -> Plane {
    let length = |index: usize| source.axes.get(index + 2).map_or(1, |axis| axis.length);
    let batch: Vec<usize> = batch.iter().enumerate().map(|(i, at)| if length(i) == 1 { 0 } else { *at }).collect();
    source.plane(&batch)
}

/// Not documented which types go together, but for an assertion quoted in many public bug reports: "Destination NDArray
/// and Accumulator NDArray cannot have different datatype". One type for all arrays is chosen.
fn require_types(call: Call, sources: &[&EmulatedNdArray], result: &EmulatedNdArray) {
    let wanted = result.layout().data_type;
    call.require(data_type::is_float(wanted), || {
        format!("the destination is of {}; Float32, Float16 and BFloat16 are emulated", data_type::name(wanted))
    });
    for (index, source) in sources.iter().enumerate() {
        let this: MPSDataType = source.layout().data_type;
        call.require(this == wanted, || {
            format!(
                "destination NDArray and accumulator NDArray cannot have different datatype: source {index} is of {}, \
                 the destination of {}",
                data_type::name(this),
                data_type::name(wanted)
            )
        });
    }
}

/// "For each 2-D matrix within a 4-D MPSNDArray object": dimension 0 runs along the rows, dimension 1 down the columns,
/// dimensions 2 and 3 are the batch.
fn require_shapes(call: Call, sources: &[&EmulatedNdArray], result: &EmulatedNdArray) {
    let (left, right) = (sources[0], sources[1]);
    for array in sources.iter().chain([&result]) {
        let further = (4..array.layout().axes.len()).any(|index| array.length(index) != 1);
        call.require(!further, || format!("{} has more than 4 dimensions", shape(array)));
    }
    let fits = left.length(1) == result.length(1)
        && right.length(0) == result.length(0)
        && left.length(0) == right.length(1)
        && [2, 3].iter().all(|index| {
            let (left, right, result) = (left.length(*index), right.length(*index), result.length(*index));
            (left == 1 || left == result) && (right == 1 || right == result) && result == left.max(right)
        });
    call.require(fits, || format!("the shapes do not match: {} * {} -> {}", shape(left), shape(right), shape(result)));
    // That a row is broadcast down the columns is not documented; PyTorch's linear layer relies on it for its bias.
    if let Some(addend) = sources.get(2) {
        let fits = addend.length(0) == result.length(0)
            && [1, 2, 3]
                .iter()
                .all(|index| addend.length(*index) == 1 || addend.length(*index) == result.length(*index));
        call.require(fits, || format!("the shapes do not match: {} added to {}", shape(addend), shape(result)));
    }
}

/// Not documented; refused because a product that overwrites what it still reads has no defined result. Each element of
/// the addend is read before that element is written, so that it may be the result itself.
fn require_apart(call: Call, result: &Operand, sources: &[Operand]) {
    for (index, source) in sources.iter().enumerate() {
        let in_place = index == 2 && result.coincides(source);
        call.require(in_place || !result.overlaps(source), || {
            format!("the destination overlaps source {index} in {}", source.memory.name())
        });
    }
}

/// As `MPSShape` has it, the slowest dimension first.
fn shape(array: &EmulatedNdArray) -> String {
    let lengths: Vec<usize> = array.layout().axes.iter().rev().map(|axis| axis.length).collect();
    format!("{lengths:?}")
}

fn destination(call: Call, sources: &Arrays) -> Description {
    let [left, right] = [0, 1].map(|index| emulated::<EmulatedNdArray>(&*sources[index]));
    let dimensions = left.layout().axes.len().max(right.layout().axes.len()).max(2);
    let outer = (2..dimensions).map(|index| left.length(index).max(right.length(index)));
    let lengths: Vec<usize> = [right.length(0), left.length(1)].into_iter().chain(outer).collect();
    Description::new(call, left.layout().data_type, &lengths)
}
