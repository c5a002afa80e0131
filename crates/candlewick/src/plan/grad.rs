//! Reverse-mode gradients, built on the recorded operations: more operations of the same plan.

use super::Tensor;
use super::graph::Node;
use super::recorder::{Here, Recorder, here};
use super::rewrite::scale::factor;
use crate::op::{Add, Attention, Cast, Dequantize, Dropout, MatMulOperand, QuantLinear, Rope, SiluMul};
use crate::{Error, LoraDelta, LoraLinear, MatMul, Op, Result, RmsNorm, Softmax};
use std::collections::{HashMap, HashSet};
use std::panic::Location;

impl Recorder {
    /// The gradients of a loss [1, 1], or of what [`Recorder::cross_entropy`] returns, with respect to tensors, in their order and shapes. Frozen operands (W and bias of
    /// a LoRA layer) have none.
    ///
    /// # Errors
    /// A loss of another shape, a parameter that the loss does not depend on, an operation without a gradient.
    #[track_caller]
    pub fn grad(&mut self, loss: Tensor, parameters: &[Tensor]) -> Result<Vec<Tensor>> {
        let (rows, cols) = self.shape(loss);
        if (rows, cols) != (1, 1) && !self.heads.contains_key(&loss) {
            let remedy = "a loss is one number, [1, 1]; for others give their gradients to `grad_from`";
            return Err(here(Error::Shape { op: "grad", operand: "the loss", shape: [rows, cols].into(), remedy }));
        }
        let one = self.filled(1.0, rows, cols, self.dtype(loss));
        self.grad_from(&[(loss, one)], parameters)
    }

    /// The gradients of a function whose gradients with respect to some tensors are given: pairs of a tensor and its
    /// gradient, of the same shape.
    ///
    /// # Errors
    /// As [`Recorder::grad`], and pairs that do not fit.
    #[track_caller]
    pub fn grad_from(&mut self, seeds: &[(Tensor, Tensor)], parameters: &[Tensor]) -> Result<Vec<Tensor>> {
        for &(tensor, gradient) in seeds {
            let shapes = (self.shape(tensor), self.shape(gradient));
            if shapes.0 != shapes.1 || self.dtype(tensor) != self.dtype(gradient) {
                return Err(here(Error::ShapeMismatch {
                    op: "grad",
                    left: "a tensor",
                    left_shape: [shapes.0.0, shapes.0.1].into(),
                    right: "its gradient",
                    right_shape: [shapes.1.0, shapes.1.1].into(),
                    remedy: "they have the same shape and dtype",
                }));
            }
        }
        let nodes = self.graph.nodes.clone();
        let needed = self.depending_on(parameters, &nodes);
        let written =
            nodes.iter().enumerate().flat_map(|(at, node)| node.outputs.iter().map(move |&output| (at, output)));
        let last_writer = written.map(|(at, output)| (self.graph.view(output).storage, at)).collect();
        let mut tape = Tape { gradients: HashMap::new(), gathered: HashSet::new() };
        for &(tensor, gradient) in seeds {
            tape.add(self, tensor, gradient).here()?;
        }
        for (at, node) in nodes.iter().enumerate().rev() {
            let wanted: Vec<bool> = node.inputs.iter().map(|&input| needed.contains_key(&self.whole(input))).collect();
            if wanted.contains(&true) && node.outputs.iter().any(|&output| tape.has(self, output)) {
                let recorded = self.graph.nodes.len();
                self.backward(node, &wanted, &mut tape).here()?;
                self.check_unchanged(at, recorded, &last_writer).here()?;
            }
        }
        let mut gradients = Vec::new();
        for &parameter in parameters {
            if !tape.has(self, parameter) {
                let value = self.graph.print(parameter);
                let remedy = "the loss does not depend on it, or only through a frozen operand";
                return Err(here(Error::Descriptor { op: "grad", field: "parameter", value, remedy }));
            }
            gradients.push(tape.of(self, parameter).here()?);
        }
        self.recorded_here(nodes.len());
        Ok(gradients)
    }

    /// The tensor that a part is a part of, in the shape in which it was made. Gradients belong to these.
    fn whole(&self, tensor: Tensor) -> Tensor {
        let view = self.graph.view(tensor);
        let other = view.part_of.map(|(whole, _)| whole).or(view.reshaped);
        other.map_or(tensor, |other| self.whole(other))
    }

    /// The operations from `first` on were all asked for by one line.
    #[track_caller]
    pub(super) fn recorded_here(&mut self, first: usize) {
        let at = Location::caller();
        self.graph.nodes[first..].iter_mut().for_each(|node| node.at = at);
    }

