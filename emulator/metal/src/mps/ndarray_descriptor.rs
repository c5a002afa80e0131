//! `MPSNDArrayDescriptor` (MPSNDArray.h).

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, define_class};
use objc2_foundation::{NSArray, NSNumber};
use objc2_metal_performance_shaders::{MPSDataType, MPSDimensionSlice};

use super::call::Call;
use crate::foundation::{self, new_object};

const CLASS: &str = "MPSNDArrayDescriptor";

/// One dimension of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dimension {
    /// Which dimension of what is stored it is.
    pub(super) stored: usize,
    /// Its elements before slicing.
    pub(super) length: usize,
    /// The first element of the slice.
    pub(super) start: usize,
    /// The elements of the slice.
    pub(super) sliced: usize,
}

/// What a descriptor describes.
#[derive(Clone)]
pub(super) struct Description {
    /// Its element type.
    pub(super) data_type: Cell<MPSDataType>,
    /// "Pack the rows. Default: NO."
    pub(super) packed: Cell<bool>,
    /// Index 0 is the dimension "in which successive elements appear adjacent to one another in memory".
    dimensions: RefCell<Vec<Dimension>>,
}

impl Description {
    /// Dimensions of these lengths, the fastest first.
    pub(super) fn new(call: Call, data_type: MPSDataType, lengths: &[usize]) -> Self {
        let dimensions = RefCell::new(dimensions(call, lengths));
        Description { data_type: Cell::new(data_type), packed: Cell::new(false), dimensions }
    }

    /// Its dimensions now.
    pub(super) fn dimensions(&self) -> Vec<Dimension> {
        self.dimensions.borrow().clone()
    }
}

fn dimensions(call: Call, lengths: &[usize]) -> Vec<Dimension> {
    // "May not exceed 16." "The product of all dimension lengths must be less than 2**31."
    call.require(lengths.len() <= 16, || format!("{} dimensions; there may be at most 16", lengths.len()));
    let product = lengths.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    call.require(product.is_some_and(|product| product < 1 << 31), || {
        format!("product of dimension sizes >= 2**31: {lengths:?}")
    });
    // Not documented; refused because an array without elements has no use here.
    call.require(!lengths.contains(&0), || format!("a dimension of length 0 in {lengths:?}"));
    let whole = |(stored, length): (usize, &usize)| Dimension { stored, length: *length, start: 0, sliced: *length };
    lengths.iter().enumerate().map(whole).collect()
}

/// The lengths in a shape, "from slowest moving to fastest moving dimension", in the order of dimensions.
pub(super) fn lengths_of_shape(shape: &NSArray<NSNumber>) -> Vec<usize> {
    let _own = emulator_objc::own();
    (0..shape.count()).rev().map(|index| shape.objectAtIndex(index).as_usize()).collect()
}

