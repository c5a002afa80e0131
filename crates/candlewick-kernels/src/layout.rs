//! The parameter structures here equal those of the kernels, read from the kernels' text.

use crate::File;
use crate::program::{Layout, MAX_PARAM_BYTES};

/// Name, Rust type and offset of each field of a structure in a kernel's text, laid out as C++ does, and its size.
fn fields(text: &str, name: &str) -> (Vec<(String, String, usize)>, usize) {
    let start = text.find(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no struct {name}"));
    let body = &text[start..];
    let body = &body[body.find('\n').unwrap()..body.find("};").unwrap()];
    let (mut at, mut most, mut fields) = (0usize, 1, Vec::new());
    for line in body.lines().filter(|line| !line.trim().is_empty()) {
        let declaration = line.split(';').next().unwrap().trim();
        let (kind, field) = declaration.split_once(' ').unwrap();
        let bytes = match kind {
            "u64" => 8,
            "u32" | "f32" => 4,
            _ => panic!("{kind} of {name}.{field} is not a type of parameters"),
        };
        let (field, count) = match field.split_once('[') {
            Some((field, count)) => (field, Some(count.trim_end_matches(']').parse::<usize>().unwrap())),
            None => (field, None),
        };
        at = at.next_multiple_of(bytes);
        let rust = count.map_or(kind.to_owned(), |count| format!("[{kind}; {count}]"));
        fields.push((field.to_owned(), rust, at));
        at += bytes * count.unwrap_or(1);
        most = most.max(bytes);
    }
    (fields, at.next_multiple_of(most))
}

fn check<T: Layout>(file: File) {
    let shared: String = file.shared().iter().map(|(_, text)| *text).collect();
    let (theirs, size) = fields(&format!("{shared}{}", file.text()), T::NAME);
    let ours: Vec<_> = T::FIELDS.iter().map(|(name, kind, at)| (name.to_string(), kind.to_string(), *at)).collect();
    assert_eq!(ours, theirs, "{} in {}.h", T::NAME, file.name());
    assert_eq!(size_of::<T>(), size, "{}", T::NAME);
    assert!(size <= MAX_PARAM_BYTES, "{} has {size} bytes", T::NAME);
}

#[test]
fn parameters_lie_as_the_kernels_read_them() {
    check::<crate::softmax::SoftmaxParams>(File::Softmax);
    check::<crate::rms_norm::RmsNormParams>(File::RmsNorm);
    check::<crate::product::ProductParams>(File::Product);
    check::<crate::product::ProductSumParams>(File::Product);
    check::<crate::dots::DotsParams>(File::Dots);
    check::<crate::columns::ColumnsParams>(File::Columns);
    check::<crate::linear::LinearParams>(File::Linear);
    check::<crate::lora::LoraUpParams>(File::Lora);
    check::<crate::lora::LoraLayerParams>(File::Lora);
    check::<crate::lora_rows::LoraRowsParams>(File::LoraRows);
    check::<crate::copy::CopyParams>(File::Copy);
    check::<crate::add::AddParams>(File::Add);
    check::<crate::silu_mul::SiluMulParams>(File::SiluMul);
    check::<crate::cast::CastParams>(File::Cast);
    check::<crate::dropout::DropoutParams>(File::Dropout);
    check::<crate::embedding::EmbeddingParams>(File::Embedding);
    check::<crate::copy_rows::CopyRowsParams>(File::CopyRows);
    check::<crate::rope::RopeParams>(File::Rope);
    check::<crate::cross_entropy::CrossEntropyParams>(File::CrossEntropy);
    check::<crate::adamw::SumSquaresParams>(File::AdamW);
    check::<crate::adamw::AdamWParams>(File::AdamW);
    check::<crate::quant::QuantParams>(File::Quant);
    check::<crate::attention::AttentionParams>(File::Attention);
}

#[test]
fn the_reader_of_structures_sees_types_order_and_padding() {
    let text = "struct P {\n    u32 a; // one\n    u64 b[2];\n    f32 c;\n};\n";
    let expected = [("a", "u32", 0), ("b", "[u64; 2]", 8), ("c", "f32", 24)];
    let (found, size) = fields(text, "P");
    assert_eq!(found, expected.map(|(name, kind, at)| (name.to_owned(), kind.to_owned(), at)));
    assert_eq!(size, 32);
}
