//! Products that are summed, with neighbouring rows of one frozen weight: A1 B1 + A2 B2 as [A1 A2] [B1 ; B2].
//!
//! The gradient of what joined layers read is such a sum: dx = dgate Wgate + dup Wup, and the joined weight of the forward
//! is their B, one under the other. So whoever writes the As writes columns of one tensor, without the gaps that a gradient
//! of a joined product's columns has alone. On a CPU, joined weights are packed for the forward and are not read here:
//! there it is rows of a constant that meet.

use super::strides::row_stride;
use super::uses::Side;
use crate::op::{Batch, Format};
use crate::plan::Tensor;
use crate::plan::graph::{Graph, Kind, View};
use crate::{MatMul, Op, Scalar};

/// A product that can be a term of a sum.
struct Term {
    at: usize,
    op: MatMul,
    /// Written by one operation for this product alone.
    a: View,
    /// Its writer, and which of the outputs it is.
    writer: (usize, usize),
    b: Tensor,
}

/// Makes the product at `at` and those that are added to it next one. How many products that saved.
pub(super) fn fold(graph: &mut Graph, at: usize) -> usize {
    let terms = terms(graph, at);
    for count in (2..=terms.len()).rev() {
        let mut summed = graph.clone();
        if sum(&mut summed, &terms[..count]).is_some() {
            *graph = summed;
            return count - 1;
        }
    }
    0
}

/// The product at `at`, and those that are added to its result before anybody else uses it.
fn terms(graph: &Graph, at: usize) -> Vec<Term> {
    let Some(first) = term(graph, at) else { return Vec::new() };
    let c = |at: usize| View { part_of: None, reshaped: None, ..*graph.view(graph.nodes[at].outputs[0]) };
    let of_b = |term: &Term| (graph.view(term.b).storage, graph.view(term.b).row);
    let key = |op: MatMul| MatMul { k: 0, lda: 0, ldb: 0, beta: Scalar(0.0), ..op };
    let mut terms = vec![first];
    for (later, side) in graph.uses(c(at).storage).filter(|&(by, _)| by > at) {
        let next = if side == Side::Out(0) { term(graph, later) } else { None };
        let adds = |next: &Term| {
            next.op.beta.get() == 1.0
                && key(next.op) == key(terms[0].op)
                && (c(later), of_b(next)) == (c(at), of_b(&terms[0]))
        };
        match next.filter(adds) {
            Some(next) => terms.push(next),
            None => break,
        }
    }
    terms
}

/// The product at `at`, if it can be a term.
fn term(graph: &Graph, at: usize) -> Option<Term> {
    let node = &graph.nodes[at];
    let Op::MatMul(op) = node.op else { return None };
    let plain = op.batch == Batch::ONE && !op.trans_a && !op.trans_b && op.b_format == Format::Plain;
    let (a, b) = (*graph.view(node.inputs[0]), *graph.view(node.inputs[1]));
    let frozen = matches!(graph.storages[b.storage].kind, Kind::Constant(_));
    let temporary = matches!(graph.storages[a.storage].kind, Kind::Temporary { output: false });
    let shapes = (a.rows, a.cols, b.rows, b.cols) == (op.m, op.k, op.k, op.n) && op.m * op.k > 0;
    if !(plain && frozen && temporary && shapes) {
        return None;
    }
    let uses: Vec<_> = graph.uses(a.storage).take(3).collect();
    let &[(writer, Side::Out(o)), (_, Side::In(0))] = &uses[..] else { return None };
    let written = *graph.view(graph.nodes[writer].outputs[o]);
    let same = View { part_of: a.part_of, reshaped: a.reshaped, ..written } == a;
    let whole = same && !graph.nodes[writer].op.keeps_output(o);
    whole.then_some(Term { at, op, a, writer: (writer, o), b: node.inputs[1] })
}

/// One product in the place of the last of `terms`, if their Bs follow each other and their As can.
fn sum(graph: &mut Graph, terms: &[Term]) -> Option<()> {
    let (first, last) = (terms.first()?, terms.last()?);
    let mut parts: Vec<&Term> = terms.iter().collect();
    parts.sort_by_key(|part| graph.view(part.b).offset);
    let end = |part: &Term| graph.view(part.b).offset + part.op.k * graph.view(part.b).row;
    if parts.windows(2).any(|pair| end(pair[0]) != graph.view(pair[1].b).offset) {
        return None;
    }
    let (rows, k): (usize, usize) = (first.op.m, parts.iter().map(|part| part.op.k).sum());
    let row = parts.iter().find_map(|part| given_row(graph, part)).unwrap_or(k);
    if row < k {
        return None;
    }
    let names: Vec<&str> = parts.iter().map(|part| graph.storages[part.a.storage].name.as_str()).collect();
    let (name, kind) = (names.join("+"), Kind::Temporary { output: false });
    let a = graph.add(first.b, &name, kind, first.op.dtype, rows, k);
    let storage = graph.view(a).storage;
    graph.storages[storage].elements = (rows - 1) * row + k;
    graph.views[a.index()].row = row;
    let mut column = 0;
    for part in &parts {
        space(graph, part, row)?;
        let view = View { storage, offset: column, row, part_of: Some((a, column)), reshaped: None, ..part.a };
        let (writer, o) = part.writer;
        graph.nodes[writer].outputs[o] = graph.add_view(a, view);
        column += part.op.k;
    }
    let b = View { rows: k, part_of: None, reshaped: None, ..*graph.view(parts[0].b) };
    let op = MatMul { k, lda: row, ldb: b.row, beta: first.op.beta, ..first.op };
    let inputs = vec![a, graph.add_view(parts[0].b, b)];
    let node = &mut graph.nodes[last.at];
    (node.op, node.inputs) = (op.into(), inputs);
    terms[..terms.len() - 1].iter().rev().for_each(|term| drop(graph.nodes.remove(term.at)));
    Some(())
}

/// The row stride of a part that has to stay: its writer reads another tensor with the same one.
fn given_row(graph: &Graph, part: &Term) -> Option<usize> {
    let (writer, o) = part.writer;
    let (field, other) =
        row_stride(&mut graph.nodes[writer].op.clone(), Side::Out(o)).map(|(row, other)| (*row, other))?;
    (part.op.m > 1 && other.is_some()).then_some(field)
}

/// Lets the writer of a part write rows that lie `row` elements apart.
fn space(graph: &mut Graph, part: &Term, row: usize) -> Option<()> {
    let (writer, o) = part.writer;
    let op = &mut graph.nodes[writer].op;
    let operands = op.operands().ok()?;
    // Rows of the operation are rows of the tensor, and not its heads.
    if *operands.outputs[o].shape.sizes() != [part.a.rows, part.a.cols] {
        return None;
    }
    if part.a.rows > 1 {
        let (field, other) = row_stride(op, Side::Out(o))?;
        if *field != part.a.row || (other.is_some() && row != *field) {
            return None;
        }
        *field = row;
    }
    Some(())
}
