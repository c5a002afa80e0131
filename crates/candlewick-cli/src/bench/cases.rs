//! What is measured: operations, passes and shapes.

use candlewick::{DType, Limits, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use std::fmt;
use std::str::FromStr;

/// An operation without its pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of `candlewick::Op`.
pub enum Family {
    MatMul,
    Softmax,
    RmsNorm,
    LoraLinear,
    LoraDelta,
}

/// What is timed of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The operation.
    Forward,
    /// Its gradients, from stored operands.
    Backward,
    /// Both, one after the other: what Candle can be compared with, whose backward cannot be called alone.
    Both,
}

/// Sizes: m, n, k of a product, rows and columns, or rows, in, out with a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Separated by `x`.
    pub sizes: Vec<usize>,
    /// After `r`, for LoRA.
    pub rank: Option<usize>,
}

/// One line of a table, for every engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The operation ..
    pub family: Family,
    /// .. and what is timed of it.
    pub pass: Pass,
    /// Fits the family.
    pub shape: Shape,
    /// Of every operand.
    pub dtype: DType,
}

/// Factor of the LoRA delta: alpha / rank, as with the usual alpha of twice the rank.
pub const LORA_SCALE: f32 = 2.0;
/// Added to the mean square by RMSNorm.
pub const EPS: f32 = 1e-6;

const FAMILIES: [Family; 5] = [Family::MatMul, Family::Softmax, Family::RmsNorm, Family::LoraLinear, Family::LoraDelta];
const PASSES: [Pass; 3] = [Pass::Forward, Pass::Backward, Pass::Both];

const ROWS: &[&str] = &["32x512", "128x4096", "4096x4096"];

/// The built-in shapes: those of the peers' published figures. 512 rows of a large layer are for GPUs: a CPU would take most
/// of a second for each.
fn shapes(family: Family, pass: Pass, gpu: bool) -> Vec<&'static str> {
    let mut shapes = shapes_anywhere(family, pass).to_vec();
    if gpu && (family, pass) == (Family::LoraLinear, Pass::Forward) {
        shapes.push("512x4096x4096r16");
    }
    shapes
}

fn shapes_anywhere(family: Family, pass: Pass) -> &'static [&'static str] {
    match (family, pass) {
        (Family::MatMul, _) => &["64x64x64", "128x128x128", "256x256x256", "512x512x512", "1024x1024x1024"],
        (Family::Softmax | Family::RmsNorm, _) => ROWS,
        (Family::LoraLinear, Pass::Both) => &["32x512x512r8", "256x512x512r8"],
        (Family::LoraLinear, _) => &["32x512x512r8", "64x1024x1024r16", "128x2048x2048r32", "1x4096x4096r16"],
        (Family::LoraDelta, Pass::Both) => &["32x512x512r8", "256x512x512r8"],
        (Family::LoraDelta, _) => &["1x512x512r8", "8x512x512r8", "32x512x512r8", "64x512x512r8", "256x512x512r8"],
    }
}

/// What `--quick` keeps of the built-in shapes.
const QUICK: [&str; 7] =
    ["64x64x64", "512x512x512", "128x4096", "1x512x512r8", "32x512x512r8", "64x1024x1024r16", "256x512x512r8"];

/// Every operation's name, in the order of the tables.
pub fn op_names() -> Vec<&'static str> {
    PASSES.iter().flat_map(|&pass| FAMILIES.map(|family| op_name(family, pass))).collect()
}

fn op_name(family: Family, pass: Pass) -> &'static str {
    let names = match family {
        Family::MatMul => ["matmul", "matmul_backward", "matmul+backward"],
        Family::Softmax => ["softmax", "softmax_backward", "softmax+backward"],
        Family::RmsNorm => ["rms_norm", "rms_norm_backward", "rms_norm+backward"],
        Family::LoraLinear => ["lora_linear", "lora_linear_backward", "lora_linear+backward"],
        Family::LoraDelta => ["lora_delta", "lora_delta_backward", "lora_delta+backward"],
    };
    names[pass as usize]
}

