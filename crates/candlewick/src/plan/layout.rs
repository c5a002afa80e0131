//! Where the temporaries of a plan lie: storages whose lives do not meet share bytes of one arena.
//!
//! Largest first, each at the lowest place that is free for its whole life (Pisarchyk and Lee, "Efficient memory management
//! for deep neural net inference", 2020, greedy by size). Before that, an output takes the place of an input that dies
//! with its operation, where the operation allows it.

use super::Tensor;
use super::graph::{Graph, Kind};
use crate::Op;
use std::ops::Range;

/// Every place starts at a multiple of this: a cache line, and what every GPU's vectors and bindings ask for.
const ALIGNMENT: usize = 256;

/// Where storages lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Bytes from the arena's start, by storage; nothing for what does not live there.
    pub(crate) offsets: Vec<Option<usize>>,
    /// The operations of a storage's life, first to last; empty where it is never used.
    pub(crate) lives: Vec<Range<usize>>,
    /// Bytes of the arena.
    pub(crate) bytes: usize,
    /// Bytes that the temporaries would take side by side.
    pub(crate) apart: usize,
}

impl Layout {
    pub(crate) fn of(graph: &Graph) -> Self {
        let lives = lives(graph);
        let leader = in_place(graph, &lives);
        let mut layout = Layout { offsets: vec![None; graph.storages.len()], lives, ..Layout::default() };
        // A chain of storages in one place lives as long as all of them.
        let mut chains: Vec<(usize, usize, Range<usize>)> = Vec::new();
        for (storage, &first) in leader.iter().enumerate() {
            if !in_arena(&graph.storages[storage].kind) || layout.unused(storage) {
                continue;
            }
            let bytes = bytes(graph, storage);
            layout.apart += bytes;
            let life = layout.lives[storage].clone();
            match chains.iter_mut().find(|(chain, ..)| *chain == first) {
                Some((_, size, all)) => {
                    *size = bytes.max(*size);
                    *all = all.start.min(life.start)..all.end.max(life.end);
                }
                None => chains.push((first, bytes, life)),
            }
        }
        chains.sort_by_key(|&(_, size, _)| std::cmp::Reverse(size));
        let mut placed: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let mut offset_of = vec![0; graph.storages.len()];
        for (chain, size, life) in chains {
            let mut taken: Vec<&Range<usize>> = placed
                .iter()
                .filter(|(other, _)| other.start < life.end && life.start < other.end)
                .map(|(_, bytes)| bytes)
                .collect();
            taken.sort_by_key(|bytes| bytes.start);
            let mut offset = 0;
            for bytes in taken {
                if offset + size <= bytes.start {
                    break;
                }
                offset = offset.max(bytes.end);
            }
            placed.push((life, offset..offset + size));
            offset_of[chain] = offset;
            layout.bytes = layout.bytes.max(offset + size);
        }
        for (storage, &first) in leader.iter().enumerate() {
            if in_arena(&graph.storages[storage].kind) && !layout.unused(storage) {
                layout.offsets[storage] = Some(offset_of[first]);
            }
        }
        layout
    }
}

impl Layout {
    /// Whether no operation touches a storage.
    fn unused(&self, storage: usize) -> bool {
        self.lives[storage].start == self.lives[storage].end
    }
}

fn in_arena(kind: &Kind) -> bool {
    matches!(kind, Kind::Temporary { .. } | Kind::Input | Kind::Filled(_))
}

fn bytes(graph: &Graph, storage: usize) -> usize {
    let storage = &graph.storages[storage];
    (storage.elements * storage.dtype.bytes()).next_multiple_of(ALIGNMENT)
}

/// From the operation that first touches a storage to behind the last.
fn lives(graph: &Graph) -> Vec<Range<usize>> {
    let mut lives: Vec<Range<usize>> = vec![0..0; graph.storages.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        for &tensor in node.inputs.iter().chain(&node.outputs) {
            let life = &mut lives[graph.view(tensor).storage];
            *life = if life.start == life.end { at..at + 1 } else { life.start..at + 1 };
        }
    }
    // SiLU may run with the product ahead of it, which reads its inputs until the end.
    for (at, pair) in graph.nodes.windows(2).enumerate() {
        let storage = |tensor: &Tensor| graph.view(*tensor).storage;
        let made = |tensor: &Tensor| pair[0].outputs.iter().any(|output| storage(output) == storage(tensor));
        if matches!(pair[1].op, Op::SiluMul(_) | Op::SiluMulBackward(_)) && pair[1].inputs.iter().any(made) {
            for read in &pair[0].inputs {
                let life = &mut lives[storage(read)];
                life.end = life.end.max(at + 2);
            }
        }
    }
    for (life, storage) in lives.iter_mut().zip(&graph.storages) {
        match storage.kind {
            // Its numbers are there before a run, and for the next one.
            Kind::Input | Kind::Filled(_) => *life = 0..graph.nodes.len().max(1),
            Kind::Temporary { output: true } => life.end = graph.nodes.len().max(1),
            _ => {}
        }
    }
    lives
}

/// For each storage the first of the chain that shares its place; itself where it shares none.
fn in_place(graph: &Graph, lives: &[Range<usize>]) -> Vec<usize> {
    let mut leader: Vec<usize> = (0..graph.storages.len()).collect();
    for (at, node) in graph.nodes.iter().enumerate() {
        for &(input, output) in node.op.in_place() {
            let (Some(&from), Some(&to)) = (node.inputs.get(input), node.outputs.get(output)) else { continue };
            let (source, target) = (graph.view(from), graph.view(to));
            let temporary = |storage: usize| matches!(graph.storages[storage].kind, Kind::Temporary { .. });
            // What is read after a run stays, even behind the last operation.
            let dies = |storage: usize| matches!(graph.storages[storage].kind, Kind::Temporary { output: false });
            let whole =
                source.offset == 0 && target.offset == 0 && source.row == target.row && source.cols == target.cols;
            let alone = node.inputs.iter().filter(|&&other| graph.view(other).storage == source.storage).count() == 1;
            // Another output beside this one would lie on what is read.
            let sole = node.outputs.iter().filter(|&&other| graph.view(other).storage == target.storage).count() == 1;
            let fits = dies(source.storage)
                && temporary(target.storage)
                && whole
                && alone
                && sole
                && source.storage != target.storage
                && graph.storages[source.storage].dtype == graph.storages[target.storage].dtype
                && graph.storages[source.storage].elements == graph.storages[target.storage].elements
                && lives[source.storage].end == at + 1
                && lives[target.storage].start == at
                && leader[target.storage] == target.storage;
            if fits {
                leader[target.storage] = leader[source.storage];
                break;
            }
        }
    }
    leader
}
