//! Writing small GGUF files.

use crate::Format;
use candlewick_core::DType;

/// A value of the metadata.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // The names say it.
pub enum Item<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(&'a [String]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

/// A GGUF file, version 3, as it grows.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    pairs: u64,
    metadata: Vec<u8>,
    tensors: u64,
    infos: Vec<u8>,
    data: Vec<u8>,
}

const ALIGNMENT: usize = 32;

impl GgufWriter {
    /// Adds a pair to the metadata.
    pub fn put(&mut self, key: &str, item: Item<'_>) {
        self.pairs += 1;
        text(&mut self.metadata, key);
        let out = &mut self.metadata;
        let kind = |out: &mut Vec<u8>, number: u32| out.extend(number.to_le_bytes());
        let array = |out: &mut Vec<u8>, number: u32, len: usize| {
            kind(out, 9);
            kind(out, number);
            out.extend((len as u64).to_le_bytes());
        };
        match item {
            Item::U32(number) => {
                kind(out, 4);
                out.extend(number.to_le_bytes());
            }
            Item::F32(number) => {
                kind(out, 6);
                out.extend(number.to_le_bytes());
            }
            Item::Bool(flag) => {
                kind(out, 7);
                out.push(flag.into());
            }
            Item::Text(string) => {
                kind(out, 8);
                text(out, string);
            }
            Item::Texts(strings) => {
                array(out, 8, strings.len());
                strings.iter().for_each(|string| text(out, string));
            }
            Item::I32s(numbers) => {
                array(out, 5, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Item::F32s(numbers) => {
                array(out, 6, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
        }
    }

    /// Adds a tensor; `dims` in GGUF's order, the fastest first.
    pub fn tensor(&mut self, name: &str, dims: &[usize], format: Format, bytes: &[u8]) {
        self.tensors += 1;
        text(&mut self.infos, name);
        self.infos.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|&dim| self.infos.extend((dim as u64).to_le_bytes()));
        let kind = match format {
            Format::Float(DType::F32) => 0,
            Format::Float(DType::F16) => 1,
            Format::Float(DType::BF16) => 30,
            Format::Float(DType::U32 | DType::U8) => panic!("weights are floats or blocks"),
            Format::Quant(quant) => quant.ggml_type(),
        };
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensors.to_le_bytes());
        file.extend(self.pairs.to_le_bytes());
        file.extend(&self.metadata);
        file.extend(&self.infos);
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&self.data);
        file
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
