//! The real compiler, and no GPU: what it makes of the kernels that operations name.

mod stub;

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{Attention, DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use candlewick_cuda::{Device, Options};
use std::fs;
use stub::Stub;

fn ops(dtype: DType) -> Vec<Op> {
    let lora = LoraLinear::new(32, 512, 512, 8, 2.0, dtype);
    let attention = |tokens, head| Attention { sequences: 4, ..Attention::new(tokens, tokens, 9, 3, head, dtype) };
    vec![
        Softmax::new(32, 512, dtype).into(),
        RmsNorm::new(32, 512, 1e-5, dtype).into(),
        MatMul::new(256, 256, 256, dtype).into(),
        lora.into(),
        LoraLinear { rows: 512, ..lora }.into(),
        LoraLinear::new(1024, 576, 576, 16, 2.0, dtype).into(),
        LoraLinear::new(1024, 576, 1536, 16, 2.0, dtype).into(),
        LoraLinear::new(4096, 576, 576, 16, 2.0, dtype).into(),
        LoraLinear::new(512, 2048, 2048, 32, 2.0, dtype).into(),
        LoraLinear::new(2048, 2048, 2048, 16, 2.0, dtype).into(),
        LoraLinear::new(512, 4096, 4096, 64, 2.0, dtype).into(),
        Op::LoraLinearBackward(lora),
        Op::LoraDeltaBackward(LoraDelta::new(32, 512, 512, 8, 2.0, dtype)),
        Op::LoraDeltaBackward(LoraDelta::new(4096, 512, 512, 16, 2.0, dtype)),
        attention(1024, 64).into(),
        attention(1024, 128).into(),
        Op::AttentionBackward(attention(1024, 64)),
        Op::AttentionBackward(attention(4096, 64)),
        Op::AttentionBackward(attention(1024, 128)),
    ]
}

/// The codes that preparing these operations on every engine leaves on disk.
fn codes(stub: &Stub, options: Options, ops: &[Op]) -> Vec<Vec<u8>> {
    let device = Device::with_options(0, options).unwrap();
    let mut stream = device.stream().unwrap();
    for op in ops {
        for engine in device.engines(op) {
            stream.prepare(op, Some(engine)).unwrap_or_else(|error| panic!("{op} on {engine}: {error}"));
        }
    }
    assert!(device.module_counters().compiled > 0);
    let entries = fs::read_dir(stub.cache()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let codes = entries.map(|entry| entry[88..].to_vec()).collect();
    fs::remove_dir_all(stub.cache()).unwrap();
    codes
}

fn contains(code: &[u8], name: &str) -> bool {
    code.windows(name.len()).any(|part| part == name.as_bytes())
}

#[test]
fn kernels_become_machine_code_for_the_chip_with_the_names_that_are_launched() {
    let Some(stub) = Stub::with_nvrtc() else { return };
    for (capability, dtype) in [((9, 0), DType::BF16), ((8, 0), DType::F16)] {
        stub.set_device(1, capability.0, capability.1);
        let codes = codes(&stub, stub.options(), &ops(dtype));
        assert!(codes.iter().all(|code| code.starts_with(b"\x7fELF")));
        let named = |name: &str| codes.iter().any(|code| contains(code, &format!(".text.{name}_{dtype}")));
        assert!(named("softmax_group") && named("dots_8") && named("product_32"), "{capability:?}");
        let attention: &[&str] = match capability {
            (9, 0) => &["64", "128", "backward_64", "backward_64_few", "backward_128"],
            _ => &["64_mma", "128_mma"],
        };
        for name in attention {
            // A section's name ends with a zero.
            assert!(codes.iter().any(|code| contains(code, &format!(".text.attention_{name}\0"))), "{name}");
        }
    }
}

#[test]
fn a_refused_source_is_shown_as_the_compiler_explains_it() {
    let Some(stub) = Stub::with_nvrtc() else { return };
    stub.set_device(1, 7, 0);
    let device = stub.open();
    // Compiled for an older PTX, or refused with a reason: never a crash.
    if let Err(error) = device.stream().unwrap().prepare(&ops(DType::F32)[0], None) {
        assert!(error.to_string().contains("softmax_f32.cu: NVRTC_ERROR"), "{error}");
    }
}

#[test]
fn dependent_kernels_wait_before_they_load() {
    let Some(stub) = Stub::with_nvrtc() else { return };
    // A chip that no compiler knows gets PTX, which can be read.
    stub.set_device(1, 9, 5);
    let options = || Options { dependent_launch: true, ..stub.options() };
    let codes = codes(&stub, options(), &ops(DType::BF16));
    let mut kernels = 0;
    for code in codes {
        let text = String::from_utf8(code).unwrap();
        for body in text.split(".entry ").skip(1) {
            let name = body.split('(').next().unwrap().to_string();
            let wait = body.find("griddepcontrol.wait").unwrap_or_else(|| panic!("{name} never waits"));
            for access in ["ld.global", "st.global", "cp.async", "atom.global", "red.global"] {
                assert!(body.find(access).is_none_or(|at| at > wait), "{name}: {access} before the wait");
            }
            kernels += 1;
        }
    }
    assert!(kernels > 20, "{kernels}");
}
