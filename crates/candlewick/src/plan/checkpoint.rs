//! Activations: what of a forward pass stays in memory for its gradient, and what is computed again.
//!
//! An activation is what an operation before a gradient wrote and an operation of the gradient reads. Under a [`Budget`]
//! some are not kept: behind their last reader of the forward pass their memory serves others, and just before the gradient
//! first needs them, their operations run again, with the same kernels on the same numbers, so with the same bits.
//!
//! The rule: as long as too many bytes are alive at once, drop the activation whose recomputation costs least for each
//! byte, all that it would have to run again counted, the earliest first where they are equal. So norms, gates and sums
//! go before products; and what follows from dropped activations is dear, so that of a chain of blocks the tensors
//! between blocks stay longest (Kirisame et al., "Dynamic tensor rematerialization", 2021, has such a heuristic). In the
//! end everything comes back that fits after all.

use super::Tensor;
use super::graph::{Graph, Kind, Node, View};
use super::recorder::Recorder;
use crate::Result;
use std::collections::HashMap;
use std::fmt;

/// How many bytes of activations may be alive at once, from the end of the forward pass to the end of the gradient: those
/// kept and those computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    bytes: usize,
}

impl Budget {
    /// At most so many bytes; 0 asks for as few as possible.
    pub fn bytes(bytes: usize) -> Self {
        Budget { bytes }
    }
}

/// What became of the activations of one gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// The bytes that may be alive at once.
    pub budget: usize,
    /// The most bytes that are alive at once. More than the budget where no choice met it: then it is the least found.
    pub alive: usize,
    /// The same if all were kept.
    pub alive_if_kept: usize,
    /// Bytes kept from the forward pass.
    pub kept: usize,
    /// Bytes computed again, with what leads to them.
    pub recomputed: usize,
    /// Operations that run again.
    pub operations: usize,
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let Activations { budget, alive, alive_if_kept, kept, recomputed, operations } = *self;
        write!(
            f,
            "activations: {} KiB kept, {} KiB recomputed by {operations} operations; {} KiB alive at once of {} KiB \
             allowed{} ({} KiB if all were kept)",
            kib(kept),
            kib(recomputed),
            kib(alive),
            kib(budget),
            if alive > budget { ", which cannot be met" } else { "" },
            kib(alive_if_kept),
        )
    }
}

impl Recorder {
    /// As [`Recorder::grad`], with a limit to the activations that wait for it in memory. What does not fit is computed
    /// again; the gradients have the same bits. [`Plan::activations`](super::Plan::activations) says what became of it.
    ///
    /// # Errors
    /// Those of [`Recorder::grad`]. A budget that cannot be met is none: it is met as nearly as can be.
    #[track_caller]
    pub fn grad_within(&mut self, loss: Tensor, parameters: &[Tensor], budget: Budget) -> Result<Vec<Tensor>> {
        let turn = self.graph.nodes.len();
        let gradients = self.grad(loss, parameters)?;
        self.keep_within(turn, budget);
        Ok(gradients)
    }

    /// As [`Recorder::grad_from`], with a limit as in [`Recorder::grad_within`].
    ///
    /// # Errors
    /// Those of [`Recorder::grad_from`].
    #[track_caller]
    pub fn grad_from_within(
        &mut self,
        seeds: &[(Tensor, Tensor)],
        parameters: &[Tensor],
        budget: Budget,
    ) -> Result<Vec<Tensor>> {
        let turn = self.graph.nodes.len();
        let gradients = self.grad_from(seeds, parameters)?;
        self.keep_within(turn, budget);
        Ok(gradients)
    }

    /// Rewrites the operations from `turn` on, which are a gradient's.
    fn keep_within(&mut self, turn: usize, budget: Budget) {
        let forward = Forward::of(&self.graph, turn);
        let dropped = forward.choose(budget.bytes);
        let schedule = forward.schedule(&dropped);
        self.graph.activations.push(Activations {
            budget: budget.bytes,
            alive: schedule.alive,
            alive_if_kept: forward.schedule(&vec![false; turn]).alive,
            kept: schedule.kept,
            recomputed: schedule.recomputed,
            operations: schedule.steps.len() - (self.graph.nodes.len() - turn),
        });
        let mut copies = Copies::default();
        let mut rewritten = Vec::with_capacity(schedule.steps.len());
        for at in schedule.steps {
            let Node { op, inputs, outputs, at: line } = self.graph.nodes[at].clone();
            let inputs = inputs.iter().map(|&input| copies.of(self, input)).collect();
            let outputs =
                if at < turn { outputs.iter().map(|&output| copies.add(self, output)).collect() } else { outputs };
            rewritten.push(Node { op, inputs, outputs, at: line });
        }
        self.graph.nodes.truncate(turn);
        self.graph.nodes.extend(rewritten);
    }
}

