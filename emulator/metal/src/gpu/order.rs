//! Turns command buffers into nodes with edges: what Metal promises to run before what.
//!
//! An edge is either a promise about memory, and then everything before it is visible after it, or a mere order of
//! execution. What no edge orders may run in any order, and two accesses that no promise orders are a hazard.

use std::collections::HashMap;
use std::sync::Arc;

use super::event::Event;
use super::pass::{Item, Pass, Step};
use super::work::{Usage, Work};

/// A promise that one node's effects are visible to another.
pub struct Edge {
    /// The earlier node.
    pub from: usize,
    /// For which memories (roots); all where `None`.
    pub only: Option<Arc<[u64]>>,
}

impl Edge {
    fn after(from: usize) -> Self {
        Edge { from, only: None }
    }

    /// Runs later, but is promised nothing.
    fn mere_order(from: usize) -> Self {
        Edge { from, only: Some(Arc::from([])) }
    }
}

/// What a node does when its turn comes.
pub enum Kind {
    /// A command, in the pass of this number.
    Work(Box<Work>, u64),
    /// Nothing: the beginning or end of a pass, a barrier, a fence.
    Join,
    /// Signals an event.
    Signal(Arc<Event>, u64),
    /// Waits for an event.
    Wait(Arc<Event>, u64),
    /// The end of its command buffer.
    End,
}

/// One thing to do, and what lies before it.
pub struct Node {
    /// Grows in the order of commit and encoding.
    pub number: usize,
    /// The command buffer it belongs to, by the scheduler's number.
    pub submission: u64,
    /// What it does.
    pub kind: Kind,
    /// What lies before it.
    pub edges: Vec<Edge>,
}

/// How a queue's passes used a tracked memory last.
#[derive(Default)]
struct Tracked {
    writer: Option<usize>,
    readers: Vec<usize>,
}

#[derive(Default)]
struct Queue {
    tracked: HashMap<u64, Tracked>,
    last_end: Option<usize>,
}

/// Builds nodes, remembering what later command buffers need.
#[derive(Default)]
pub struct Order {
    next: usize,
    passes: u64,
    queues: HashMap<u64, Queue>,
    fences: HashMap<u64, usize>,
}

/// The nodes of one command buffer while they are made.
struct Builder<'a> {
    order: &'a mut Order,
    submission: u64,
    nodes: Vec<Node>,
}

impl Builder<'_> {
    fn add(&mut self, kind: Kind, edges: Vec<Edge>) -> usize {
        let number = self.order.next;
        self.order.next += 1;
        self.nodes.push(Node { number, submission: self.submission, kind, edges });
        number
    }

    fn join(&mut self, edges: Vec<Edge>) -> usize {
        self.add(Kind::Join, edges)
    }
}

impl Order {
    /// The number that the next node will have.
    pub fn next_number(&self) -> usize {
        self.next
    }

    /// A number for what is no node: an access by the host.
    pub fn take_number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    /// The nodes of a command buffer, the last one its end.
    pub fn expand(&mut self, queue: u64, submission: u64, steps: Vec<Step>) -> Vec<Node> {
        let last_end = self.queues.entry(queue).or_default().last_end;
        let mut builder = Builder { order: self, submission, nodes: Vec::new() };
        // The latest wait for an event: every later pass comes after it.
        let mut gate: Option<usize> = None;
        let mut ends = Vec::new();
        for step in steps {
            let gated = gate.map(Edge::after);
            match step {
                Step::Pass(pass) => ends.push(builder.pass(queue, pass, gated)),
                Step::Signal(event, value) => {
                    let before = ends.iter().copied().map(Edge::after).chain(gated).collect();
                    ends.push(builder.add(Kind::Signal(event, value), before));
                }
                Step::Wait(event, value) => {
                    gate = Some(builder.add(Kind::Wait(event, value), gated.into_iter().collect()))
                }
            }
        }
        // It ends after everything in it, fences included. That command buffers of a queue complete in order promises
        // nothing about memory.
        let all = builder.nodes.iter().map(|node| Edge::after(node.number));
        let before = all.chain(last_end.map(Edge::mere_order)).collect();
        let end = builder.add(Kind::End, before);
        let nodes = builder.nodes;
        self.queues.entry(queue).or_default().last_end = Some(end);
        nodes
    }
}