fn op_named(name: &str) -> Option<(Family, Pass)> {
    let every = PASSES.into_iter().flat_map(|pass| FAMILIES.map(|family| (family, pass)));
    every.into_iter().find(|&(family, pass)| op_name(family, pass) == name)
}

/// The cases that the flags select, grouped by operation; a GPU has more built-in shapes.
///
/// # Errors
/// A shape that fits none of the operations.
pub fn select(
    ops: &[String],
    shapes_wanted: &[Shape],
    dtypes: &[DType],
    quick: bool,
    gpu: bool,
) -> Result<Vec<Case>, String> {
    // A quick look without a wish is the forwards, and the training step of the LoRA layer.
    let kept = |family, pass| {
        ops.iter().any(|op| op == op_name(family, pass))
            || ops.is_empty() && (!quick || pass == Pass::Forward || (family, pass) == (Family::LoraLinear, Pass::Both))
    };
    let selected: Vec<(Family, Pass)> = PASSES
        .into_iter()
        .flat_map(|pass| FAMILIES.map(|family| (family, pass)))
        .filter(|&(family, pass)| kept(family, pass))
        .collect();
    for shape in shapes_wanted {
        if !selected.iter().any(|&(family, _)| shape.fits(family)) {
            return Err(no_fit(shape, &selected, gpu));
        }
    }
    let mut cases = Vec::new();
    for (family, pass) in selected {
        let built_in = || {
            let all = shapes(family, pass, gpu);
            let kept = all.iter().filter(|shape| !quick || QUICK.contains(shape));
            kept.map(|shape| shape.parse().expect("the table holds shapes")).collect()
        };
        let shapes: Vec<Shape> = match shapes_wanted {
            [] => built_in(),
            wanted => wanted.iter().filter(|shape| shape.fits(family)).cloned().collect(),
        };
        for &dtype in dtypes {
            cases.extend(shapes.iter().map(|shape| Case { family, pass, shape: shape.clone(), dtype }));
        }
    }
    Ok(cases)
}

fn no_fit(shape: &Shape, selected: &[(Family, Pass)], gpu: bool) -> String {
    let mut message = format!("the shape {shape} fits none of the operations asked for. These have, for example:");
    for &(family, pass) in selected {
        message += &format!("\n  {:22} {}", op_name(family, pass), shapes(family, pass, gpu).join(", "));
    }
    message
}

