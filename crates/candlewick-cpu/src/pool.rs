//! Worker threads that are there within a hundred nanoseconds.
//!
//! One pool serves the process. Its caller writes what is to do where idle workers look for a while before they sleep. Tasks are claimed one by one: every thread has a range of its own, in the same place from call to call so
//! that its cache stays warm, and helps the others when it is done. The caller works too, and waits for nothing but the
//! end of tasks that were begun: what a worker has not claimed, because it sleeps or the system runs something else in
//! its place, the caller does itself.
//!
//! A caller that finds the pool busy runs its jobs alone, so callers cannot wait for each other, and workers leave a job
//! between two tasks when more callers than one are running, so cores are not oversubscribed.

#[cfg(test)]
mod tests;

use crate::ops::split;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a worker looks for work after its last job before it sleeps.
const SPIN: Duration = Duration::from_micros(200);
/// The same while the pool is held: the next job comes soon, but for long work on the caller's thread alone.
const SPIN_HELD: Duration = Duration::from_millis(1);
/// Looks that a thread takes without a pause: a pause may take longer than what it waits for.
const EAGER: u32 = 64;

/// Work of one job: called with a task's index and the index of the thread that runs it.
pub type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Who runs the jobs of an operation.
pub trait Workers {
    /// Calls `body(task, thread)` for every task below `tasks`, on at most `threads` threads, and returns when all are
    /// done. Thread indices are below `threads`, and no two calls at one time have the same.
    ///
    /// # Panics
    /// When `body` does.
    fn run(&self, tasks: usize, threads: usize, body: &Body<'_>);
}

/// The caller's thread.
pub(crate) struct Alone;

impl Workers for Alone {
    fn run(&self, tasks: usize, _threads: usize, body: &Body<'_>) {
        (0..tasks).for_each(|task| body(task, 0));
    }
}

/// A set of worker threads.
pub struct Pool {
    shared: &'static Shared,
    threads: usize,
}

/// A pool that one caller has for several jobs, or the caller's thread alone where another had the pool already.
pub struct Held<'a> {
    pool: &'a Pool,
    has_pool: bool,
    /// Not shared: jobs follow each other.
    one_thread: PhantomData<Cell<()>>,
}

struct Shared {
    seats: Box<[Seat]>,
    callers: Callers,
    /// Of the latest job. Workers do not read it, and none of what they read lies beside it.
    number: Number,
    panicked: AtomicBool,
    workers: Box<[OnceLock<Thread>]>,
    asleep: Box<[AtomicBool]>,
}

/// Where a thread finds its work: one cache line for all that the caller tells it, as a line takes about seventy
/// nanoseconds from one core to another. Twice a line's size, as processors fetch neighbours.
#[repr(align(128))]
struct Seat {
    /// The job's number, and how many tasks of the thread's range nobody has claimed (32 bits each).
    left: AtomicU64,
    /// The job's threads and tasks.
    threads: AtomicUsize,
    tasks: AtomicUsize,
    /// What it is. Valid for whoever has claimed a task of it and has not yet reported the task done.
    body: UnsafeCell<Option<&'static Body<'static>>>,
    done: Done,
}

/// Tasks that a worker has done, ever: all that it tells the caller.
#[repr(align(128))]
struct Done(AtomicU64);

// SAFETY: `body` is written only by the caller that has the pool while no task is claimed, and read only by the seat's
// thread after it has claimed a task; `left` and `done` order both.
unsafe impl Sync for Seat {}

/// Who may use the pool.
#[derive(Default)]
#[repr(align(128))]
struct Callers {
    /// Inside, with the pool or alone.
    count: AtomicUsize,
    /// Taken by the one whose jobs they are.
    busy: AtomicBool,
    /// Whether that one took the pool for several jobs.
    held: AtomicBool,
}

#[derive(Default)]
#[repr(align(128))]
struct Number(AtomicU32);

/// A job as those see it who take part.
#[derive(Clone, Copy)]
struct Job {
    number: u32,
    threads: usize,
    tasks: usize,
}

fn pack(number: u32, left: usize) -> u64 {
    u64::from(number) << 32 | left as u64
}