impl Builder<'_> {
    /// The nodes of a pass; returns the one at its end.
    fn pass(&mut self, queue: u64, pass: Pass, gate: Option<Edge>) -> usize {
        self.order.passes += 1;
        let pass_number = self.order.passes;
        let uses = tracked_uses(&pass);
        let start = self.start(queue, &uses, gate);
        // What every later command of the pass comes after: its start, the last barrier, fences waited for.
        let mut base = vec![start];
        // Commands since the last barrier over everything, and what each can reach.
        let mut open: Vec<(usize, Vec<u64>)> = Vec::new();
        let mut partial: Vec<(Arc<[u64]>, usize)> = Vec::new();
        for item in pass.items {
            match item {
                Item::Work(work) => {
                    let roots: Vec<u64> = work.bound.iter().map(|bound| bound.root.0).collect();
                    let mut edges: Vec<Edge> = base.iter().copied().map(Edge::after).collect();
                    for (barrier, until) in &partial {
                        let meets = |roots: &[u64]| roots.iter().any(|root| barrier.contains(root));
                        if meets(&roots) {
                            let earlier = open[..*until].iter().filter(|(_, roots)| meets(roots));
                            edges.extend(earlier.map(|(from, _)| Edge { from: *from, only: Some(barrier.clone()) }));
                        }
                    }
                    let number = self.add(Kind::Work(Box::new(work), pass_number), edges);
                    if pass.concurrent {
                        open.push((number, roots));
                    } else {
                        base = vec![number];
                    }
                }
                Item::Barrier(Some(roots)) => partial.push((roots, open.len())),
                Item::Barrier(None) => {
                    base = vec![self.join(edges_after(&base, &open))];
                    open.clear();
                    partial.clear();
                }
                Item::UpdateFence(fence) => {
                    let join = self.join(edges_after(&base, &open));
                    self.order.fences.insert(fence, join);
                }
                Item::WaitForFence(fence) => base.extend(self.order.fences.get(&fence)),
            }
        }
        let end = self.join(edges_after(&base, &open));
        let tracked = &mut self.order.queues.entry(queue).or_default().tracked;
        for (root, usage) in uses {
            let entry = tracked.entry(root).or_default();
            match usage {
                Usage::Write => *entry = Tracked { writer: Some(end), readers: Vec::new() },
                Usage::Read => entry.readers.push(end),
            }
        }
        end
    }

    /// The beginning of a pass: after every pass of the queue with which it shares a tracked memory that one writes.
    fn start(&mut self, queue: u64, uses: &HashMap<u64, Usage>, gate: Option<Edge>) -> usize {
        let mut edges: Vec<Edge> = gate.into_iter().collect();
        let tracked = &self.order.queues.entry(queue).or_default().tracked;
        for (root, usage) in uses {
            let Some(last) = tracked.get(root) else { continue };
            edges.extend(last.writer.map(Edge::after));
            if *usage == Usage::Write {
                edges.extend(last.readers.iter().copied().map(Edge::after));
            }
        }
        self.join(edges)
    }
}

fn edges_after(base: &[usize], open: &[(usize, Vec<u64>)]) -> Vec<Edge> {
    base.iter().copied().chain(open.iter().map(|(number, _)| *number)).map(Edge::after).collect()
}

/// How a pass may use the memories whose hazards Metal tracks.
fn tracked_uses(pass: &Pass) -> HashMap<u64, Usage> {
    let mut uses = HashMap::new();
    for item in &pass.items {
        let Item::Work(work) = item else { continue };
        for bound in work.bound.iter().filter(|bound| bound.tracked) {
            let usage = uses.entry(bound.root.0).or_insert(bound.usage);
            if bound.usage == Usage::Write {
                *usage = Usage::Write;
            }
        }
    }
    uses
}
