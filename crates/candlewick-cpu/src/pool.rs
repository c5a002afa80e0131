//! Worker threads that wake in about a microsecond.
//!
//! One pool serves the process. A job is a number of tasks; every thread has a range of its own, in the same place from
//! call to call so that its cache stays warm, and helps the others when it is done. Workers spin for a short while after
//! a job, then sleep. The caller works too, and never waits for a worker that has not woken up: it does that worker's
//! tasks itself. A caller that finds the pool busy runs its job alone, so callers cannot wait for each other, and
//! workers leave a job between two tasks when more callers than one are running, so cores are not oversubscribed.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a worker spins after its last job before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// Work of one job: called with a task's index and the index of the thread that runs it.
type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A set of worker threads.
pub struct Pool {
    shared: &'static Shared,
    threads: usize,
}

struct Shared {
    /// Epoch (32 bits), threads that may join (15), open (1), workers inside (16).
    state: AtomicU64,
    /// Taken by the caller whose job it is.
    busy: AtomicBool,
    /// Callers inside `run`, with the pool or alone.
    callers: AtomicUsize,
    panicked: AtomicBool,
    job: UnsafeCell<Option<&'static Body<'static>>>,
    /// Per thread: the tasks of its range that are left, as (next << 32 | end).
    ranges: Box<[Range]>,
    workers: Box<[OnceLock<Thread>]>,
    asleep: Box<[AtomicBool]>,
}

/// On a cache line of its own, so that two threads do not fight over one.
#[repr(align(128))]
struct Range(AtomicU64);

// SAFETY: `job` is written only by the caller that holds `busy` while no worker is inside, and read only by workers that
// entered the open job; `state` orders both.
unsafe impl Sync for Shared {}

const OPEN: u64 = 1 << 16;
const ACTIVE: u64 = 0xffff;

