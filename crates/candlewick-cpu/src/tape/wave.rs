//! Waves: successive calls that do not depend on each other, and whose tasks are handed out together.
//!
//! A call runs its jobs one after the other, and a job's body borrows what the call has on its stack. So the calls of a
//! wave are entered one inside the other: the first job of each waits for the last call to have one, and then they run
//! as one job. Later jobs of a call run by themselves, on the way back.

use super::Call;
use crate::ops::{Floats, split};
use crate::pool::{Alone, Body, Workers};
use candlewick_core::tape::{Place, Step};
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;

/// Calls of a wave, at most.
const MOST: usize = 8;
/// f32 of workspace that a wave of several calls may have.
const WORKSPACE: usize = 1 << 22;
/// A call on one thread is worth a task where it takes so long, in seconds: handing it out takes a third of that.
const WORTH_A_TASK: f64 = 1e-6;
/// What a thread reads or computes in a second, at most, roughly: it decides about tasks only.
const BYTES: f64 = 30e9;
const FLOPS: f64 = 150e9;

/// The memory that a call reads and writes, as addresses.
pub(super) struct Accesses {
    reads: Vec<Range<usize>>,
    writes: Vec<Range<usize>>,
}

impl Accesses {
    pub(super) fn new<K>(step: &Step<K>, pointer: impl Fn(&Place) -> *mut u8) -> Self {
        let range = |place: &Place| {
            let start = pointer(place).addr();
            start..start + place.bytes().len()
        };
        Accesses { reads: step.inputs.iter().map(range).collect(), writes: step.outputs.iter().map(range).collect() }
    }

    /// Whether two calls must keep their order: one writes what the other reads or writes.
    fn meet(&self, other: &Accesses) -> bool {
        let any = |a: &[Range<usize>], b: &[Range<usize>]| {
            a.iter().any(|a| b.iter().any(|b| a.start < b.end && b.start < a.end))
        };
        any(&self.writes, &other.writes) || any(&self.writes, &other.reads) || any(&self.reads, &other.writes)
    }
}

/// Divides calls into waves, and gives the calls of each their parts of the workspace: the waves' lengths, and how long
/// the workspace has to be.
pub(super) fn divide(calls: &mut [Call], accesses: &[Accesses]) -> (Vec<usize>, usize) {
    let (mut waves, mut longest, mut first) = (Vec::new(), 0, 0);
    while first < calls.len() {
        let (mut count, mut workspace) = (0, 0);
        while first + count < calls.len() && count < MOST {
            let call = &mut calls[first + count];
            let needed = call.kernel.workspace().next_multiple_of(16);
            let meets = accesses[first..first + count].iter().any(|before| before.meet(&accesses[first + count]));
            if meets || count > 0 && workspace + needed > WORKSPACE {
                break;
            }
            call.workspace = workspace;
            workspace += needed;
            count += 1;
        }
        longest = workspace.max(longest);
        let wave = &calls[first..first + count];
        // Where no two have tasks to hand out, one after the other is faster.
        if wave.iter().filter(|call| call.kernel.threads() > 1 || is_task(call)).count() > 1 {
            waves.push(count);
        } else {
            waves.extend(std::iter::repeat_n(1, count));
        }
        first += count;
    }
    (waves, longest)
}

/// Whether a call is handed out as one task.
fn is_task(call: &Call) -> bool {
    let op = call.kernel.op();
    call.kernel.threads() == 1 && (op.bytes() / BYTES).max(op.flops() / FLOPS) > WORTH_A_TASK
}

/// What a wave runs on.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub workspace: *mut f32,
    pub workers: &'a dyn Workers,
    /// At most.
    pub threads: usize,
}

/// A job that waits for those of other calls.
struct Job<'a> {
    tasks: usize,
    threads: usize,
    body: &'a Body<'a>,
    before: Option<&'a Job<'a>>,
}

/// Stands in for the workers while a call runs that others follow.
struct Gather<'a> {
    site: Site<'a>,
    /// The calls that follow, until the first job is there.
    rest: Cell<Option<&'a mut [Call]>>,
    before: Option<&'a Job<'a>>,
}

/// A call that is one task.
struct Once<'a>(UnsafeCell<&'a mut Call>);

// SAFETY: the task runs once, on one thread, while the call's owner waits.
unsafe impl Sync for Once<'_> {}

/// Runs the calls of a wave.
///
/// # Safety
/// That of [`Call::run`] for each, and none writes what another reads or writes.
pub(super) unsafe fn run(calls: &mut [Call], site: Site<'_>) {
    // SAFETY: the caller's promise.
    unsafe { enter(calls, None, site) };
}

