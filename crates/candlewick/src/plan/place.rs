//! Tensors that lie in a part of another: many parameters in one vector, which one operation then updates.

use super::Tensor;
use super::graph::{Kind, View};
use super::recorder::{Recorder, here};
use crate::{Error, Result};

impl Recorder {
    /// Some elements of a tensor without gaps, from `first` on, as a [rows, cols] of its own: for reading. Its gradient is its
    /// own too, not a part of the tensor's.
    ///
    /// # Errors
    /// Elements beyond the tensor's, a tensor with gaps between its rows, or of another plan.
    #[track_caller]
    pub fn part(&mut self, tensor: Tensor, first: usize, rows: usize, cols: usize) -> Result<Tensor> {
        self.check_owner(tensor).map_err(here)?;
        let view = *self.graph.view(tensor);
        let end = rows.checked_mul(cols).and_then(|count| count.checked_add(first));
        if !is_dense(&view) || end.is_none_or(|end| end > view.rows * view.cols) {
            return Err(here(Error::Shape {
                op: "part",
                operand: "the tensor",
                shape: [view.rows, view.cols].into(),
                remedy: "its rows lie without gaps, and the elements within it",
            }));
        }
        Ok(self.push_view(View {
            offset: view.offset + first,
            rows,
            cols,
            row: cols,
            part_of: None,
            reshaped: None,
            ..view
        }))
    }

    /// Gives a temporary its place in a part of a state: whatever writes it writes there. So no copy gathers the gradients of
    /// many parameters.
    ///
    /// # Errors
    /// A tensor that is no whole temporary, a place that is no state, another size or dtype.
    #[track_caller]
    pub fn settle(&mut self, temporary: Tensor, place: Tensor) -> Result<()> {
        self.check_owner(temporary).and_then(|()| self.check_owner(place)).map_err(here)?;
        let (from, to) = (*self.graph.view(temporary), *self.graph.view(place));
        let (source, target) = (&self.graph.storages[from.storage], &self.graph.storages[to.storage]);
        if source.dtype != target.dtype {
            let (expected, found) = (target.dtype, source.dtype);
            return Err(here(Error::DType { op: "settle", operand: "the temporary", expected, found }));
        }
        let whole = is_dense(&from) && from.offset == 0 && source.elements == from.rows * from.cols;
        let fits = is_dense(&to) && to.rows * to.cols == source.elements;
        if !(whole && fits && matches!((&source.kind, &target.kind), (Kind::Temporary { .. }, Kind::State(_)))) {
            return Err(here(Error::ShapeMismatch {
                op: "settle",
                left: "the temporary",
                left_shape: [from.rows, from.cols].into(),
                right: "its place",
                right_shape: [to.rows, to.cols].into(),
                remedy: "a whole temporary settles in as many elements of a state",
            }));
        }
        for view in self.graph.views.iter_mut().filter(|view| view.storage == from.storage) {
            (view.storage, view.offset) = (to.storage, view.offset + to.offset);
        }
        Ok(())
    }
}

fn is_dense(view: &View) -> bool {
    view.row == view.cols || view.rows <= 1
}
