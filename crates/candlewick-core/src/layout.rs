//! Shapes and strides of tensors, as callers have them.

use std::fmt;

/// A tensor's sizes or strides, outermost first.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(Box<[usize]>);

impl Shape {
    /// From a slice.
    pub fn new(sizes: &[usize]) -> Self {
        Shape(sizes.into())
    }

    /// The sizes, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.0
    }

    /// The product of the sizes, or `None` where it overflows.
    pub fn elements(&self) -> Option<usize> {
        // A zero anywhere makes the tensor empty, whatever the other sizes would overflow to.
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape::new(sizes)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape::new(&sizes)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, size) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A tensor as its owner describes it: sizes and strides in elements, outermost first, both of the same length.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Sizes.
    pub shape: &'a [usize],
    /// Strides in elements.
    pub strides: &'a [usize],
}

impl<'a> Layout<'a> {
    /// From sizes and strides.
    ///
    /// # Panics
    /// When their lengths differ.
    pub fn new(shape: &'a [usize], strides: &'a [usize]) -> Self {
        assert_eq!(shape.len(), strides.len(), "a layout has one stride per size");
        Layout { shape, strides }
    }

    /// The layout as rows of the last dimension with one stride between them: `(rows, columns, row stride)`.
    /// `None` where the strides do not allow that (a broadcast row counts as such), and the caller has to copy first.
    pub fn rows(&self) -> Option<(usize, usize, usize)> {
        let (&columns, outer) = self.shape.split_last()?;
        let (&column_stride, outer_strides) = self.strides.split_last()?;
        if columns > 1 && column_stride != 1 {
            return None;
        }
        let (rows, row_stride) = collapse(outer, outer_strides)?;
        if rows > 1 && row_stride < columns {
            return None;
        }
        Some((rows, columns, if rows > 1 { row_stride } else { columns }))
    }
}

/// Dimensions as one dimension with one stride, where that is possible: `(size, stride)`. Sizes of one do not count.
pub(crate) fn collapse(sizes: &[usize], strides: &[usize]) -> Option<(usize, usize)> {
    let mut size = 1usize;
    let mut stride = 0usize;
    for (&next, &next_stride) in sizes.iter().zip(strides).rev() {
        if next == 0 {
            return Some((0, 0));
        }
        if next == 1 {
            continue;
        }
        if size == 1 {
            (size, stride) = (next, next_stride);
        } else if next_stride == size.checked_mul(stride)? {
            size = size.checked_mul(next)?;
        } else {
            return None;
        }
    }
    Some((size, stride))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_dimensions_collapse_and_permuted_ones_do_not() {
        assert_eq!(Layout::new(&[2, 3, 4], &[12, 4, 1]).rows(), Some((6, 4, 4)));
        assert_eq!(Layout::new(&[2, 3, 4], &[24, 8, 1]).rows(), Some((6, 4, 8)));
        assert_eq!(Layout::new(&[2, 3, 4], &[4, 8, 1]).rows(), None);
        assert_eq!(Layout::new(&[2, 3, 4], &[12, 1, 3]).rows(), None);
        assert_eq!(Layout::new(&[4], &[1]).rows(), Some((1, 4, 4)));
        assert_eq!(Layout::new(&[0, 4], &[4, 1]).rows(), Some((0, 4, 4)));
        assert_eq!(Layout::new(&[], &[]).rows(), None);
        assert_eq!(Layout::new(&[5, 1], &[1, 7]).rows(), Some((5, 1, 1)));
        assert_eq!(Layout::new(&[5, 4], &[0, 1]).rows(), None, "one row broadcast to five");
    }

    #[test]
    fn shapes_print_as_lists_and_count_without_overflow() {
        assert_eq!(Shape::from([64, 32]).to_string(), "[64, 32]");
        assert_eq!(Shape::from([usize::MAX, 2]).elements(), None);
        assert_eq!(Shape::from([usize::MAX, 2, 0]).elements(), Some(0));
    }
}
