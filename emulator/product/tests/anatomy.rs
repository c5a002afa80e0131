//! What one MPS product is made of, counted stage by stage: as naive code does it, and as we do.

use candlewick_core::{DType, MatMul, Op};
use candlewick_metal::anatomy::{self, Share, Stage, StageTime};
use candlewick_metal::{Device, MPS, MPS_NDARRAY, SIMDGROUP};
use metal_emulator::{Counts, Settings, account, watch};
use product_on_the_emulator::Prepared;

/// What each stage cost, in order.
fn counted(
    run: impl FnOnce(&mut dyn FnMut(Stage)) -> candlewick_core::Result<Vec<StageTime>>,
) -> (Vec<StageTime>, Vec<(Stage, Counts)>) {
    let (mut before, mut counts) = (account::counts(), Vec::new());
    let times = run(&mut |stage| {
        let now = account::counts();
        counts.push((stage, now - before));
        before = account::counts();
    });
    (times.unwrap(), counts)
}

#[test]
fn naive_code_makes_everything_in_every_call_and_we_make_it_once() {
    let watch = watch(Settings::default());
    let device = Device::open().unwrap();
    let mut stream = candlewick_core::backend::Device::stream(&device).unwrap();
    let product = MatMul::new(64, 64, 64, DType::F32);
    let mut prepared = Prepared::new(&device, &mut stream, &Op::from(product), Some(MPS)).unwrap();
    candlewick_core::backend::Stream::wait(&mut stream).unwrap();
    let inputs = [(&prepared.inputs[0]).into(), (&prepared.inputs[1]).into()];
    let mut output = (&mut prepared.outputs[0]).into();
    let print = |what: &str, counts: &[(Stage, Counts)]| {
        println!("| {what} | messages | objects |\n|---|---|---|");
        for (stage, counts) in counts {
            println!("| {} | {} | {} |", stage.name(), counts.runtime.messages, counts.runtime.objects_made);
        }
    };

    let (times, counts) = counted(|after| anatomy::naive(&device, &product, &inputs, &mut output, after));
    print("naive", &counts);
    assert_eq!(times.iter().map(|time| time.stage).collect::<Vec<_>>(), Stage::ALL);
    assert!(times.iter().all(|time| time.share == Share::Call && time.seconds > 0.0));
    assert!(counts[..5].iter().all(|(_, counts)| counts.runtime.objects_made >= 1), "it makes everything");

    for engine in [MPS, MPS_NDARRAY, SIMDGROUP] {
        let (times, counts) =
            counted(|after| anatomy::ours(&device, &product, engine, &inputs, &mut output, 20, after));
        print(&engine.to_string(), &counts);
        let mut stages: Vec<_> = times.iter().map(|time| time.stage).collect();
        stages.sort_by_key(|stage| Stage::ALL.iter().position(|other| other == stage));
        assert_eq!(stages, Stage::ALL);
        let of = |stage| counts.iter().find(|(other, _)| *other == stage).unwrap().1;
        // In the steady state a call makes nothing, 4 messages at most; the first of a command buffer opens the encoder.
        let encode = of(Stage::Encode);
        assert!(encode.runtime.messages <= 20 * 10 && encode.runtime.objects_made <= 1, "{engine}: {encode}");
        assert_eq!((encode.gpu.commits, encode.gpu.waits, encode.gpu.command_buffers), (0, 0, 0));
        assert_eq!(of(Stage::CommandBuffer).gpu.command_buffers, 1);
        assert_eq!(of(Stage::Commit).gpu.commits, 1);
        let views = of(Stage::Descriptors).runtime.objects_made + of(Stage::Matrices).runtime.objects_made;
        assert_eq!(views > 0, engine != SIMDGROUP, "{engine}");
        let wait = times.iter().find(|time| time.stage == Stage::Wait).unwrap();
        assert_eq!(wait.share, Share::CommandBuffer(20));
        assert!(wait.seconds_per_call() < wait.seconds);
    }
    // More calls than a command buffer holds are not in it.
    let most = device.operations_per_command_buffer();
    let (times, _) = counted(|after| anatomy::ours(&device, &product, MPS, &inputs, &mut output, 1 << 20, after));
    assert!(times.iter().any(|time| time.share == Share::CommandBuffer(most)));
    watch.assert_clean();
}