/// The caller's array of sizes.
///
/// # Safety
/// `sizes` is valid for reads of `count` numbers.
pub(super) unsafe fn sizes(count: usize, sizes: NonNull<usize>) -> Vec<usize> {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(sizes.as_ptr(), count) }.to_vec()
}

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSNDArrayDescriptor"]
    #[ivars = Description]
    pub(super) struct EmulatedNdArrayDescriptor;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedNdArrayDescriptor {}

    impl EmulatedNdArrayDescriptor {
        #[unsafe(method_id(init))]
        fn init(_this: Allocated<Self>) -> Retained<Self> {
            Call::new(CLASS, "init").refuse("use descriptorWithDataType:shape: instead (MPSNDArray.h)")
        }

        #[unsafe(method_id(descriptorWithDataType:dimensionCount:dimensionSizes:))]
        fn with_sizes(data_type: MPSDataType, count: usize, first: NonNull<usize>) -> Retained<Self> {
            let call = Call::new(CLASS, "descriptorWithDataType:dimensionCount:dimensionSizes:");
            // SAFETY: the caller gives `count` sizes.
            let lengths = unsafe { sizes(count, first) };
            new_object(Description::new(call, data_type, &lengths))
        }

        #[unsafe(method_id(descriptorWithDataType:shape:))]
        fn with_shape(data_type: MPSDataType, shape: &NSArray<NSNumber>) -> Retained<Self> {
            let call = Call::new(CLASS, "descriptorWithDataType:shape:");
            new_object(Description::new(call, data_type, &lengths_of_shape(shape)))
        }

        #[unsafe(method(reshapeWithDimensionCount:dimensionSizes:))]
        fn reshape_with_sizes(&self, count: usize, first: NonNull<usize>) {
            let call = Call::new(CLASS, "reshapeWithDimensionCount:dimensionSizes:");
            // SAFETY: the caller gives `count` sizes.
            let lengths = unsafe { sizes(count, first) };
            *self.ivars().dimensions.borrow_mut() = dimensions(call, &lengths);
        }

        #[unsafe(method(reshapeWithShape:))]
        fn reshape_with_shape(&self, shape: &NSArray<NSNumber>) {
            let call = Call::new(CLASS, "reshapeWithShape:");
            *self.ivars().dimensions.borrow_mut() = dimensions(call, &lengths_of_shape(shape));
        }

        #[unsafe(method(dataType))]
        fn data_type(&self) -> MPSDataType {
            self.ivars().data_type.get()
        }

        #[unsafe(method(setDataType:))]
        fn set_data_type(&self, data_type: MPSDataType) {
            self.ivars().data_type.set(data_type);
        }

        #[unsafe(method(preferPackedRows))]
        fn prefer_packed_rows(&self) -> bool {
            self.ivars().packed.get()
        }

        #[unsafe(method(setPreferPackedRows:))]
        fn set_prefer_packed_rows(&self, packed: bool) {
            self.ivars().packed.set(packed);
        }

        #[unsafe(method(numberOfDimensions))]
        fn number_of_dimensions(&self) -> usize {
            self.ivars().dimensions.borrow().len()
        }

        // "Undefined dimensions are implicitly length 1."
        #[unsafe(method(setNumberOfDimensions:))]
        fn set_number_of_dimensions(&self, count: usize) {
            let call = Call::new(CLASS, "setNumberOfDimensions:");
            call.require(count <= 16, || format!("{count} dimensions; there may be at most 16"));
            let mut dimensions = self.ivars().dimensions.borrow_mut();
            // Not documented; refused because elements would be lost.
            call.require(dimensions.iter().skip(count).all(|dimension| dimension.length == 1), || {
                format!("{count} dimensions leave out one that has more than 1 element")
            });
            dimensions.truncate(count);
            while dimensions.len() < count {
                let stored = dimensions.iter().map(|dimension| dimension.stored + 1).max().unwrap_or(0);
                dimensions.push(Dimension { stored, length: 1, start: 0, sliced: 1 });
            }
        }

        // "If dimensionIndex >= numberOfDimensions, 1 will be returned."
        #[unsafe(method(lengthOfDimension:))]
        fn length_of_dimension(&self, index: usize) -> usize {
            self.ivars().dimensions.borrow().get(index).map_or(1, |dimension| dimension.length)
        }

        // "If the dimensionIndex >= numberOfDimensions, {0,1} is returned."
        #[unsafe(method(sliceRangeForDimension:))]
        fn slice_range_for_dimension(&self, index: usize) -> MPSDimensionSlice {
            let whole = MPSDimensionSlice { start: 0, length: 1 };
            let slice = |dimension: &Dimension| MPSDimensionSlice { start: dimension.start, length: dimension.sliced };
            self.ivars().dimensions.borrow().get(index).map_or(whole, slice)
        }

        #[unsafe(method(sliceDimension:withSubrange:))]
        fn slice_dimension(&self, index: usize, slice: MPSDimensionSlice) {
            let call = Call::new(CLASS, "sliceDimension:withSubrange:");
            let MPSDimensionSlice { start, length } = slice;
            let index = self.index(call, index);
            let dimension = &mut self.ivars().dimensions.borrow_mut()[index];
            let fits = length > 0 && start.checked_add(length).is_some_and(|end| end <= dimension.length);
            call.require(fits, || {
                format!("the slice {start} + {length} does not fit in dimension {index} of length {}", dimension.length)
            });
            (dimension.start, dimension.sliced) = (start, length);
        }

        #[unsafe(method(transposeDimension:withDimension:))]
        fn transpose_dimension(&self, first: usize, second: usize) {
            let call = Call::new(CLASS, "transposeDimension:withDimension:");
            let (first, second) = (self.index(call, first), self.index(call, second));
            self.ivars().dimensions.borrow_mut().swap(first, second);
        }

        // "dimensionOrder[i] must contain the new postion of dimenson i."
        #[unsafe(method(permuteWithDimensionOrder:))]
        fn permute(&self, order: NonNull<usize>) {
            let call = Call::new(CLASS, "permuteWithDimensionOrder:");
            let mut dimensions = self.ivars().dimensions.borrow_mut();
            // SAFETY: "size of the array must be equal to the original number of dimensions".
            let order = unsafe { sizes(dimensions.len(), order) };
            let mut sorted = order.clone();
            sorted.sort_unstable();
            call.require(sorted.iter().copied().eq(0..dimensions.len()), || {
                format!("{order:?} is no permutation of {} dimensions", dimensions.len())
            });
            let old = dimensions.clone();
            for (dimension, position) in old.into_iter().zip(order) {
                dimensions[position] = dimension;
            }
        }

        // "The size of the fastest running dimension is the last element in the array."
        #[unsafe(method_id(getShape))]
        fn get_shape(&self) -> Retained<NSArray<NSNumber>> {
            let _own = emulator_objc::own();
            let dimensions = self.ivars().dimensions.borrow();
            let numbers = dimensions.iter().rev().map(|dimension| NSNumber::new_usize(dimension.length));
            let objects = numbers.map(|number| number.into_super().into_super().into_super());
            // SAFETY: every object in it is a number.
            unsafe { Retained::cast_unchecked(foundation::array(objects.collect())) }
        }
    }
);

impl EmulatedNdArrayDescriptor {
    fn index(&self, call: Call, index: usize) -> usize {
        let count = self.ivars().dimensions.borrow().len();
        call.require(index < count, || format!("dimension {index} of an array with {count} dimensions"));
        index
    }

    /// What it describes.
    pub(super) fn description(&self) -> &Description {
        self.ivars()
    }
}