    /// What the operations from `recorded` on, which are the gradient of operation `at`, read of it is as it was then.
    fn check_unchanged(&self, at: usize, recorded: usize, last_writer: &HashMap<usize, usize>) -> Result<()> {
        let node = &self.graph.nodes[at];
        let storage = |tensor: Tensor| self.graph.view(tensor).storage;
        for &tensor in self.graph.nodes[recorded..].iter().flat_map(|node| &node.inputs) {
            let own = node.inputs.iter().chain(&node.outputs).any(|&own| storage(own) == storage(tensor));
            if own && last_writer.get(&storage(tensor)).is_some_and(|&writer| writer > at) {
                return Err(Error::Descriptor {
                    op: node.op.name(),
                    field: "gradient",
                    value: self.graph.print(tensor),
                    remedy: "it needs this tensor as it was, and a later operation writes it again: let that write another",
                });
            }
        }
        Ok(())
    }

    /// Every tensor whose numbers change with the parameters'.
    fn depending_on(&self, parameters: &[Tensor], nodes: &[Node]) -> HashMap<Tensor, ()> {
        let mut needed: HashMap<Tensor, ()> = parameters.iter().map(|&tensor| (self.whole(tensor), ())).collect();
        for node in nodes {
            if node.inputs.iter().any(|&input| needed.contains_key(&self.whole(input))) {
                needed.extend(node.outputs.iter().map(|&output| (self.whole(output), ())));
            }
        }
        needed
    }

    /// Records the gradients of one operation.
    fn backward(&mut self, node: &Node, wanted: &[bool], tape: &mut Tape) -> Result<()> {
        let dy = tape.of(self, node.outputs[0])?;
        if let Some((x, gradient)) = self.cross_entropy_backward(node, dy)? {
            return tape.add(self, x, gradient);
        }
        let inputs = &node.inputs;
        let gradients: Vec<(usize, Tensor)> = match node.op {
            Op::MatMul(op) if factor(&self.graph, node).is_some() => vec![(1, self.scale(dy, op.alpha.get())?)],
            Op::MatMul(op) => self.matmul_backward(op, inputs, wanted, dy)?,
            Op::Softmax(op) => {
                let y = node.outputs[0];
                let dy = self.laid_out_as(y, dy)?;
                let op = Softmax { y_row: self.row(dy), x_row: op.cols, ..op };
                vec![(0, self.one(Op::SoftmaxBackward(op), &[y, dy])?)]
            }
            Op::RmsNorm(op) => {
                let op = RmsNorm { y_row: self.row(dy), frozen: !wanted[1], ..op };
                let outputs = self.op(Op::RmsNormBackward(op), &[inputs[0], inputs[1], dy])?;
                outputs.into_iter().enumerate().collect()
            }
            Op::LoraLinear(op) => self.lora_backward(op, inputs, wanted, dy)?,
            Op::LoraDelta(op) => self.delta_backward(LoraDelta { y_row: self.row(dy), ..op }, inputs, [0, 1, 2], dy)?,
            Op::Add(op) if op.b_row != 0 || !wanted[1] => vec![(0, dy), (1, dy)],
            Op::SiluMul(op) => {
                let op = SiluMul { y_row: self.row(dy), ..op };
                let outputs = self.op(Op::SiluMulBackward(op), &[inputs[0], inputs[1], dy])?;
                vec![(0, outputs[0]), (1, outputs[1])]
            }
            Op::Rope(op) => {
                // The gradient is a tensor of its own, whatever gaps x has.
                let op = Rope { x_row: op.heads * op.head, y_row: self.row(dy), ..op };
                vec![(0, self.one(Op::RopeBackward(op), &[dy, inputs[1], inputs[2]])?)]
            }
            Op::Attention(op) => self.attention_backward(op, node, dy)?,
            Op::Embedding(op) => {
                let dy = self.contiguous(dy)?;
                vec![(1, self.one(Op::EmbeddingBackward(op), &[inputs[0], dy])?)]
            }
            Op::Dropout(op) => {
                let op = Dropout { x_row: self.row(dy), y_row: op.cols, ..op };
                vec![(0, self.one(op, &[dy, inputs[1]])?)]
            }
            Op::Cast(op) => {
                let (rows, cols) = self.shape(inputs[0]);
                let (dy, dx) = (self.contiguous(dy)?, self.temporary("dx", rows, cols, op.from));
                self.op_into(Cast::new(op.elements, op.to, op.from), &[dy], &[dx])?;
                vec![(0, dx)]
            }
            Op::QuantLinear(op) => vec![(0, self.quant_backward(op, inputs, dy)?)],
            op => {
                return Err(Error::Descriptor {
                    op: op.name(),
                    field: "gradient",
                    value: "none".into(),
                    remedy: "this operation has no gradient: compute it outside of what is differentiated",
                });
            }
        };
        for (input, gradient) in gradients {
            // What is added to in place passes on the gradient that it has.
            if wanted[input] && inputs[input] != node.outputs[0] {
                tape.add(self, inputs[input], gradient)?;
            }
        }
        Ok(())
    }

