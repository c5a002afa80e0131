//! The pool as its callers see it.

use super::*;

/// Miri takes its time.
const ROUNDS: usize = if cfg!(miri) { 20 } else { 2000 };

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

#[test]
fn a_held_pool_runs_one_job_after_the_other() {
    let pool = Pool::new(3);
    let held = pool.hold(3);
    // What a job writes, the next reads, on whatever thread.
    let numbers: Vec<AtomicUsize> = (0..7).map(|_| AtomicUsize::new(0)).collect();
    for round in 0..ROUNDS {
        held.run(numbers.len(), 3, &|task, _| {
            let before = numbers[(task + round) % numbers.len()].load(Ordering::Relaxed);
            assert_eq!(before, round);
        });
        held.run(numbers.len(), 3, &|task, _| {
            numbers[task].fetch_add(1, Ordering::Relaxed);
        });
    }
    assert!(numbers.iter().all(|number| number.load(Ordering::Relaxed) == ROUNDS));
    // Another caller is not kept waiting.
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(5, 3, &|_, thread| {
                assert_eq!(thread, 0);
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
    });
    assert_eq!(count.load(Ordering::Relaxed), 5);
}

#[test]
fn what_a_worker_has_not_begun_is_not_waited_for() {
    let pool = Pool::new(2);
    // The worker is kept by a task of its own; the caller does all the rest, of this job and of the range that is the
    // worker's.
    let (begun, release) = (AtomicBool::new(false), AtomicBool::new(false));
    let by_caller = AtomicUsize::new(0);
    pool.run(64, 2, &|task, thread| {
        if thread == 1 && !begun.swap(true, Ordering::Relaxed) {
            while !release.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        } else if thread == 0 {
            if task == 0 {
                while !begun.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            let count = by_caller.fetch_add(1, Ordering::Relaxed) + 1;
            release.store(count == 63, Ordering::Relaxed);
        }
    });
    assert_eq!(by_caller.load(Ordering::Relaxed), 63);
}