fn unpack(word: u64) -> (u32, usize) {
    ((word >> 32) as u32, (word & 0xffff_ffff) as usize)
}

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
        let threads = threads.min(1023);
        // Workers live as long as the process does, and so does what they share.
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            seats: (0..threads).map(|_| Seat::default()).collect(),
            callers: Callers::default(),
            number: Number::default(),
            panicked: AtomicBool::new(false),
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

    /// As [`Workers::run`], for one job.
    ///
    /// # Panics
    /// When `body` does.
    pub fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        if threads.min(self.threads).min(tasks) <= 1 {
            return Alone.run(tasks, 1, body);
        }
        self.enter().run(tasks, threads, body);
    }

    /// Takes the pool for several jobs, of at most `threads` threads, and wakes workers that sleep. They stay awake
    /// until it is dropped, but for a long time without a job.
    pub fn hold(&self, threads: usize) -> Held<'_> {
        let held = self.enter();
        if held.has_pool {
            self.shared.callers.held.store(true, Ordering::Relaxed);
            self.shared.wake(threads.min(self.threads));
        }
        held
    }

    fn enter(&self) -> Held<'_> {
        self.shared.callers.count.fetch_add(1, Ordering::Relaxed);
        let has_pool = !self.shared.callers.busy.swap(true, Ordering::Acquire);
        Held { pool: self, has_pool, one_thread: PhantomData }
    }
}

impl Workers for Pool {
    fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        Pool::run(self, tasks, threads, body);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Callers { count, busy, held, .. } = &self.pool.shared.callers;
        if self.has_pool {
            held.store(false, Ordering::Relaxed);
            busy.store(false, Ordering::Release);
        }
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers for Held<'_> {
    fn run(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        let threads = threads.min(self.pool.threads).min(tasks);
        if threads <= 1 || !self.has_pool || tasks > u32::MAX as usize {
            return Alone.run(tasks, 1, body);
        }
        self.pool.shared.call(tasks, threads, body);
    }
}

impl Shared {
    /// Runs a job on the caller's thread and the workers. Only whoever has the pool calls this, one after the other.
    fn call(&self, tasks: usize, threads: usize, body: &Body<'_>) {
        let number = self.number.0.load(Ordering::Relaxed).wrapping_add(1);
        self.number.0.store(number, Ordering::Relaxed);
        let job = Job { number, threads, tasks };
        let workers = &self.seats[1..threads];
        let done = || workers.iter().map(|seat| seat.done.0.load(Ordering::Acquire)).fold(0, u64::wrapping_add);
        let before = done();
        // SAFETY: only the lifetime changes. This function returns when every task is done, and nobody reads the body
        // after that.
        let body_for_workers = unsafe { std::mem::transmute::<&Body<'_>, &'static Body<'static>>(body) };
        for (worker, seat) in workers.iter().enumerate() {
            // SAFETY: this caller has the pool, and all tasks of the jobs before are done: nobody reads it.
            unsafe { *seat.body.get() = Some(body_for_workers) };
            seat.threads.store(threads, Ordering::Relaxed);
            seat.tasks.store(tasks, Ordering::Relaxed);
            seat.left.store(pack(number, split(tasks, threads, worker + 1).1), Ordering::Release);
        }
        // The caller's first task is its own from the start: a claim would wait until the seats are written.
        self.seats[0].left.store(pack(number, split(tasks, threads, 0).1 - 1), Ordering::Release);
        self.wake(threads);

        let mut claimed = 1;
        let result = catch_unwind(AssertUnwindSafe(|| {
            body(0, 0);
            for owner in 0..threads {
                while let Some(task) = self.claim(job, owner) {
                    claimed += 1;
                    body(task, 0);
                }
            }
        }));
        if result.is_err() {
            (0..threads).for_each(|owner| {
                while self.claim(job, owner).is_some() {
                    claimed += 1
                }
            });
        }
        // Workers borrow the caller's stack: it stays until every task is done.
        let others = (tasks - claimed) as u64;
        let mut looks = 0u32;
        while done().wrapping_sub(before) != others {
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(4096) {
                std::thread::yield_now();
            } else if looks > EAGER {
                std::hint::spin_loop();
            }
        }
        let worker_panicked = self.panicked.load(Ordering::Relaxed) && self.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!worker_panicked, "a worker thread panicked; its message is above");
    }

