//! Where the elements of an operand lie: matrices, vectors and arrays are all axes with a constant step.

use std::ops::Range;
use std::sync::Arc;

use objc2_metal_performance_shaders::MPSDataType;

use super::data_type;
use crate::gpu::memory::Memory;
use crate::gpu::work::{Span, Usage};

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Elements.
    pub(super) length: usize,
    /// Bytes from one to the next.
    pub(super) stride: usize,
}

/// Elements in a memory. Axis 0 runs along a row, axis 1 down a column, all further ones through the batch.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Bytes from the memory's start to the first element.
    pub(super) offset: usize,
    /// The dimensions.
    pub(super) axes: Vec<Axis>,
    /// What the elements are.
    pub(super) data_type: MPSDataType,
}

impl Layout {
    /// The bytes of the elements, in ascending order; rows without a gap between them are one range.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        if self.axes.iter().any(|axis| axis.length == 0) {
            return Vec::new();
        }
        // A step of 0 (broadcasting) or a length of 1 adds no bytes.
        let mut axes: Vec<Axis> = self.axes.iter().copied().filter(|a| a.length > 1 && a.stride > 0).collect();
        axes.sort_by_key(|axis| axis.stride);
        let mut run = data_type::size(self.data_type);
        let mut gapless = 0;
        while gapless < axes.len() && axes[gapless].stride == run {
            run *= axes[gapless].length;
            gapless += 1;
        }
        let mut starts = vec![self.offset];
        for axis in axes[gapless..].iter().rev() {
            let steps = |start: usize| (0..axis.length).map(move |step| start + step * axis.stride);
            starts = starts.into_iter().flat_map(steps).collect();
        }
        starts.sort_unstable();
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for start in starts {
            match ranges.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(start + run),
                _ => ranges.push(start..start + run),
            }
        }
        ranges
    }

    /// One past the last byte.
    pub(super) fn end(&self) -> usize {
        let steps: usize = self.axes.iter().map(|axis| axis.length.saturating_sub(1) * axis.stride).sum();
        self.offset + steps + data_type::size(self.data_type)
    }

    /// One matrix of the batch: its position along axes 2, 3 and so on.
    pub(super) fn plane(&self, batch: &[usize]) -> Plane {
        let axis = |index: usize| self.axes.get(index).copied().unwrap_or(Axis { length: 1, stride: 0 });
        let steps: usize = batch.iter().enumerate().map(|(outer, index)| index * axis(outer + 2).stride).sum();
        Plane { offset: self.offset + steps, columns: axis(0), rows: axis(1), data_type: self.data_type }
    }
}

/// One matrix in a memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    offset: usize,
    /// Along a row.
    pub(super) columns: Axis,
    /// Down a column.
    pub(super) rows: Axis,
    data_type: MPSDataType,
}

impl Plane {
    /// Calls `line` for every run of neighbouring elements: (first row, first column, elements, byte offset).
    fn lines(&self, mut line: impl FnMut(usize, usize, usize, usize)) {
        let length = if self.columns.stride == data_type::size(self.data_type) { self.columns.length } else { 1 };
        for row in 0..self.rows.length {
            for column in (0..self.columns.length).step_by(length.max(1)) {
                line(row, column, length, self.offset + row * self.rows.stride + column * self.columns.stride);
            }
        }
    }

    /// The elements, row after row.
    ///
    /// # Safety
    /// The plane lies in the memory that starts at `base`.
    pub(super) unsafe fn load(&self, base: *const u8) -> Vec<f32> {
        let width = self.columns.length;
        let mut values = vec![0.0; self.rows.length * width];
        self.lines(|row, column, length, offset| {
            let first = row * width + column;
            // SAFETY: the line is a part of the plane.
            unsafe { data_type::load(self.data_type, base.add(offset), &mut values[first..first + length]) };
        });
        values
    }

    /// Rounds the values, row after row, and writes them.
    ///
    /// # Safety
    /// The plane lies in the memory that starts at `base`.
    pub(super) unsafe fn store(&self, base: *mut u8, values: &[f32]) {
        let width = self.columns.length;
        self.lines(|row, column, length, offset| {
            let first = row * width + column;
            // SAFETY: the line is a part of the plane.
            unsafe { data_type::store(self.data_type, &values[first..first + length], base.add(offset)) };
        });
    }
}

/// Copies elements, converted if the types differ, between two layouts with the same lengths.
///
/// # Safety
/// Each layout lies in the memory that starts at its address.
pub(super) unsafe fn copy(from: (&Layout, *const u8), to: (&Layout, *mut u8)) {
    let outer = from.0.axes.get(2..).unwrap_or(&[]);
    for batch in positions(outer.iter().map(|axis| axis.length)) {
        let (source, result) = (from.0.plane(&batch), to.0.plane(&batch));
        if source.data_type != result.data_type {
            // SAFETY: the caller's promise.
            unsafe { result.store(to.1, &source.load(from.1)) };
            continue;
        }
        let size = data_type::size(source.data_type);
        for row in 0..source.rows.length {
            for column in 0..source.columns.length {
                let offset = |plane: Plane| plane.offset + row * plane.rows.stride + column * plane.columns.stride;
                // SAFETY: the caller's promise; both are elements of the layouts.
                unsafe { std::ptr::copy(from.1.add(offset(source)), to.1.add(offset(result)), size) };
            }
        }
    }
}