    fn matmul_backward(
        &mut self,
        op: MatMul,
        inputs: &[Tensor],
        wanted: &[bool],
        dy: Tensor,
    ) -> Result<Vec<(usize, Tensor)>> {
        let op = MatMul { ldc: self.row(dy), ..op };
        let mut gradients = Vec::new();
        for (input, gradient) in [op.grad_a(), op.grad_b()].into_iter().enumerate().filter(|&(i, _)| wanted[i]) {
            let of = |operand| match operand {
                MatMulOperand::A => inputs[0],
                MatMulOperand::B => inputs[1],
                MatMulOperand::GradC => dy,
            };
            gradients.push((input, self.one(gradient.op, &[of(gradient.a), of(gradient.b)])?));
        }
        Ok(gradients)
    }

    fn lora_backward(
        &mut self,
        op: LoraLinear,
        inputs: &[Tensor],
        wanted: &[bool],
        dy: Tensor,
    ) -> Result<Vec<(usize, Tensor)>> {
        let a = if op.bias { 3 } else { 2 };
        // A plain product, which a sum can take in. Packed weights are read packed by the layer's own backward alone.
        if op.rank == 0 && !wanted[a] && !wanted[a + 1] && !self.graph.packs {
            return Ok(vec![(0, self.matmul(dy, inputs[1])?)]);
        }
        let op = LoraLinear { y_row: self.row(dy), ..op };
        if wanted[0] {
            let all = [inputs[0], inputs[1], inputs[a], inputs[a + 1], dy];
            let outputs = self.op(Op::LoraLinearBackward(op), &all)?;
            return Ok(vec![(0, outputs[0]), (a, outputs[1]), (a + 1, outputs[2])]);
        }
        // Without dx, the product with W falls away.
        let LoraLinear { rows, in_features, out_features, rank, scale, dtype, .. } = op;
        let delta = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype);
        self.delta_backward(LoraDelta { x_row: op.x_row, y_row: op.y_row, ..delta }, inputs, [0, a, a + 1], dy)
    }

    fn delta_backward(
        &mut self,
        op: LoraDelta,
        inputs: &[Tensor],
        places: [usize; 3],
        dy: Tensor,
    ) -> Result<Vec<(usize, Tensor)>> {
        let [x, a, b] = places.map(|place| inputs[place]);
        let outputs = self.op(Op::LoraDeltaBackward(op), &[x, a, b, dy])?;
        Ok(places.into_iter().zip(outputs).collect())
    }

    fn attention_backward(&mut self, op: Attention, node: &Node, dy: Tensor) -> Result<Vec<(usize, Tensor)>> {
        let (q, k, v, spans) = (node.inputs[0], node.inputs[1], node.inputs[2], node.inputs[3]);
        let (y, lse) = (node.outputs[0], node.outputs[1]);
        let dy = self.laid_out_as(y, dy)?;
        let op = Attention { y_row: self.row(dy), ..op };
        let outputs = self.op(Op::AttentionBackward(op), &[q, k, v, spans, y, lse, dy])?;
        Ok((0..3).zip(outputs).collect())
    }

    /// dx = dy W: the blocks become numbers first.
    fn quant_backward(&mut self, op: QuantLinear, inputs: &[Tensor], dy: Tensor) -> Result<Tensor> {
        let w = self.dequantized(inputs[1], op.dtype)?;
        self.matmul(dy, w)
    }

    /// A gradient with the row stride of its tensor, where one descriptor has one for both.
    fn laid_out_as(&mut self, tensor: Tensor, gradient: Tensor) -> Result<Tensor> {
        let (rows, cols) = self.shape(tensor);
        if rows <= 1 || self.row(tensor) == self.row(gradient) {
            return Ok(gradient);
        }
        if self.row(tensor) == cols {
            return self.contiguous(gradient);
        }
        Err(Error::Strides {
            op: "grad",
            operand: "a result",
            shape: [rows, cols].into(),
            strides: [self.row(tensor), 1].into(),
            remedy: "let the operation write a tensor of its own, without gaps between rows",
        })
    }

    /// A tensor without gaps between its rows.
    fn contiguous(&mut self, tensor: Tensor) -> Result<Tensor> {
        let (rows, cols) = self.shape(tensor);
        if rows <= 1 || self.row(tensor) == cols {
            return Ok(tensor);
        }
        let nothing = self.filled(0.0, 1, cols, self.dtype(tensor));
        self.add_row(tensor, nothing)
    }

    /// A constant of blocks as numbers.
    pub(super) fn dequantized(&mut self, w: Tensor, dtype: crate::DType) -> Result<Tensor> {
        let ((rows, bytes), Some(format)) = (self.shape(w), self.quant_of(w)) else { return Ok(w) };
        self.one(Dequantize::new(rows, bytes / format.bytes() * format.block(), format, dtype), &[w])
    }

    pub(super) fn is_constant(&self, tensor: Tensor) -> bool {
        matches!(self.graph.storage(tensor).kind, super::graph::Kind::Constant(_))
    }
}

