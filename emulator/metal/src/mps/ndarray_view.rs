//! Views of an `MPSNDArray`: slices, transposes and new shapes in the same memory, or copies.

use objc2::rc::Retained;
use objc2_metal_performance_shaders::MPSAliasingStrategy;

use super::call::Call;
use super::data_type;
use super::ndarray::{EmulatedNdArray, NdArray, lay_out, select};
use super::ndarray_copy;
use super::ndarray_descriptor::{Description, Dimension};
use super::object::Commands;
use super::strided::{Axis, Layout};
use crate::foundation::new_object;

const CLASS: &str = "MPSNDArray";

impl EmulatedNdArray {
    /// A view if there can be one; else, and where it must not alias, a copy.
    pub(super) fn view_or_copy_of(
        &self,
        commands: &Commands,
        description: &Description,
        aliasing: MPSAliasingStrategy,
    ) -> Option<Retained<EmulatedNdArray>> {
        let must_alias = aliasing.contains(MPSAliasingStrategy::ShallAlias);
        let may_alias = !aliasing.contains(MPSAliasingStrategy::ShallNotAlias);
        let view = self.alias(description).filter(|_| may_alias);
        view.or_else(|| if must_alias { None } else { self.copy(commands, description) })
    }

    /// Whether the elements lie one after the other.
    fn is_contiguous(&self) -> bool {
        let mut expected = data_type::size(self.layout().data_type);
        self.layout().axes.iter().all(|axis| {
            let joins = axis.length == 1 || axis.stride == expected;
            expected *= axis.length;
            joins
        })
    }

    /// A view with the description's slices and transposes, or its new shape, in the same memory.
    pub(super) fn alias(&self, description: &Description) -> Option<Retained<EmulatedNdArray>> {
        let Layout { offset, axes, data_type } = self.layout();
        if description.data_type.get() != *data_type {
            return None;
        }
        let dimensions = description.dimensions();
        let same = dimensions.iter().all(|dimension| self.length(dimension.stored) == dimension.length)
            && axes.iter().map(|axis| axis.length).product::<usize>() == elements(&dimensions);
        if same {
            let stride = |dimension: &Dimension| axes.get(dimension.stored).map_or(0, |axis| axis.stride);
            return Some(self.sharing(select(&dimensions, *offset, *data_type, stride)));
        }
        let call = Call::new(CLASS, "arrayViewWithDescriptor:");
        let reshaped = Description::clone(description);
        reshaped.packed.set(true);
        let fits =
            self.is_contiguous() && axes.iter().map(|axis| axis.length).product::<usize>() == elements(&dimensions);
        fits.then(|| self.sharing(lay_out(call, &reshaped, *offset).0))
    }

    /// "This operation always returns a new view of the same underlying MTLBuffer, but works only with contiguous
    /// buffers." Strides count elements: "First number must be one. Must be non-decreasing."
    pub(super) fn restride(&self, lengths: &[usize], strides: &[usize]) -> Option<Retained<EmulatedNdArray>> {
        let Layout { offset, data_type, .. } = self.layout();
        let size = data_type::size(*data_type);
        let ordered = strides.first() == Some(&1) && strides.is_sorted() && strides.len() >= lengths.len();
        let axes = lengths.iter().zip(strides).map(|(length, stride)| Axis { length: *length, stride: stride * size });
        let layout = Layout { offset: *offset, axes: axes.collect(), data_type: *data_type };
        let inside = layout.end() <= self.layout().end();
        (ordered && inside && self.is_contiguous()).then(|| self.sharing(layout))
    }

    /// A new array with the description's slices, transposes and type of this one's elements.
    fn copy(&self, commands: &Commands, description: &Description) -> Option<Retained<EmulatedNdArray>> {
        let call = Call::new(CLASS, "arrayViewWithCommandBuffer:descriptor:aliasing:");
        let described = Description::clone(description);
        described.data_type.set(self.layout().data_type);
        let source = self.alias(&described)?;
        let lengths: Vec<usize> = source.layout().axes.iter().map(|axis| axis.length).collect();
        let target = Description::new(call, description.data_type.get(), &lengths);
        target.packed.set(description.packed.get());
        let copy: Retained<EmulatedNdArray> = new_object(NdArray::lazy(call, self.its_device(), &target));
        ndarray_copy::encode(call, commands, &source.operand(), &copy.operand());
        Some(copy)
    }
}

/// The elements that dimensions have before slicing.
fn elements(dimensions: &[Dimension]) -> usize {
    dimensions.iter().map(|dimension| dimension.length).product()
}
