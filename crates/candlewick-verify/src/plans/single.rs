//! Plans of one operation: whether it gives the same bits every time.

use crate::case::Case;
use crate::numbers::Numbers;
use crate::trial::Trial;
use candlewick::op::Format;
use candlewick::{Device, Plan, Result};

/// Runs the operation of a case as a plan, twice on the same numbers: what it writes, gaps included, after each run.
///
/// # Errors
/// What the library says.
pub fn operation_results(device: &Device, case: &Case) -> Result<[Vec<Vec<f64>>; 2]> {
    let trial = Trial::new(case)?;
    let operands = case.op.operands()?;
    let (mut plan, (inputs, outputs)) = Plan::record(device, |p| {
        let inputs: Vec<_> = (operands.inputs.iter())
            .map(|operand| match operand.format {
                Format::Packed => p.constant(operand.name, 1, operand.span, operand.dtype),
                Format::Plain => p.input(operand.name, 1, operand.span, operand.dtype),
            })
            .collect();
        let outputs: Vec<_> = (operands.outputs.iter())
            .map(|operand| p.state(operand.name, 1, operand.span, operand.dtype))
            .collect::<Result<_>>()?;
        p.op_into(case.op, &inputs, &outputs)?;
        Ok((inputs, outputs))
    })?;
    for ((&input, tensor), operand) in inputs.iter().zip(trial.inputs()).zip(&operands.inputs) {
        let numbers = Numbers::new(tensor.dtype, tensor.slice());
        match operand.format {
            Format::Packed => numbers.load_into(&mut plan, input)?,
            Format::Plain => numbers.write_into(&mut plan, input)?,
        }
    }
    let mut run = || {
        for (&output, tensor) in outputs.iter().zip(trial.outputs()) {
            Numbers::new(tensor.dtype, tensor.slice()).write_into(&mut plan, output)?;
        }
        plan.run()?;
        let read = |(&output, tensor): (&_, &crate::Tensor)| {
            let mut numbers = Numbers::new(tensor.dtype, &vec![0.0; tensor.span]);
            numbers.read_from(&mut plan, output)?;
            Ok(numbers.to_f64())
        };
        outputs.iter().zip(trial.outputs()).map(read).collect::<Result<Vec<_>>>()
    };
    Ok([run()?, run()?])
}