/// The gradients known so far, of whole tensors.
struct Tape {
    gradients: HashMap<Tensor, Tensor>,
    /// Gradients that only this tape has, and may add to in place: those of tensors whose parts were used.
    gathered: HashSet<Tensor>,
}

impl Tape {
    fn has(&self, recorder: &Recorder, tensor: Tensor) -> bool {
        self.gradients.contains_key(&recorder.whole(tensor))
    }

    /// The gradient of a tensor or of a part of one.
    fn of(&self, recorder: &mut Recorder, tensor: Tensor) -> Result<Tensor> {
        let view = *recorder.graph.view(tensor);
        match (view.part_of, view.reshaped) {
            (Some((whole, _)), _) => {
                let gradient = self.of(recorder, whole)?;
                Self::part(recorder, tensor, gradient)
            }
            (None, Some(other)) => {
                let gradient = self.of(recorder, other)?;
                recorder.reshape(gradient, view.rows, view.cols)
            }
            (None, None) => Ok(self.gradients[&tensor]),
        }
    }

    /// The part of the whole's gradient that is a part's.
    fn part(recorder: &mut Recorder, part: Tensor, gradient: Tensor) -> Result<Tensor> {
        let view = *recorder.graph.view(part);
        let Some((whole, first)) = view.part_of else { return Ok(gradient) };
        let whole = *recorder.graph.view(whole);
        let first_row = (view.offset - whole.offset) / whole.row.max(1);
        let columns = recorder.columns(gradient, first..first + view.cols)?;
        if view.rows == whole.rows { Ok(columns) } else { recorder.rows(columns, first_row..first_row + view.rows) }
    }

    /// Adds a contribution to a tensor's gradient.
    fn add(&mut self, recorder: &mut Recorder, tensor: Tensor, gradient: Tensor) -> Result<()> {
        let view = *recorder.graph.view(tensor);
        if let Some(other) = view.reshaped {
            let (rows, cols) = recorder.shape(other);
            let gradient = recorder.reshape(gradient, rows, cols)?;
            return self.add(recorder, other, gradient);
        }
        let Some((whole, _)) = view.part_of else {
            let sum = match self.gradients.get(&tensor) {
                Some(&known) => recorder.add(known, gradient)?,
                None => gradient,
            };
            // The sum is new, but a lone contribution may be somebody else's too.
            self.gathered.remove(&tensor);
            self.gradients.insert(tensor, sum);
            return Ok(());
        };
        if recorder.graph.view(whole).reshaped.is_some() {
            let value = recorder.graph.print(whole);
            let remedy = "columns of a reshaped tensor have no gradient: take them before it is reshaped";
            return Err(Error::Descriptor { op: "grad", field: "tensor", value, remedy });
        }
        if !self.gathered.contains(&whole) {
            let (rows, cols) = recorder.shape(whole);
            let zeros = recorder.filled(0.0, 1, cols, recorder.dtype(whole));
            let start = match self.gradients.get(&whole) {
                Some(&known) => recorder.add_row(known, zeros)?,
                None => {
                    let nothing = recorder.filled(0.0, rows, cols, recorder.dtype(whole));
                    recorder.add_row(nothing, zeros)?
                }
            };
            self.gradients.insert(whole, start);
            self.gathered.insert(whole);
        }
        let part = Self::part(recorder, tensor, self.gradients[&whole])?;
        let op = Add { y_row: recorder.row(part), ..recorder.add_op(part, gradient)? };
        recorder.op_into(op, &[part, gradient], &[part])
    }
}