    /// Claims a task of an `owner`'s range.
    fn claim(&self, job: Job, owner: usize) -> Option<usize> {
        let left = &self.seats[owner].left;
        let mut seen = left.load(Ordering::Relaxed);
        loop {
            // Another number: this thread was held up, and its job is over.
            let (number, count) = unpack(seen);
            if number != job.number || count == 0 {
                return None;
            }
            match left.compare_exchange_weak(seen, seen - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let (first, all) = split(job.tasks, job.threads, owner);
                    return Some(first + all - count);
                }
                Err(now) => seen = now,
            }
        }
    }

    fn wake(&self, threads: usize) {
        // A worker that falls asleep at this very moment may be missed. Its tasks are the caller's, then.
        for worker in 1..threads {
            if self.asleep[worker - 1].load(Ordering::Relaxed)
                && self.asleep[worker - 1].swap(false, Ordering::Relaxed)
                && let Some(thread) = self.workers[worker - 1].get()
            {
                thread.unpark();
            }
        }
    }

    /// A worker's life.
    fn work(&self, worker: usize) {
        let seat = &self.seats[worker];
        let mut last = 0;
        let mut idle_since = Instant::now();
        let mut looks = 0u32;
        loop {
            let (number, _) = unpack(seat.left.load(Ordering::Acquire));
            if number != last {
                last = number;
                self.take_part(number, worker);
                (idle_since, looks) = (Instant::now(), 0);
                continue;
            }
            looks = looks.wrapping_add(1);
            if looks > EAGER {
                std::hint::spin_loop();
            }
            // The clock is read rarely: it costs as much as some twenty looks.
            if looks.is_multiple_of(64) {
                let patience = if self.callers.held.load(Ordering::Relaxed) { SPIN_HELD } else { SPIN };
                if idle_since.elapsed() > patience {
                    self.sleep(worker, last);
                    (idle_since, looks) = (Instant::now(), 0);
                }
            }
        }
    }

    fn take_part(&self, number: u32, worker: usize) {
        let seat = &self.seats[worker];
        // Where they are a later job's, this one is over, and `claim` finds nothing.
        let (threads, tasks) = (seat.threads.load(Ordering::Relaxed), seat.tasks.load(Ordering::Relaxed));
        let job = Job { number, threads, tasks };
        for step in 0..threads {
            let mut claimed = 0;
            let result = catch_unwind(AssertUnwindSafe(|| {
                // Workers make room when another caller computes at the same time.
                while self.callers.count.load(Ordering::Relaxed) == 1
                    && let Some(task) = self.claim(job, (worker + step) % threads)
                {
                    claimed += 1;
                    // SAFETY: the caller leaves the body in place until the claimed task is reported as done, below.
                    let body = unsafe { *seat.body.get() }.expect("a job has a body");
                    body(task, worker);
                }
            }));
            if result.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            if claimed > 0 {
                let done = seat.done.0.load(Ordering::Relaxed).wrapping_add(claimed);
                seat.done.0.store(done, Ordering::Release);
            }
        }
    }

    fn sleep(&self, worker: usize, last: u32) {
        let flag = &self.asleep[worker - 1];
        flag.store(true, Ordering::Relaxed);
        // The flag is out before the seat is looked at once more, so that few jobs are missed.
        fence(Ordering::SeqCst);
        if unpack(self.seats[worker].left.load(Ordering::Relaxed)).0 == last {
            while flag.load(Ordering::Relaxed) {
                std::thread::park();
            }
        }
        flag.store(false, Ordering::Relaxed);
    }
}

impl Default for Seat {
    fn default() -> Self {
        Seat {
            left: AtomicU64::new(0),
            threads: AtomicUsize::new(1),
            tasks: AtomicUsize::new(0),
            body: UnsafeCell::new(None),
            done: Done(AtomicU64::new(0)),
        }
    }
}

fn default_threads() -> usize {
    let asked = std::env::var("CANDLEWICK_THREADS").ok().and_then(|threads| threads.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    asked.filter(|&threads| threads > 0).unwrap_or_else(cores)
}
