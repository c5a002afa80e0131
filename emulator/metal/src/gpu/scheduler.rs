//! The emulated GPU: a thread that takes committed command buffers and runs their commands in an order Metal allows.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::event::Event;
use super::hazard::{Actor, Before, HOST, Hazards};
use super::observed;
use super::order::{Kind, Node, Order};
use super::pass::Submission;
use super::past::Past;
use super::random::draw;
use super::work::{Bound, Done, Span, Usage, Work};
use crate::report::{Report, Rule};
use crate::settings::{self, Drop};

enum Message {
    Submit(Box<Submission>),
    /// An event has changed or a host waits: look again.
    Look,
    /// The host uses memory by itself; it gets what lies before whatever it commits from now on.
    Host(HostAccess, Sender<Past>),
}

/// Bytes of memory that the host reads and writes by itself.
pub struct HostAccess {
    /// Names it in reports.
    pub name: String,
    /// What it uses.
    pub spans: Vec<Span>,
}

struct Gpu {
    messages: Sender<Message>,
    /// Command buffers committed and not completed.
    active: Mutex<usize>,
    idle: Condvar,
}

static BARRIERS: AtomicU64 = AtomicU64::new(0);
static FENCES: AtomicU64 = AtomicU64::new(0);
/// How often counting was restarted: the choices of a seed are counted from there.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How long a host waits for a GPU that makes no progress before it says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// With a seed, how long the GPU waits for more work at most, so that there is something to shuffle.
const LONGEST_HOLD: u64 = 300;

fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let (messages, receiver) = channel();
        let thread = std::thread::Builder::new().name("emulated GPU".into());
        thread.spawn(move || Scheduler::default().serve(&receiver)).expect("a thread for the emulated GPU");
        Gpu { messages, active: Mutex::new(0), idle: Condvar::new() }
    })
}

/// Takes a command buffer; returns at once.
pub fn submit(submission: Submission) {
    let gpu = gpu();
    *gpu.active.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    gpu.messages.send(Message::Submit(Box::new(submission))).expect("the emulated GPU runs as long as the process");
}

/// Tells the GPU that an event changed, or that a host is waiting.
pub fn look() {
    gpu().messages.send(Message::Look).expect("the emulated GPU runs as long as the process");
}

/// Compares what the host does now with commands that it has not waited for; those that are committed later come after.
pub fn host_accesses(access: HostAccess) {
    let (answer, past) = channel();
    gpu().messages.send(Message::Host(access, answer)).expect("the emulated GPU runs as long as the process");
    observed::observe(&past.recv().expect("the emulated GPU answers"));
}

/// Waits until nothing is left to run; reports command buffers that wait for what never comes.
pub fn drain() {
    let gpu = gpu();
    look();
    let active = gpu.active.lock().unwrap_or_else(PoisonError::into_inner);
    let (active, timeout) =
        gpu.idle.wait_timeout_while(active, PATIENCE, |active| *active > 0).unwrap_or_else(PoisonError::into_inner);
    if timeout.timed_out() {
        let text = format!("{} command buffers wait for an event that nobody signals", *active);
        crate::report::file(Report::new(Rule::NeverSignalled, text));
    }
}

/// Starts counting barriers and fences for [`Drop`] anew, and the choices of the seed.
pub fn restart_counting() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    BARRIERS.store(0, Ordering::Relaxed);
    FENCES.store(0, Ordering::Relaxed);
}

/// Whether the settings say to overlook the barrier that is being encoded.
pub fn drops_barrier() -> bool {
    let number = BARRIERS.fetch_add(1, Ordering::Relaxed);
    matches!(settings::current().drop, Drop::Barriers) || settings::current().drop == Drop::Barrier(number)
}

/// Whether the settings say to overlook the wait for a fence that is being encoded.
pub fn drops_fence() -> bool {
    let number = FENCES.fetch_add(1, Ordering::Relaxed);
    matches!(settings::current().drop, Drop::Fences) || settings::current().drop == Drop::Fence(number)
}

