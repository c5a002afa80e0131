//! What a run of a plan costs on Metal, counted: one command buffer, few messages, no objects; and that every barrier in it
//! is needed.

use candlewick::plan::{Budget, Recorder, Session, Tensor};
use candlewick::{DType, Plan, Result};
use metal_emulator::{Counts, Drop, Rule, Settings, region, watch};
use product_on_the_emulator::metal;

const F32: DType = DType::F32;
const WIDTH: usize = 24;

fn numbers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 1009) as f32 / 2018.0 - 0.25).collect()
}

/// Blocks of a feed-forward with adapters, and the gradients of a sum.
fn blocks(p: &mut Recorder, blocks: usize) -> Result<Vec<Tensor>> {
    let mut states = Vec::new();
    let mut state = |p: &mut Recorder, rows: usize, cols: usize| -> Result<Tensor> {
        states.push(p.state("state", rows, cols, F32)?);
        Ok(states[states.len() - 1])
    };
    let mut x = state(p, 5, WIDTH)?;
    for _ in 0..blocks {
        let norm = state(p, 1, WIDTH)?;
        let normed = p.rms_norm(x, norm, 1e-3)?;
        let (w, a, b) = (state(p, WIDTH, WIDTH)?, state(p, 4, WIDTH)?, state(p, WIDTH, 4)?);
        let y = p.lora_linear(normed, w, None, a, b, 0.5)?;
        let gate = p.softmax(normed, 1.0)?;
        let gated = p.silu_mul(gate, y)?;
        x = p.add(x, gated)?;
    }
    let (left, right) = (p.filled(1.0, 1, 5, F32), p.filled(1.0, WIDTH, 1, F32));
    let row = p.matmul(left, x)?;
    let loss = p.matmul(row, right)?;
    p.output(loss)?;
    let parameters = [states[1], states[3], states[4]];
    for gradient in p.grad_within(loss, &parameters, Budget::bytes(0))? {
        p.output(gradient)?;
    }
    Ok(states)
}

fn plan(count: usize) -> Plan {
    let session = Session::new(&metal().unwrap()).unwrap();
    let (mut plan, states) = session
        .record(|p| {
            let states = blocks(p, count)?;
            Ok(states.iter().map(|&state| (state, p.shape(state))).collect::<Vec<_>>())
        })
        .unwrap();
    for (at, (state, (rows, cols))) in states.into_iter().enumerate() {
        plan.write(state, &numbers(rows * cols, 3 + at)).unwrap();
    }
    plan
}

/// What the third of three runs costs.
fn steady(plan: &mut Plan) -> Counts {
    plan.run().unwrap();
    plan.run().unwrap();
    let (counts, ()) = region(|| drop(plan.submit().unwrap()));
    plan.run().unwrap();
    counts
}

#[test]
fn a_run_is_one_command_buffer_of_few_messages() {
    let watch = watch(Settings::default());
    let mut plan = plan(4);
    let counts = steady(&mut plan);
    let (runtime, gpu) = (counts.runtime, counts.gpu);
    println!(
        "{} operations, {} dispatches, {} messages, {} barriers",
        plan.operations(),
        gpu.dispatches,
        runtime.messages,
        gpu.barriers
    );
    assert!(plan.operations() > 30 && gpu.dispatches as usize >= plan.operations());
    assert_eq!([gpu.command_buffers, gpu.commits, gpu.encoders], [1; 3], "{counts}");
    assert_eq!([gpu.waits, gpu.buffers, gpu.blits, gpu.bytes_copied], [0; 4], "{counts}");
    // The command buffer's own among them.
    assert!(runtime.messages <= 6 * gpu.dispatches, "{counts}");
    assert!(runtime.objects_made <= 2, "a command buffer and its encoder: {counts}");
    assert!(gpu.barriers < gpu.dispatches, "what does not meet runs side by side");
    watch.assert_clean();
}

/// A plan is split where a command buffer would hold more than the chip takes at once, and nowhere else.
#[test]
fn a_long_plan_is_split_at_the_limit_only() {
    let watch = watch(Settings::default());
    let session = Session::new(&metal().unwrap()).unwrap();
    let (mut plan, y) = session
        .record(|p| {
            let mut x = p.state("x", 1, 8, F32)?;
            for _ in 0..4200 {
                x = p.softmax(x, 1.0)?;
            }
            p.output(x)
        })
        .unwrap();
    let counts = steady(&mut plan);
    assert_eq!([counts.gpu.command_buffers, counts.gpu.commits], [2; 2], "{counts}");
    let mut found = [0f32; 8];
    plan.read(y, &mut found).unwrap();
    assert!(found.iter().all(|y| (y - 0.125).abs() < 1e-6));
    watch.assert_clean();
}

#[test]
fn every_barrier_of_a_plan_is_needed() {
    let run = || {
        let (before, mut plan) = region(|| plan(2));
        plan.run().unwrap();
        let (run, ()) = region(|| drop(plan.submit().unwrap()));
        let _ = plan.run();
        (before.gpu.barriers, run.gpu.barriers)
    };
    let (before, barriers) = {
        let watch = watch(Settings::default());
        let counted = run();
        watch.assert_clean();
        counted
    };
    println!("{barriers} barriers a run");
    assert!(before == 0 && barriers > 10);
    // Those of the first run.
    for dropped in 0..barriers {
        let watch =
            watch(Settings { drop: Drop::Barrier(dropped), only_print: false, ..Settings::seeded(dropped % 3) });
        let _ = std::panic::catch_unwind(run);
        watch.assert_found(Rule::MissingBarrier);
    }
}