/// The recomputed tensors beside the first ones.
#[derive(Default)]
struct Copies {
    storages: HashMap<usize, usize>,
    tensors: HashMap<Tensor, Tensor>,
}

impl Copies {
    /// The copy of a tensor that an operation writes again.
    fn add(&mut self, recorder: &mut Recorder, tensor: Tensor) -> Tensor {
        let storage = recorder.graph.view(tensor).storage;
        recorder.graph.storages.push(recorder.graph.storages[storage].clone());
        self.storages.insert(storage, recorder.graph.storages.len() - 1);
        self.of(recorder, tensor)
    }

    /// The copy of a tensor, or of the part that it is, where there is one.
    fn of(&mut self, recorder: &mut Recorder, tensor: Tensor) -> Tensor {
        let view = *recorder.graph.view(tensor);
        let Some(&storage) = self.storages.get(&view.storage) else { return tensor };
        if let Some(&copy) = self.tensors.get(&tensor) {
            return copy;
        }
        let part_of = view.part_of.map(|(whole, first)| (self.of(recorder, whole), first));
        recorder.graph.views.push(View { storage, part_of, ..view });
        let copy = recorder.handle(recorder.graph.views.len() - 1);
        self.tensors.insert(tensor, copy);
        copy
    }
}

/// What a gradient from operation `turn` on may keep and compute again. Operations are meant by their numbers.
struct Forward<'a> {
    graph: &'a Graph,
    turn: usize,
    /// The operation before the turn that makes a storage, where it can run again and give the same.
    maker: Vec<Option<usize>>,
    /// Storages that were written before the turn, and are alive for the gradient alone.
    is_activation: Vec<bool>,
    /// Operations that can run again, and whose results the gradient reads.
    is_candidate: Vec<bool>,
}

/// The operations of a gradient with those that run again between them, and what that takes.
struct Schedule {
    steps: Vec<usize>,
    alive: usize,
    kept: usize,
    recomputed: usize,
}

