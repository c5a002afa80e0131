//! `candlewick devices`: what is here, what it can run, and the rates that nothing here exceeds.

use crate::args::DevicesArgs;
use crate::dispatch::origin;
use candlewick::op::{
    AdamW, Add, Attention, Cast, CopyRows, CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, Dequantize, Dropout,
    Embedding, LoraRows, OpClass, Quant, QuantLinear, Rope, SiluMul, SumSquares,
};
use candlewick::profile::Profile;
use candlewick::{
    DType, Device, DeviceInfo, Engine, Limits, LoraDelta, LoraLinear, MatMul, Op, Result, RmsNorm, Softmax,
};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

/// Operations, each with its dtypes.
type Offers = Vec<(OpClass, Vec<DType>)>;

/// A device with all that is printed about it.
struct Report {
    info: DeviceInfo,
    /// Where the dispatcher's choices come from.
    choices: String,
    offers: Vec<(Engine, Offers)>,
    /// With one thread, and with all where there are more.
    limits: Vec<Limits>,
}

pub(crate) fn run(args: &DevicesArgs) -> ExitCode {
    let reports: Result<Vec<Report>> = Device::all().iter().map(report).collect();
    match reports {
        Ok(reports) => {
            // Whoever closes the pipe has read enough.
            let _ = if args.json { print_json(&reports) } else { print(&reports) };
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(device: &Device) -> Result<Report> {
    let info = device.info();
    let offers = info.engines.iter().map(|&engine| (engine, offers(device, engine))).collect();
    let one = device.measure_limits(1)?;
    let all = device.measure_limits(usize::MAX)?;
    let limits = if all.threads > one.threads { vec![one, all] } else { vec![one] };
    let choices = origin(&info, Profile::of(&info).as_ref());
    Ok(Report { info, choices, offers, limits })
}

fn offers(device: &Device, engine: Engine) -> Offers {
    let runs = |class, dtype| device.engines(example(class, dtype)).contains(&engine);
    let dtypes = |class| DType::ALL.into_iter().filter(|&dtype| runs(class, dtype)).collect::<Vec<_>>();
    let classes = OpClass::ALL.into_iter().map(|class| (class, dtypes(class)));
    classes.filter(|(_, dtypes)| !dtypes.is_empty()).collect()
}

/// An operation of each class, of an ordinary size.
fn example(class: OpClass, dtype: DType) -> Op {
    let softmax = Softmax::new(64, 64, dtype);
    let norm = RmsNorm::new(64, 64, 1e-5, dtype);
    let linear = LoraLinear::new(64, 64, 64, 8, 1.0, dtype);
    let delta = LoraDelta::new(64, 64, 64, 8, 1.0, dtype);
    match class {
        OpClass::Softmax => Op::Softmax(softmax),
        OpClass::SoftmaxBackward => Op::SoftmaxBackward(softmax),
        OpClass::RmsNorm => Op::RmsNorm(norm),
        OpClass::RmsNormBackward => Op::RmsNormBackward(norm),
        OpClass::LoraLinear => Op::LoraLinear(linear),
        OpClass::LoraLinearBackward => Op::LoraLinearBackward(linear),
        OpClass::LoraDelta => Op::LoraDelta(delta),
        OpClass::LoraDeltaBackward => Op::LoraDeltaBackward(delta),
        OpClass::MatMul => Op::MatMul(MatMul::new(64, 64, 64, dtype)),
        class => model_example(class, dtype),
    }
}

/// Of the operations that models need.
fn model_example(class: OpClass, dtype: DType) -> Op {
    let attention = Attention::new(64, 64, 4, 2, 64, dtype);
    match class {
        OpClass::LoraRows => Op::LoraRows(LoraRows::new(64, 64, 64, 8, 16, dtype)),
        OpClass::Embedding => Op::Embedding(Embedding::new(64, 1000, 64, dtype)),
        OpClass::EmbeddingBackward => Op::EmbeddingBackward(Embedding::new(64, 1000, 64, dtype)),
        OpClass::Rope => Op::Rope(Rope::new(64, 4, 64, dtype)),
        OpClass::RopeBackward => Op::RopeBackward(Rope::new(64, 4, 64, dtype)),
        OpClass::Attention => Op::Attention(attention),
        OpClass::AttentionBackward => Op::AttentionBackward(attention),
        OpClass::SiluMul => Op::SiluMul(SiluMul::new(64, 64, dtype)),
        OpClass::SiluMulBackward => Op::SiluMulBackward(SiluMul::new(64, 64, dtype)),
        OpClass::Add => Op::Add(Add::new(64, 64, dtype)),
        OpClass::Cast => Op::Cast(Cast::new(64, DType::F32, dtype)),
        OpClass::Dropout => Op::Dropout(Dropout::new(64, 64, 0.1, 0, dtype)),
        OpClass::CrossEntropyStats => Op::CrossEntropyStats(CrossEntropyStats::new(64, 1000, dtype)),
        OpClass::CrossEntropyLoss => Op::CrossEntropyLoss(CrossEntropyLoss::new(64, 1000)),
        OpClass::CrossEntropyGrad => Op::CrossEntropyGrad(CrossEntropyGrad::new(64, 1000, dtype)),
        OpClass::SumSquares => Op::SumSquares(SumSquares::new(64, dtype)),
        OpClass::AdamW => Op::AdamW(AdamW::new(64, dtype)),
        OpClass::CopyRows => Op::CopyRows(CopyRows::new(64, 64, 64, dtype)),
        OpClass::Dequantize => Op::Dequantize(Dequantize::new(64, 256, Quant::Q4_0, dtype)),
        OpClass::QuantLinear => Op::QuantLinear(QuantLinear::new(64, 256, 64, Quant::Q4_0, dtype)),
        class => unreachable!("a new operation wants an example here: {class}"),
    }
}

fn print(reports: &[Report]) -> io::Result<()> {
    let to = &mut io::stdout().lock();
    for report in reports {
        writeln!(to, "{}  {}", report.info.id, report.info.name)?;
        let facts = report.info.facts.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let choices = ("engines chosen by".to_owned(), report.choices.clone());
        write_pairs(to, &facts.chain([choices]).collect::<Vec<_>>())?;
        writeln!(to, "\n  engines")?;
        let offers = report.offers.iter().map(|(engine, offers)| (engine.to_string(), summary(offers)));
        write_pairs(to, &offers.collect::<Vec<_>>())?;
        write_limits(to, &report.limits)?;
        writeln!(to)?;
    }
    for (_, reason) in Device::absent() {
        writeln!(to, "{reason}")?;
    }
    Ok(())
}

fn write_pairs(to: &mut impl Write, pairs: &[(String, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().try_for_each(|(name, value)| writeln!(to, "  {name:<width$}  {value}"))
}

/// Operations with the same dtypes together: `every operation in f32, f16, bf16`.
fn summary(offers: &[(OpClass, Vec<DType>)]) -> String {
    let mut groups: Vec<(&[DType], Vec<&str>)> = Vec::new();
    for (class, dtypes) in offers {
        match groups.iter_mut().find(|(known, _)| known == dtypes) {
            Some((_, classes)) => classes.push(class.name()),
            None => groups.push((dtypes, vec![class.name()])),
        }
    }
    let print = |(dtypes, classes): (&[DType], Vec<&str>)| {
        let classes = if classes.len() == OpClass::ALL.len() { "every operation".into() } else { classes.join(", ") };
        format!("{classes} in {}", dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", "))
    };
    groups.into_iter().map(print).collect::<Vec<_>>().join("; ")
}

/// A column per number of threads.
fn write_limits(to: &mut impl Write, limits: &[Limits]) -> io::Result<()> {
    let Some(first) = limits.first() else { return Ok(()) };
    write!(to, "\n  {:<18}", "measured limits")?;
    for limits in limits {
        write!(
            to,
            "{:>14}",
            if limits.threads == 1 { "1 thread".into() } else { format!("{} threads", limits.threads) }
        )?;
    }
    writeln!(to)?;
    for (i, (dtype, _)) in first.flops.iter().enumerate() {
        write!(to, "  {:<18}", format!("GFLOP/s {dtype}"))?;
        limits.iter().try_for_each(|limits| write!(to, "{:>14.0}", limits.flops[i].1 / 1e9))?;
        writeln!(to)?;
    }
    for (i, &(size, _)) in first.bandwidth.iter().enumerate() {
        write!(to, "  {:<18}", format!("GB/s of {}", bytes(size)))?;
        for limits in limits {
            let rate = limits.bandwidth.get(i).map_or(f64::NAN, |(_, rate)| rate / 1e9);
            write!(to, "{rate:>14.0}")?;
        }
        writeln!(to)?;
    }
    write!(to, "  {:<18}", "us to wake them")?;
    limits.iter().try_for_each(|limits| write!(to, "{:>14.1}", limits.wake * 1e6))?;
    writeln!(to)?;
    Ok(())
}

fn bytes(size: f64) -> String {
    match size {
        size if size >= 1_073_741_824.0 => format!("{:.0} GiB", size / 1_073_741_824.0),
        size if size >= 1_048_576.0 => format!("{:.0} MiB", size / 1_048_576.0),
        size => format!("{:.0} KiB", size / 1024.0),
    }
}

fn print_json(reports: &[Report]) -> io::Result<()> {
    let devices: Vec<Value> = reports.iter().map(as_json).collect();
    let absent = Device::absent().into_iter().map(|(id, reason)| json!({ "id": id, "reason": reason.to_string() }));
    let absent: Vec<Value> = absent.collect();
    let all = json!({ "devices": devices, "absent": absent });
    writeln!(io::stdout().lock(), "{all:#}")
}

fn as_json(report: &Report) -> Value {
    let DeviceInfo { id, name, facts, asynchronous, .. } = &report.info;
    let facts: serde_json::Map<String, Value> =
        facts.iter().map(|(name, value)| (name.to_string(), value.clone().into())).collect();
    let offers = |offers: &[(OpClass, Vec<DType>)]| -> serde_json::Map<String, Value> {
        let names = |dtypes: &[DType]| dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>();
        offers.iter().map(|(class, dtypes)| (class.name().to_string(), json!(names(dtypes)))).collect()
    };
    let engines: Vec<Value> = report
        .offers
        .iter()
        .map(|(engine, operations)| json!({ "engine": engine.to_string(), "operations": offers(operations) }))
        .collect();
    let limits: Vec<Value> = report
        .limits
        .iter()
        .map(|limits| {
            let flops: serde_json::Map<String, Value> =
                limits.flops.iter().map(|(dtype, rate)| (dtype.name().to_string(), json!(rate))).collect();
            let bandwidth: Vec<Value> = limits
                .bandwidth
                .iter()
                .map(|(size, rate)| json!({ "bytes": size, "bytes_per_second": rate }))
                .collect();
            let (threads, wake) = (limits.threads, limits.wake);
            json!({ "threads": threads, "flops_per_second": flops, "bandwidth": bandwidth, "wake_seconds": wake })
        })
        .collect();
    json!({ "id": id, "name": name, "facts": facts, "asynchronous": asynchronous, "choices": report.choices,
            "engines": engines, "limits": limits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_with_the_same_dtypes_share_a_phrase() {
        let all = OpClass::ALL.map(|class| (class, DType::ALL.to_vec()));
        assert_eq!(summary(&all), "every operation in f32, f16, bf16");
        let some = [(OpClass::MatMul, vec![DType::BF16]), (OpClass::LoraDelta, vec![DType::BF16])];
        assert_eq!(summary(&some), "matmul, lora_delta in bf16");
    }

    #[test]
    fn every_class_has_an_example_of_its_own() {
        for class in OpClass::ALL {
            assert_eq!(example(class, DType::F16).class(), class);
        }
    }
}
