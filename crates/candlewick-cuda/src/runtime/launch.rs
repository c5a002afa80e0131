//! A kernel with everything that does not change from call to call: prepared once, launched often.

use super::context::Context;
use super::driver::{Code, SUCCESS};
use super::modules::Function;
use super::tensor_map::TensorMap;
use crate::program::{self, MOST_MAPS, MOST_POINTERS};
use arrayvec::ArrayVec;
use candlewick_kernels::Place;
use cudarc::driver::sys::{
    CUclusterSchedulingPolicy, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig,
    CUstream, CUtensorMap,
};
use std::ffi::c_void;

/// The most tensors of an operation, or of several that run as one.
pub(crate) const MOST_TENSORS: usize = 24;

/// The addresses of a call's tensors, inputs first.
pub(crate) type Addresses = ArrayVec<u64, MOST_TENSORS>;

/// What a pointer of a kernel is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pointer {
    /// So many bytes behind the start of a tensor of the call.
    Tensor(usize, u64),
    /// Memory of the prepared operation, or nothing.
    Fixed(u64),
}

impl Pointer {
    #[inline]
    pub(super) fn address(self, addresses: &Addresses) -> u64 {
        match self {
            Pointer::Tensor(index, offset) => addresses[index] + offset,
            Pointer::Fixed(address) => address,
        }
    }
}

/// A launch ready to go.
pub(crate) struct Launch {
    function: Function,
    maps: ArrayVec<TensorMap, MOST_MAPS>,
    pointers: ArrayVec<Pointer, MOST_POINTERS>,
    /// Whole words, so that its fields lie where the kernel expects them.
    params: Vec<u64>,
    grid: [u32; 3],
    threads: u32,
    shared_bytes: u32,
    attributes: ArrayVec<CUlaunchAttribute, 3>,
}

// SAFETY: attributes hold numbers here; everything else is safe to send.
unsafe impl Send for Launch {}
// SAFETY: nothing is changed after it was made.
unsafe impl Sync for Launch {}

impl Launch {
    /// A launch of `function` whose operation has so many inputs; `tensor` says which tensor of the call a place is.
    pub(crate) fn new(
        launch: &program::Launch,
        function: Function,
        workspace: u64,
        dependent: bool,
        tensor: impl Fn(Place) -> usize,
    ) -> Self {
        let pointer = |binding: &candlewick_kernels::Binding| match binding.memory.place {
            _ if binding.memory.bytes == 0 => Pointer::Fixed(0),
            Place::Workspace => Pointer::Fixed(workspace + binding.memory.offset),
            place => Pointer::Tensor(tensor(place), binding.memory.offset),
        };
        let mut params = vec![0u64; launch.params.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
        let mut attributes = ArrayVec::new();
        if launch.cluster > 1 {
            attributes.push(cluster(launch.cluster));
        }
        if launch.balanced {
            attributes.push(balanced());
        }
        if dependent {
            attributes.push(programmatic());
        }
        let maps = launch.maps.iter().map(|map| TensorMap::new(map, pointer(&map.binding)));
        Launch {
            function,
            maps: maps.collect(),
            pointers: launch.bindings.iter().map(pointer).collect(),
            params,
            grid: launch.grid,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            attributes,
        }
    }

    /// Launches it: one call of the driver. Its context is current.
    #[inline]
    pub(crate) fn submit(&self, context: &Context, stream: CUstream, addresses: &Addresses) -> Code {
        let mut maps = ArrayVec::<CUtensorMap, MOST_MAPS>::new();
        for map in &self.maps {
            match map.encode(context, addresses) {
                Ok(map) => maps.push(map),
                Err(code) => return code,
            }
        }
        let values: ArrayVec<u64, MOST_POINTERS> =
            self.pointers.iter().map(|pointer| pointer.address(addresses)).collect();
        // The driver only reads the arguments. A kernel without parameters does not look at the last one.
        let mut arguments = ArrayVec::<*mut c_void, { MOST_MAPS + MOST_POINTERS + 1 }>::new();
        arguments.extend(maps.iter().map(|map| std::ptr::from_ref(map).cast_mut().cast()));
        arguments.extend(values.iter().map(|value| std::ptr::from_ref(value).cast_mut().cast()));
        arguments.push(self.params.as_ptr().cast_mut().cast());
        let [x, y, z] = self.grid;
        if self.attributes.is_empty() {
            // SAFETY: the function is loaded, and there is a pointer to each of its arguments: the program was made for
            // it. What it touches was checked against the operation's operands.
            return unsafe {
                (context.driver.cuLaunchKernel)(
                    self.function.0,
                    x,
                    y,
                    z,
                    self.threads,
                    1,
                    1,
                    self.shared_bytes,
                    stream,
                    arguments.as_mut_ptr(),
                    std::ptr::null_mut(),
                )
            };
        }
        let config = CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared_bytes,
            hStream: stream,
            attrs: self.attributes.as_ptr().cast_mut(),
            numAttrs: self.attributes.len() as u32,
        };
        // SAFETY: as above; the driver only reads the attributes.
        unsafe {
            (context.driver.cuLaunchKernelEx)(&config, self.function.0, arguments.as_mut_ptr(), std::ptr::null_mut())
        }
    }
}

/// Launches in order. The first error ends it.
#[inline]
pub(crate) fn submit_all(launches: &[Launch], context: &Context, stream: CUstream, addresses: &Addresses) -> Code {
    for launch in launches {
        let code = launch.submit(context, stream, addresses);
        if code != SUCCESS {
            return code;
        }
    }
    SUCCESS
}

fn cluster(blocks: u32) -> CUlaunchAttribute {
    // SAFETY: zeros are a value of every member of the union.
    let mut value: CUlaunchAttributeValue = unsafe { std::mem::zeroed() };
    value.clusterDim.x = blocks;
    value.clusterDim.y = 1;
    value.clusterDim.z = 1;
    CUlaunchAttribute { id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, pad: [0; 4], value }
}

/// Clusters go where there is most room (CUDA Driver API, `CUclusterSchedulingPolicy`).
fn balanced() -> CUlaunchAttribute {
    // SAFETY: as above.
    let mut value: CUlaunchAttributeValue = unsafe { std::mem::zeroed() };
    value.clusterSchedulingPolicyPreference = CUclusterSchedulingPolicy::CU_CLUSTER_SCHEDULING_POLICY_LOAD_BALANCING;
    let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE;
    CUlaunchAttribute { id, pad: [0; 4], value }
}

/// The kernel may start before the one ahead of it has ended: it waits itself (CUDA C++ Programming Guide, "Programmatic
/// dependent launch").
fn programmatic() -> CUlaunchAttribute {
    // SAFETY: as above.
    let mut value: CUlaunchAttributeValue = unsafe { std::mem::zeroed() };
    value.programmaticStreamSerializationAllowed = 1;
    let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    CUlaunchAttribute { id, pad: [0; 4], value }
}