impl<'a> Forward<'a> {
    fn of(graph: &'a Graph, turn: usize) -> Self {
        let storages = graph.storages.len();
        let mut writers: Vec<Vec<usize>> = vec![Vec::new(); storages];
        for (at, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|&output| writers[graph.view(output).storage].push(at));
        }
        let temporary = |storage: usize| matches!(graph.storages[storage].kind, Kind::Temporary { output: false });
        let mut maker = vec![None; storages];
        let mut is_candidate = vec![false; turn];
        for (at, node) in graph.nodes[..turn].iter().enumerate() {
            let anew = node.outputs.iter().enumerate().all(|(index, &output)| {
                let storage = graph.view(output).storage;
                writers[storage] == [at]
                    && temporary(storage)
                    && !node.op.keeps_output(index)
                    && is_whole(graph, output)
            });
            // What it reads is written no more.
            let mut inputs = node.inputs.iter().map(|&input| &writers[graph.view(input).storage]);
            if anew && inputs.all(|writers| writers.iter().all(|&writer| writer < at)) {
                node.outputs.iter().for_each(|&output| maker[graph.view(output).storage] = Some(at));
            }
        }
        for &input in graph.nodes[turn..].iter().flat_map(|node| &node.inputs) {
            if let Some(at) = maker[graph.view(input).storage] {
                is_candidate[at] = true;
            }
        }
        let written = |storage: usize| writers[storage].first().is_some_and(|&writer| writer < turn);
        let is_activation = (0..storages).map(|storage| temporary(storage) && written(storage)).collect();
        Forward { graph, turn, maker, is_activation, is_candidate }
    }

    /// Which of the operations before the turn run again.
    fn choose(&self, budget: usize) -> Vec<bool> {
        let mut dropped = vec![false; self.turn];
        let mut least = (self.schedule(&dropped).alive, dropped.clone());
        let candidates = (0..self.turn).filter(|&at| self.is_candidate[at] && self.result_bytes(at) > 0);
        let mut left: Vec<(usize, f64)> = candidates.map(|at| (at, self.price(at, &dropped))).collect();
        let mut order = Vec::new();
        while least.0 > budget {
            let cheapest = (0..left.len()).min_by(|&a, &b| left[a].1.total_cmp(&left[b].1));
            let Some(cheapest) = cheapest else { break };
            // Prices only rise: who is the cheapest by an old one may not be it by now.
            let (at, old) = left[cheapest];
            left[cheapest].1 = self.price(at, &dropped);
            if left[cheapest].1 > old {
                continue;
            }
            left.remove(cheapest);
            dropped[at] = true;
            order.push(at);
            let alive = self.schedule(&dropped).alive;
            if alive < least.0 {
                least = (alive, dropped.clone());
            }
        }
        let (alive, mut dropped) = least;
        for at in order.into_iter().rev() {
            if std::mem::replace(&mut dropped[at], false) && self.schedule(&dropped).alive > alive.max(budget) {
                dropped[at] = true;
            }
        }
        dropped
    }

    /// What running an operation again costs for each byte of its results: floating-point operations and bytes moved, of
    /// those before it too that have to run for it.
    fn price(&self, at: usize, dropped: &[bool]) -> f64 {
        let cost = |&at: &usize| self.graph.nodes[at].op.flops() + self.graph.nodes[at].op.bytes();
        let operations = self.with_makers(at, |other| self.is_kept(other, dropped));
        operations.iter().map(cost).sum::<f64>() / self.result_bytes(at) as f64
    }

    /// An operation and those before it that it needs, as far back as there are results, in order.
    fn with_makers(&self, at: usize, has_result: impl Fn(usize) -> bool) -> Vec<usize> {
        let (mut needed, mut open) = (vec![at], vec![at]);
        let mut seen = vec![false; at + 1];
        while let Some(at) = open.pop() {
            for &input in &self.graph.nodes[at].inputs {
                let Some(maker) = self.maker[self.graph.view(input).storage] else { continue };
                if !has_result(maker) && !std::mem::replace(&mut seen[maker], true) {
                    needed.push(maker);
                    open.push(maker);
                }
            }
        }
        needed.sort_unstable();
        needed
    }

    /// Whether what an operation writes stays in memory. What leads to activations and is none itself does not.
    fn is_kept(&self, at: usize, dropped: &[bool]) -> bool {
        self.is_candidate[at] && !dropped[at]
    }

    fn schedule(&self, dropped: &[bool]) -> Schedule {
        let mut schedule = Schedule { steps: Vec::new(), alive: 0, kept: 0, recomputed: 0 };
        let mut runs = vec![false; self.turn];
        // The steps at which a storage, or its copy, is first there and last read.
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.graph.storages.len()];
        for at in self.turn..self.graph.nodes.len() {
            for &input in &self.graph.nodes[at].inputs {
                let Some(maker) = self.maker[self.graph.view(input).storage] else { continue };
                if self.is_kept(maker, dropped) || runs[maker] {
                    continue;
                }
                for again in self.with_makers(maker, |other| self.is_kept(other, dropped) || runs[other]) {
                    runs[again] = true;
                    for &output in &self.graph.nodes[again].outputs {
                        let (storage, step) = (self.graph.view(output).storage, schedule.steps.len());
                        lives[storage] = Some((step, step));
                        schedule.recomputed += self.bytes(storage);
                    }
                    self.read(again, schedule.steps.len(), &mut lives);
                    schedule.steps.push(again);
                }
            }
            self.read(at, schedule.steps.len(), &mut lives);
            schedule.steps.push(at);
        }
        let mut born = vec![0; schedule.steps.len() + 1];
        let mut dead = born.clone();
        for (storage, &(first, last)) in
            lives.iter().enumerate().filter_map(|(storage, life)| Some((storage, life.as_ref()?)))
        {
            born[first] += self.bytes(storage);
            dead[last + 1] += self.bytes(storage);
            schedule.kept += if self.maker[storage].is_some_and(|at| runs[at]) { 0 } else { self.bytes(storage) };
        }
        let mut alive = 0;
        for (born, dead) in born.into_iter().zip(dead) {
            alive = alive + born - dead;
            schedule.alive = schedule.alive.max(alive);
        }
        schedule
    }

    /// Notes that an operation reads its inputs at a step.
    fn read(&self, at: usize, step: usize, lives: &mut [Option<(usize, usize)>]) {
        for &input in &self.graph.nodes[at].inputs {
            let storage = self.graph.view(input).storage;
            if self.is_activation[storage] {
                lives[storage] = Some((lives[storage].map_or(0, |(first, _)| first), step));
            }
        }
    }

    /// Bytes of what an operation writes.
    fn result_bytes(&self, at: usize) -> usize {
        self.graph.nodes[at].outputs.iter().map(|&output| self.bytes(self.graph.view(output).storage)).sum()
    }

    fn bytes(&self, storage: usize) -> usize {
        self.graph.storages[storage].elements * self.graph.storages[storage].dtype.bytes()
    }
}

/// Whether a tensor is all of its storage.
fn is_whole(graph: &Graph, tensor: Tensor) -> bool {
    let (view, storage) = (graph.view(tensor), graph.storage(tensor));
    let span = if view.rows == 0 || view.cols == 0 { 0 } else { (view.rows - 1) * view.row + view.cols };
    view.offset == 0 && span == storage.elements
}