impl Case {
    /// `lora_linear+backward`.
    pub fn op_name(&self) -> &'static str {
        op_name(self.family, self.pass)
    }

    /// The operations of the forward pass and those of the backward pass, W packed where there is a frozen one.
    pub fn ops(&self) -> (Vec<Op>, Vec<Op>) {
        let (forward, backward) = match self.family {
            Family::MatMul => {
                let op = self.matmul();
                (Op::from(op), vec![op.grad_a().op.into(), op.grad_b().op.into()])
            }
            Family::Softmax => (self.softmax().into(), vec![Op::SoftmaxBackward(self.softmax())]),
            Family::RmsNorm => (self.rms_norm().into(), vec![Op::RmsNormBackward(self.rms_norm())]),
            Family::LoraLinear => {
                let op = self.lora_linear().packed();
                (op.into(), vec![Op::LoraLinearBackward(op)])
            }
            Family::LoraDelta => (self.lora_delta().into(), vec![Op::LoraDeltaBackward(self.lora_delta())]),
        };
        match self.pass {
            Pass::Forward => (vec![forward], vec![]),
            Pass::Backward => (vec![], backward),
            Pass::Both => (vec![forward], backward),
        }
    }

    /// The product. Of other families, nothing sensible.
    pub fn matmul(&self) -> MatMul {
        MatMul::new(self.size(0), self.size(1), self.size(2), self.dtype)
    }

    /// The softmax.
    pub fn softmax(&self) -> Softmax {
        Softmax::new(self.size(0), self.size(1), self.dtype)
    }

    /// The RMSNorm.
    pub fn rms_norm(&self) -> RmsNorm {
        RmsNorm::new(self.size(0), self.size(1), EPS, self.dtype)
    }

    /// The LoRA layer, W plain.
    pub fn lora_linear(&self) -> LoraLinear {
        LoraLinear::new(self.size(0), self.size(1), self.size(2), self.rank(), LORA_SCALE, self.dtype)
    }

    /// The LoRA delta.
    pub fn lora_delta(&self) -> LoraDelta {
        LoraDelta::new(self.size(0), self.size(1), self.size(2), self.rank(), LORA_SCALE, self.dtype)
    }

    fn size(&self, i: usize) -> usize {
        self.shape.sizes.get(i).copied().unwrap_or(0)
    }

    fn rank(&self) -> usize {
        self.shape.rank.unwrap_or(0)
    }

    fn sum(&self, of: impl Fn(&Op) -> f64) -> f64 {
        let (forward, backward) = self.ops();
        forward.iter().chain(&backward).map(of).sum()
    }

    /// Floating-point operations.
    pub fn flops(&self) -> f64 {
        self.sum(Op::flops)
    }

    /// The least bytes moved.
    pub fn bytes(&self) -> f64 {
        self.sum(Op::bytes)
    }

    /// The least seconds that the machine can take.
    pub fn limit_seconds(&self, limits: &Limits) -> f64 {
        self.sum(|op| limits.seconds(op))
    }

    /// Whether data rather than arithmetic is what these operations are about.
    pub fn moves_data(&self) -> bool {
        matches!(self.family, Family::Softmax | Family::RmsNorm)
    }

    /// What the numbers of its shape are.
    pub fn shape_meaning(&self) -> &'static str {
        match self.family {
            Family::MatMul => "m x n x k",
            Family::Softmax | Family::RmsNorm => "rows x columns",
            Family::LoraLinear => "rows x in x out, rank; W frozen, packed once",
            Family::LoraDelta => "rows x in x out, rank; without the base product",
        }
    }

    /// How many matrix products a library without a fused LoRA layer makes of it.
    pub fn products(&self) -> usize {
        let forward = match self.family {
            Family::MatMul => 1,
            Family::Softmax | Family::RmsNorm => 0,
            Family::LoraLinear => 3,
            Family::LoraDelta => 2,
        };
        match self.pass {
            Pass::Forward => forward,
            Pass::Backward => 2 * forward,
            Pass::Both => 3 * forward,
        }
    }
}