thread_local! {
    static LAUNCH_SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The seed for the order of lanes in the command that runs now (on the GPU's thread).
pub fn launch_seed() -> u64 {
    LAUNCH_SEED.get()
}

/// A command buffer that has not completed.
struct Running {
    submission: Submission,
    reports: Vec<Report>,
}

/// A node whose turn has not come, and how many nodes it still waits for.
struct Waiting {
    node: Node,
    missing: usize,
}

#[derive(Default)]
struct Scheduler {
    order: Order,
    hazards: Hazards,
    next_submission: u64,
    running: HashMap<u64, Running>,
    waiting: HashMap<usize, Waiting>,
    followers: HashMap<usize, Vec<usize>>,
    /// Nodes that may run, in the order of commit.
    ready: VecDeque<usize>,
    /// What lies before each node that has run, over the window of [`Past`].
    before: HashMap<usize, Before>,
    generation: u64,
    /// The first node of this generation.
    first: usize,
}

impl Scheduler {
    fn serve(&mut self, messages: &Receiver<Message>) {
        loop {
            self.take(messages);
            match self.choose() {
                Some(number) => self.run(number),
                // Everything left waits for an event, or there is nothing.
                None => match messages.recv() {
                    Ok(message) => self.accept(message),
                    Err(_) => return,
                },
            }
        }
    }

    /// Takes what has been committed; with a seed, after waiting a little for more.
    fn take(&mut self, messages: &Receiver<Message>) {
        let seed = settings::current().seed;
        while let Ok(message) = messages.try_recv() {
            self.accept(message);
        }
        let Some(next) = self.ready.front() else { return };
        let hold = draw(seed, self.ordinal(*next));
        if seed == 0 || !hold.is_multiple_of(4) {
            return;
        }
        let hold = Duration::from_micros(hold / 4 % LONGEST_HOLD);
        loop {
            match messages.recv_timeout(hold) {
                Ok(message @ (Message::Submit(_) | Message::Host(..))) => self.accept(message),
                Ok(Message::Look) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn accept(&mut self, message: Message) {
        let mut submission = match message {
            Message::Submit(submission) => submission,
            Message::Host(access, answer) => return self.host(access, &answer),
            Message::Look => return,
        };
        let generation = GENERATION.load(Ordering::Relaxed);
        if self.generation != generation {
            self.generation = generation;
            self.first = self.order.next_number();
        }
        self.next_submission += 1;
        let number = self.next_submission;
        let steps = std::mem::take(&mut submission.steps);
        let nodes = self.order.expand(submission.queue, number, steps);
        self.running.insert(number, Running { submission: *submission, reports: Vec::new() });
        for node in nodes {
            let missing: Vec<usize> =
                node.edges.iter().map(|edge| edge.from).filter(|from| self.waiting.contains_key(from)).collect();
            for from in &missing {
                self.followers.entry(*from).or_default().push(node.number);
            }
            if missing.is_empty() {
                self.ready.push_back(node.number);
            }
            self.waiting.insert(node.number, Waiting { node, missing: missing.len() });
        }
    }

    fn host(&mut self, HostAccess { name, spans }: HostAccess, answer: &Sender<Past>) {
        let number = self.order.take_number();
        let mut before = Before { all: observed::known(), ..Before::default() };
        let bound: Vec<_> = spans.iter().map(|span| Bound::new(&span.memory, span.usage, true)).collect();
        let names: Vec<_> = spans.iter().map(|span| span.memory.name()).collect();
        let touched: Vec<_> = spans.into_iter().enumerate().map(|(bound, span)| span.touched(bound)).collect();
        let actor = Actor { number, pass: HOST, name };
        for report in self.hazards.note(&actor, &before, &bound, &touched, &names) {
            crate::report::file(report);
        }
        before.all.insert(number);
        // Whoever asked may have given up.
        let _ = answer.send(before.all);
    }

    /// The node to run next: the first, or with a seed any that may.
    fn choose(&mut self) -> Option<usize> {
        let may = |scheduler: &Self, number: &usize| match &scheduler.waiting[number].node.kind {
            Kind::Wait(event, value) => event.value() >= *value,
            _ => true,
        };
        let seed = settings::current().seed;
        let rank = |number: usize| if seed == 0 { number as u64 } else { draw(seed, self.ordinal(number)) };
        let free = (0..self.ready.len()).filter(|index| may(self, &self.ready[*index]));
        let index = free.min_by_key(|index| rank(self.ready[*index]))?;
        self.ready.remove(index)
    }

    /// A node's number as the seed counts: the same in every run of the same program.
    fn ordinal(&self, number: usize) -> u64 {
        number.saturating_sub(self.first) as u64
    }

    fn run(&mut self, number: usize) {
        let Waiting { node, .. } = self.waiting.remove(&number).expect("a ready node waits");
        let mut before = self.before_of(&node);
        let mut end = false;
        match node.kind {
            Kind::Work(work, pass) => self.work(number, node.submission, *work, pass, &before),
            Kind::Signal(event, value) => {
                let mut past = before.all.clone();
                past.insert(number);
                signal(&event, value, past);
            }
            Kind::Wait(event, value) => before.all.extend(&event.past(value)),
            Kind::Join => {}
            Kind::End => end = true,
        }
        if end {
            let Running { submission, reports } = self.running.remove(&node.submission).expect("it ends once");
            complete(submission, before.all.clone(), reports);
        }
        self.before.insert(number, before);
        if number.is_multiple_of(1024) {
            let oldest = number.saturating_sub(1 << 13);
            self.before.retain(|number, _| *number >= oldest);
        }
        for follower in self.followers.remove(&number).unwrap_or_default() {
            let waiting = self.waiting.get_mut(&follower).expect("a follower waits");
            waiting.missing -= 1;
            if waiting.missing == 0 {
                self.ready.push_back(follower);
            }
        }
    }

    /// Everything whose effects a node may count on.
    fn before_of(&self, node: &Node) -> Before {
        let mut before = Before { all: self.running[&node.submission].submission.known.clone(), ..Before::default() };
        for edge in &node.edges {
            let Some(earlier) = self.before.get(&edge.from) else { continue };
            match &edge.only {
                None => {
                    before.all.extend(&earlier.all);
                    before.all.insert(edge.from);
                    for (root, past) in &earlier.by_root {
                        before.by_root.entry(*root).or_default().extend(past);
                    }
                }
                Some(roots) => {
                    for root in &**roots {
                        let past = before.by_root.entry(*root).or_default();
                        past.extend(&earlier.all);
                        past.insert(edge.from);
                        if let Some(more) = earlier.by_root.get(root) {
                            past.extend(more);
                        }
                    }
                }
            }
        }
        before
    }

    fn work(&mut self, number: usize, submission: u64, work: Work, pass: u64, before: &Before) {
        let seed = settings::current().seed;
        LAUNCH_SEED.set(if seed == 0 { 0 } else { draw(!seed, self.ordinal(number)) | 1 });
        let running = self.running.get_mut(&submission).expect("its command buffer has not ended");
        let name = format!("{} in {}", work.name, running.submission.name);
        let mut memories = Vec::with_capacity(work.bound.len());
        for bound in &work.bound {
            match bound.handle.resolve() {
                Ok(memory) => memories.push(memory),
                Err(gone) => {
                    let text = format!("{name} uses {gone}, which was freed before the command buffer completed");
                    running.reports.push(Report::new(Rule::FreedResource, text));
                    return;
                }
            }
        }
        let run = work.run;
        let done = catch_unwind(AssertUnwindSafe(|| run(&memories))).unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Done { reports: vec![Report::new(Rule::Stuck, format!("{name} panicked: {why}"))], ..Done::default() }
        });
        let written = work.bound.iter().zip(&memories).filter(|(bound, _)| bound.usage == Usage::Write);
        for (_, memory) in written {
            if memory.overrun() {
                let text = format!("{name} wrote past the end of {} ({} bytes)", memory.name(), memory.length());
                running.reports.push(Report::new(Rule::Overrun, text));
            }
        }
        let names: Vec<String> = memories.iter().map(|memory| memory.name()).collect();
        let actor = Actor { number, pass, name };
        running.reports.extend(done.reports);
        running.reports.extend(self.hazards.note(&actor, before, &work.bound, &done.touched, &names));
    }
}

/// Signals an event and lets the GPU see it.
pub fn signal(event: &Arc<Event>, value: u64, past: Past) {
    event.signal(value, past);
    look();
}

fn complete(submission: Submission, past: Past, reports: Vec<Report>) {
    // The handlers of a program must not end the GPU's thread.
    let complete = submission.complete;
    let _ = catch_unwind(AssertUnwindSafe(|| complete(past, reports)));
    let gpu = gpu();
    *gpu.active.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    gpu.idle.notify_all();
}