/// Every position in dimensions of these lengths.
pub(super) fn positions(lengths: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
    lengths.fold(vec![Vec::new()], |positions, length| {
        let extended = |position: Vec<usize>| (0..length).map(move |next| [position.as_slice(), &[next]].concat());
        positions.into_iter().flat_map(extended).collect()
    })
}

/// Elements and the memory they are in.
#[derive(Clone)]
pub(super) struct Operand {
    /// The memory.
    pub(super) memory: Arc<Memory>,
    /// Where in it.
    pub(super) layout: Layout,
}

impl Operand {
    /// What a command does with these elements.
    pub(super) fn span(&self, usage: Usage) -> Span {
        Span { memory: self.memory.clone(), bytes: self.layout.ranges(), usage }
    }

    /// Whether the two have bytes in common.
    pub(super) fn overlaps(&self, other: &Operand) -> bool {
        let ((root, base), (other_root, other_base)) = (self.memory.root(), other.memory.root());
        if root != other_root {
            return false;
        }
        let (mine, theirs) = (self.layout.ranges(), other.layout.ranges());
        let mut theirs = theirs.iter().peekable();
        mine.iter().any(|range| {
            while theirs.peek().is_some_and(|other| other.end + other_base <= range.start + base) {
                theirs.next();
            }
            theirs.peek().is_some_and(|other| other.start + other_base < range.end + base)
        })
    }

    /// Whether the two are the same elements in the same places.
    pub(super) fn coincides(&self, other: &Operand) -> bool {
        let place = |operand: &Operand| {
            let (root, base) = operand.memory.root();
            (root, base + operand.layout.offset)
        };
        place(self) == place(other)
            && self.layout.data_type == other.layout.data_type
            && self.layout.axes == other.layout.axes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(offset: usize, axes: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let axes = axes.iter().map(|(length, stride)| Axis { length: *length, stride: *stride }).collect();
        let layout = Layout { offset, axes, data_type: MPSDataType::Float32 };
        let ranges = layout.ranges();
        assert_eq!(ranges.last().map(|range| range.end), Some(layout.end()));
        ranges.into_iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn ranges_are_rows_without_their_padding() {
        assert_eq!(ranges(8, &[(3, 4), (2, 16)]), [(8, 20), (24, 36)]);
        assert_eq!(ranges(0, &[(3, 4), (2, 16), (2, 64)]), [(0, 12), (16, 28), (64, 76), (80, 92)]);
    }

    #[test]
    fn rows_without_a_gap_are_one_range() {
        assert_eq!(ranges(4, &[(3, 4), (2, 12)]), [(4, 28)]);
        assert_eq!(ranges(4, &[(3, 4), (2, 12), (2, 40)]), [(4, 28), (44, 68)]);
        assert_eq!(ranges(4, &[(4, 4), (1, 64), (2, 16)]), [(4, 36)]);
    }

    #[test]
    fn the_order_of_the_axes_does_not_matter() {
        assert_eq!(ranges(0, &[(2, 12), (3, 4)]), [(0, 24)]);
        assert_eq!(ranges(0, &[(2, 16), (3, 4)]), [(0, 12), (16, 28)]);
        assert_eq!(ranges(0, &[(3, 16)]), [(0, 4), (16, 20), (32, 36)]);
    }

    #[test]
    fn elements_met_twice_count_once() {
        assert_eq!(ranges(0, &[(3, 4), (5, 0)]), [(0, 12)]);
        assert_eq!(ranges(0, &[(3, 4), (3, 4)]), [(0, 20)]);
    }

    fn operand(memory: &Arc<Memory>, offset: usize, axes: &[(usize, usize)]) -> Operand {
        let axes = axes.iter().map(|(length, stride)| Axis { length: *length, stride: *stride }).collect();
        Operand { memory: memory.clone(), layout: Layout { offset, axes, data_type: MPSDataType::Float32 } }
    }

    #[test]
    fn columns_beside_each_other_do_not_overlap() {
        let memory = Memory::allocate(256, true).expect("memory");
        let left = operand(&memory, 0, &[(2, 4), (3, 16)]);
        assert!(!left.overlaps(&operand(&memory, 8, &[(2, 4), (3, 16)])));
        assert!(left.overlaps(&operand(&memory, 4, &[(2, 4), (3, 16)])));
        assert!(left.overlaps(&operand(&memory, 36, &[(1, 4)])));
        assert!(!left.overlaps(&operand(&memory, 40, &[(4, 4)])));
        assert!(!left.overlaps(&operand(&Memory::allocate(256, true).expect("memory"), 0, &[(2, 4), (3, 16)])));
        assert!(left.coincides(&left.clone()) && !left.coincides(&operand(&memory, 0, &[(2, 4), (2, 16)])));
    }

    #[test]
    fn parts_of_a_heap_overlap_where_they_alias() {
        let heap = Memory::allocate(256, false).expect("memory");
        let part = |range| Memory::part(&heap, range, false, None).expect("a part");
        let (first, second) = (part(0..128), part(64..192));
        assert!(operand(&first, 64, &[(4, 4)]).overlaps(&operand(&second, 0, &[(4, 4)])));
        assert!(!operand(&first, 0, &[(4, 4)]).overlaps(&operand(&second, 0, &[(4, 4)])));
    }
}