impl Shape {
    fn fits(&self, family: Family) -> bool {
        match family {
            Family::MatMul => self.sizes.len() == 3 && self.rank.is_none(),
            Family::Softmax | Family::RmsNorm => self.sizes.len() == 2 && self.rank.is_none(),
            Family::LoraLinear | Family::LoraDelta => self.sizes.len() == 3 && self.rank.is_some(),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LARGEST: usize = 1 << 20;
        const MOST_ELEMENTS: usize = 1 << 28;
        let wrong = || {
            format!(
                "a shape is 64x64x64 (matmul, m x n x k), 128x4096 (softmax and rms_norm, rows x columns) or \
                 32x512x512r8 (LoRA, rows x in x out with a rank), each size from 1 to {LARGEST}, \
                 and no matrix of more than {MOST_ELEMENTS} elements"
            )
        };
        let number =
            |text: &str| text.trim().parse().ok().filter(|size| (1..=LARGEST).contains(size)).ok_or_else(wrong);
        let (sizes, rank) = match text.split_once('r') {
            Some((sizes, rank)) => (sizes, Some(number(rank)?)),
            None => (text, None),
        };
        let sizes = sizes.split('x').map(number).collect::<Result<Vec<_>, _>>()?;
        let shape = Shape { sizes, rank };
        let mut sides: Vec<usize> = shape.sizes.iter().copied().chain(shape.rank).collect();
        sides.sort_unstable();
        let largest: usize = sides.iter().rev().take(2).product();
        let fits = largest <= MOST_ELEMENTS && FAMILIES.iter().any(|&family| shape.fits(family));
        if fits { Ok(shape) } else { Err(wrong()) }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes.iter().map(usize::to_string).collect();
        let rank = self.rank.map_or_else(String::new, |rank| format!(" r{rank}"));
        f.pad(&(sizes.join("x") + &rank))
    }
}

/// `lora_linear 32x512x512 r8 f32`: also how cases travel to a peer.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.op_name(), self.shape, self.dtype)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (op, rest) = text.split_once(' ')?;
            let (shape, dtype) = rest.rsplit_once(' ')?;
            Some((op_named(op)?, shape, DType::ALL.into_iter().find(|known| known.name() == dtype)?))
        };
        let ((family, pass), shape, dtype) = parts().ok_or_else(|| format!("not a case: {text}"))?;
        let shape: Shape = shape.parse()?;
        if shape.fits(family) { Ok(Case { family, pass, shape, dtype }) } else { Err(format!("not a case: {text}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_printed() {
        for text in ["64x64x64", "128x4096", "32x512x512 r8"] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), text);
        }
        assert_eq!("32x512x512r8".parse::<Shape>().unwrap().rank, Some(8));
        for wrong in [
            "",
            "64",
            "0x1",
            "1x2x3x4",
            "32x512r8",
            "axb",
            "64x64x",
            "1048576x1048576",
            "9999999999999999999999x1",
            "4x4x4r",
        ] {
            assert!(wrong.parse::<Shape>().unwrap_err().contains("64x64x64"), "{wrong}");
        }
    }

    #[test]
    fn cases_travel_as_text() {
        for case in select(&[], &[], &DType::ALL, false, true).unwrap() {
            assert_eq!(case.to_string().parse::<Case>().unwrap(), case);
        }
        assert!("matmul 128x4096 f32".parse::<Case>().is_err());
    }

    #[test]
    fn filters_keep_what_fits() {
        let shape = |text: &str| text.parse::<Shape>().unwrap();
        let ops = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let some = select(&ops(&["matmul", "softmax"]), &[shape("3x5x7")], &[DType::F32], false, false).unwrap();
        assert_eq!(some.iter().map(Case::to_string).collect::<Vec<_>>(), ["matmul 3x5x7 f32"]);
        let error = select(&ops(&["softmax"]), &[shape("3x5x7")], &[DType::F32], false, false).unwrap_err();
        assert!(error.contains("128x4096"), "{error}");
        let quick = select(&[], &[], &[DType::F32], true, false).unwrap();
        assert!((8..20).contains(&quick.len()), "{}", quick.len());
        for (family, pass) in PASSES.into_iter().flat_map(|pass| FAMILIES.map(|family| (family, pass))) {
            assert!(!select(&ops(&[op_name(family, pass)]), &[], &[DType::F32], true, false).unwrap().is_empty());
        }
    }

    #[test]
    fn a_gpu_gets_the_large_layer() {
        let layers = |gpu| {
            let cases = select(&["lora_linear".into()], &[], &[DType::BF16], false, gpu).unwrap();
            cases.iter().map(|case| case.shape.to_string()).collect::<Vec<_>>()
        };
        assert!(layers(true).ends_with(&["1x4096x4096 r16".into(), "512x4096x4096 r16".into()]), "{:?}", layers(true));
        assert!(!layers(false).contains(&"512x4096x4096 r16".into()));
    }

    #[test]
    fn both_passes_cost_their_sum() {
        let cost = |op: &str| format!("{op} 32x512x512r8 f32").parse::<Case>().unwrap().flops();
        assert_eq!(cost("lora_linear+backward"), cost("lora_linear") + cost("lora_linear_backward"));
    }
}
