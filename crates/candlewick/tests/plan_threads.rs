//! Plans and threads: a plan is one thread's at a time by type, and plans of one session take turns.

use candlewick::plan::{Session, Shared};
use candlewick::{DType, Device, MatMul, Plan};

const F32: DType = DType::F32;
const RUNS: usize = 200;

/// Moved to another thread, never used by two: `run` takes it exclusively.
#[test]
fn plans_and_sessions_move_between_threads() {
    fn sent<T: Send>() {}
    sent::<Plan>();
    sent::<Session>();
    sent::<Shared>();
}

/// Each run adds to a state that both plans read and write.
#[test]
fn plans_of_a_session_take_turns() {
    let session = Session::new(&Device::cpu()).unwrap();
    let state = session.state("count", 4, 4, F32).unwrap();
    let plan = || {
        let (plan, ()) = session
            .record(|p| {
                let (state, one) = (p.shared(&state)?, p.filled(1.0, 4, 1, F32));
                // state + 1 in two steps: whoever came between them would be lost.
                let copied = p.add(state, state)?;
                let row = p.filled(1.0, 1, 4, F32);
                p.op_into(MatMul::new(4, 4, 1, F32).scaled(2.0, 1.0), &[one, row], &[copied])?;
                let half = p.filled(0.125, 4, 4, F32);
                p.op_into(MatMul::new(4, 4, 4, F32), &[copied, half], &[state])
            })
            .unwrap();
        plan
    };
    let mut plans = [plan(), plan()];
    std::thread::scope(|scope| {
        for plan in &mut plans {
            scope.spawn(|| (0..RUNS).for_each(|_| plan.run().unwrap()));
        }
    });
    let mut found = [0f32; 16];
    session.read(&state, &mut found).unwrap();
    assert_eq!(found, [2.0 * RUNS as f32; 16], "every run saw the one before it");
}

/// A plan that waits on one thread does not keep another thread's session waiting for it.
#[test]
fn sessions_are_independent() {
    let run = |start: f32| {
        let (mut plan, (x, y)) = Plan::record(&Device::cpu(), |p| {
            let x = p.input("x", 8, 32, F32);
            let y = p.softmax(x, 1.0)?;
            let y = p.matmul_transposed(y, x)?;
            Ok((x, p.output(y)?))
        })
        .unwrap();
        let numbers: Vec<f32> = (0..256).map(|i| start + (i % 17) as f32 / 16.0).collect();
        plan.write(x, &numbers).unwrap();
        let mut found = vec![0f32; 64];
        for _ in 0..RUNS {
            plan.submit().unwrap().wait().unwrap();
        }
        plan.read(y, &mut found).unwrap();
        found
    };
    let expected: Vec<Vec<f32>> = (0..4).map(|i| run(i as f32)).collect();
    let found: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || run(i as f32))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(found, expected);
}