impl Pool {
    /// The pool of this process: a thread per core that the process may use, or as many as `CANDLEWICK_THREADS` says.
    pub fn global() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Pool::new(default_threads()))
    }

    /// A pool of `threads` threads, the caller's included.
    ///
    /// # Panics
    /// When `threads` is zero.
    pub fn new(threads: usize) -> Pool {
        assert!(threads > 0, "a pool has at least the caller's thread");
        let threads = threads.min(1024);
        // Workers live as long as the process does, and so does what they share.
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            state: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            callers: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            ranges: (0..threads).map(|_| Range(AtomicU64::new(0))).collect(),
            workers: (1..threads).map(|_| OnceLock::new()).collect(),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        }));
        for worker in 1..threads {
            let spawned = std::thread::Builder::new()
                .name(format!("candlewick-{worker}"))
                .spawn(move || shared.work(worker))
                .map(|handle| shared.workers[worker - 1].set(handle.thread().clone()));
            if spawned.is_err() {
                // The system gives no more threads: the others, and the caller, do the work.
                break;
            }
        }
        Pool { shared, threads }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body(task, thread)` for every task below `tasks`, on at most `threads` threads, and returns when all are
    /// done. Thread indices are below `threads`, and no two calls at one time have the same.
    ///
    /// # Panics
    /// When `body` does.
    pub fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        let threads = threads.min(self.threads).min(tasks);
        if threads <= 1 {
            return (0..tasks).for_each(|task| body(task, 0));
        }
        let shared = self.shared;
        shared.callers.fetch_add(1, Ordering::Relaxed);
        let leave = Leave(&shared.callers);
        if tasks > u32::MAX as usize || shared.busy.swap(true, Ordering::Acquire) {
            (0..tasks).for_each(|task| body(task, 0));
            return;
        }
        shared.start(tasks, threads, body);
        // The job is closed and drained even when the caller's own part panics: workers borrow its stack.
        let result = catch_unwind(AssertUnwindSafe(|| shared.run_tasks(0, threads, body)));
        shared.finish();
        let worker_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        shared.busy.store(false, Ordering::Release);
        drop(leave);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!worker_panicked, "a worker thread panicked; its message is above");
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn start(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        for (thread, range) in self.ranges[..threads].iter().enumerate() {
            let (first, end) = (tasks * thread / threads, tasks * (thread + 1) / threads);
            range.0.store((first as u64) << 32 | end as u64, Ordering::Relaxed);
        }
        // SAFETY: only the lifetime changes. `finish` returns before the caller's borrow ends, and after it no worker
        // reads the job: the state is closed and nobody is inside.
        let body = unsafe { std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body) };
        // SAFETY: this caller holds `busy` and no worker is inside, so nobody else touches the cell.
        unsafe { *self.job.get() = Some(body) };
        let epoch = (self.state.load(Ordering::Relaxed) >> 32).wrapping_add(1) & 0xffff_ffff;
        self.state.store(epoch << 32 | (threads as u64) << 17 | OPEN, Ordering::Release);
        // Pairs with the fence in `sleep`: either this sees the flag, or the worker sees the new state.
        fence(Ordering::SeqCst);
        for worker in 1..threads {
            if self.asleep[worker - 1].load(Ordering::Relaxed)
                && self.asleep[worker - 1].swap(false, Ordering::Relaxed)
                && let Some(thread) = self.workers[worker - 1].get()
            {
                thread.unpark();
            }
        }
    }

    /// Closes the job and waits for the workers that are inside it.
    fn finish(&self) {
        let mut state = self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while state & ACTIVE != 0 {
            spins += 1;
            if spins.is_multiple_of(4096) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// Runs the tasks of this thread's range, then those that the others have left.
    fn run_tasks(&self, thread: usize, threads: usize, body: &Body<'_>) {
        for step in 0..threads {
            let range = &self.ranges[(thread + step) % threads].0;
            loop {
                // Workers make room when another caller computes at the same time.
                if thread != 0 && self.callers.load(Ordering::Relaxed) > 1 {
                    return;
                }
                let left = range.load(Ordering::Relaxed);
                let (next, end) = (left >> 32, left & 0xffff_ffff);
                if next >= end {
                    break;
                }
                let taken = (next + 1) << 32 | end;
                if range.compare_exchange_weak(left, taken, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    body(next as usize, thread);
                }
            }
        }
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        let mut idle_since = Instant::now();
        let mut spins = 0u32;
        loop {
            let state = self.state.load(Ordering::Acquire);
            let (epoch, threads) = (state >> 32, (state >> 17 & 0x7fff) as usize);
            if state & OPEN != 0 && epoch != seen && worker < threads {
                let entered = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if entered.is_err() {
                    continue;
                }
                seen = epoch;
                // SAFETY: the job was written before the state was opened, and stays until this worker has left.
                let body = unsafe { *self.job.get() }.expect("an open job has a body");
                if catch_unwind(AssertUnwindSafe(|| self.run_tasks(worker, threads, body))).is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
                self.state.fetch_sub(1, Ordering::AcqRel);
                (idle_since, spins) = (Instant::now(), 0);
                continue;
            }
            std::hint::spin_loop();
            spins = spins.wrapping_add(1);
            // The clock is read rarely: it costs as much as some twenty looks at the state.
            if spins.is_multiple_of(64) && idle_since.elapsed() > SPIN {
                self.sleep(worker, seen);
                (idle_since, spins) = (Instant::now(), 0);
            }
        }
    }

    fn sleep(&self, worker: usize, seen: u64) {
        let flag = &self.asleep[worker - 1];
        flag.store(true, Ordering::Relaxed);
        // Pairs with the fence in `start`.
        fence(Ordering::SeqCst);
        let state = self.state.load(Ordering::Relaxed);
        let called = state & OPEN != 0 && state >> 32 != seen && worker < (state >> 17 & 0x7fff) as usize;
        if !called {
            while flag.load(Ordering::Relaxed) {
                std::thread::park();
            }
        }
        flag.store(false, Ordering::Relaxed);
    }
}

fn default_threads() -> usize {
    let asked = std::env::var("CANDLEWICK_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    asked.filter(|&threads| threads > 0).unwrap_or_else(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::new(3);
        for tasks in [0, 1, 2, 3, 7, 100] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, 3, &|task, thread| {
                assert!(thread < 3);
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{tasks} tasks");
        }
    }

    #[test]
    fn workers_wake_after_they_slept() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(SPIN * 5);
            let threads = AtomicU64::new(0);
            // Tasks long enough that the worker has time to wake up.
            pool.run(64, 2, &|_, thread| {
                threads.fetch_or(1 << thread, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            });
            assert_eq!(threads.load(Ordering::Relaxed), 3, "both threads took part");
        }
    }

    #[test]
    fn two_callers_and_nested_jobs_do_not_deadlock_and_do_not_oversubscribe() {
        let pool = Pool::new(2);
        let running = AtomicUsize::new(0);
        let crowded = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(32, 2, &|_, _| {
                            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                            crowded.fetch_add(usize::from(now > 2), Ordering::Relaxed);
                            let start = Instant::now();
                            while start.elapsed() < Duration::from_micros(20) {}
                            running.fetch_sub(1, Ordering::Relaxed);
                            pool.run(2, 2, &|_, _| {
                                done.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(done.load(Ordering::Relaxed), 2 * 50 * 32 * 2);
        // A worker may finish the task that it has when a second caller comes; it must not go on.
        assert!(crowded.load(Ordering::Relaxed) < 2 * 50 * 4, "{crowded:?} of 3200 tasks ran beside two others");
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        let run = || pool.run(8, 2, &|task, _| assert_ne!(task, 7));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, 2, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 8);
    }
}