/// Enters the calls, with the jobs of those before, and runs the jobs when there are no more calls.
///
/// # Safety
/// That of [`run`].
unsafe fn enter(calls: &mut [Call], before: Option<&Job<'_>>, site: Site<'_>) {
    let Some((call, rest)) = calls.split_first_mut() else { return run_together(before, site) };
    if is_task(call) {
        let (once, workspace) = (Once(UnsafeCell::new(call)), Floats(site.workspace));
        let body = |_: usize, _: usize| {
            let (Once(call), Floats(workspace)) = (&once, &workspace);
            // SAFETY: the caller's promise; the job has one task, which runs once.
            unsafe { (*call.get()).run(*workspace, &Alone) };
        };
        let job = Job { tasks: 1, threads: 1, body: &body, before };
        // SAFETY: the caller's promise.
        return unsafe { enter(rest, Some(&job), site) };
    }
    let gather = Gather { site, rest: Cell::new(Some(rest)), before };
    // SAFETY: the caller's promise.
    unsafe { call.run(site.workspace, &gather) };
    if let Some(rest) = gather.rest.take() {
        // It had nothing to hand out.
        // SAFETY: the caller's promise.
        unsafe { enter(rest, before, site) };
    }
}

impl Workers for Gather<'_> {
    fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        // What one thread does is done at once. All jobs have scratch for the same threads, or run as one task.
        let alike = || jobs(self.before).all(|job| job.threads == 1 || job.threads == threads);
        if threads.min(tasks) > 1
            && alike()
            && let Some(rest) = self.rest.take()
        {
            let job = Job { tasks, threads, body, before: self.before };
            // SAFETY: `enter` made this from what its own caller promised.
            return unsafe { enter(rest, Some(&job), self.site) };
        }
        self.site.workers.run(tasks, threads, body);
    }
}

/// A job and those before it.
fn jobs<'a>(last: Option<&'a Job<'a>>) -> impl Iterator<Item = &'a Job<'a>> {
    std::iter::successors(last, |job| job.before)
}

/// Runs jobs as one, whose tasks stand in an order in which each thread's share of every job is together: threads take
/// equal ranges of it.
fn run_together(last: Option<&Job<'_>>, site: Site<'_>) {
    let mut list: [Option<&Job<'_>>; MOST] = [None; MOST];
    let (mut count, mut tasks, mut threads) = (0, 0, 1);
    for job in jobs(last) {
        list[count] = Some(job);
        count += 1;
        tasks += job.tasks;
        threads = job.threads.max(threads);
    }
    match list {
        [None, ..] => {}
        [Some(job), None, ..] => site.workers.run(job.tasks, job.threads, job.body),
        _ => {
            let threads = if threads > 1 { threads } else { count.min(site.threads) };
            let list = &list[..count];
            site.workers.run(tasks, threads, &|place, thread| {
                let counts = list.iter().map(|job| job.map_or(0, |job| job.tasks));
                let (index, task) = share(counts, threads, place);
                if let Some(job) = list[index] {
                    (job.body)(task, thread);
                }
            });
        }
    }
}

/// The job and the task at a place of that order.
fn share(counts: impl Iterator<Item = usize> + Clone, threads: usize, mut place: usize) -> (usize, usize) {
    for owner in 0..threads {
        for (job, tasks) in counts.clone().enumerate() {
            let (first, count) = split(tasks, threads, owner);
            if place < count {
                return (job, first + place);
            }
            place -= count;
        }
    }
    unreachable!("a place is below the number of tasks")
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn every_task_has_a_place_and_every_thread_a_share_of_every_job() {
        let cases = [(2, vec![4, 2, 2]), (2, vec![1, 1]), (3, vec![5, 1, 7]), (4, vec![9]), (2, vec![0, 3])];
        for (threads, counts) in cases {
            let places = 0..counts.iter().sum::<usize>();
            let mut found: Vec<_> = places.map(|place| share(counts.iter().copied(), threads, place)).collect();
            if counts == [4, 2, 2] {
                assert_eq!(found[..4], [(0, 0), (0, 1), (1, 0), (2, 0)]);
            }
            found.sort_unstable();
            let all = (counts.iter().enumerate()).flat_map(|(job, &tasks)| (0..tasks).map(move |task| (job, task)));
            assert!(all.eq(found), "{counts:?}");
        }
    }
}
