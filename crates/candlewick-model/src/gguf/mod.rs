//! GGUF: one file with metadata, tokenizer and weights, after ggml's `docs/gguf.md`.
//!
//! The file is mapped, and opening it checks every length, count, type, shape and offset in it against its size, before
//! anything of that size is allocated. Weights and vocabularies are never copied.

mod cursor;
mod value;

pub use value::{Array, Kind, Value};

use crate::file::Bytes;
use crate::{Error, Format, Result};
use candlewick_core::DType;
use candlewick_core::op::Quant;
use cursor::Cursor;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

/// ggml has no tensors with more (`GGML_MAX_DIMS`).
const MOST_DIMS: u32 = 4;
/// Weights may be aligned to memory pages, even large ones, but not to more.
const MOST_ALIGNMENT: u64 = 1 << 21;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    file: Bytes,
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

/// What the file says of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name, like `blk.0.attn_q.weight`.
    pub name: String,
    /// Its sizes in GGUF's order, the one that varies fastest first: a weight W [out, in] has dims [in, out].
    pub dims: Vec<usize>,
    /// How its numbers are stored.
    pub format: Format,
    /// Where its bytes are in the file.
    bytes: Range<usize>,
}

impl TensorInfo {
    /// Numbers in a row: `in` of a weight W [out, in]; all of a vector.
    pub fn cols(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Rows: `out` of a weight W [out, in]; 1 of a vector.
    pub fn rows(&self) -> usize {
        self.dims.iter().skip(1).product()
    }
}

impl Gguf {
    /// Maps and checks a file. It must not be changed while it is open.
    pub fn open(path: &Path) -> Result<Gguf> {
        Gguf::parse(Bytes::map(path)?)
    }

    /// The same of bytes in memory; `name` stands for the file in messages.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Gguf> {
        Gguf::parse(Bytes::owned(name, bytes))
    }

    fn parse(file: Bytes) -> Result<Gguf> {
        let mut cursor = Cursor { path: file.path(), bytes: &file, at: 0 };
        let version = read_version(&mut cursor)?;
        // The least that a tensor has: name, number of dims, type, offset; and a pair: key, type, value.
        let tensor_count = cursor.count("tensor count", 8 + 4 + 4 + 8)?;
        let pairs = cursor.count("metadata count", 8 + 4 + 1)?;
        let mut metadata = BTreeMap::new();
        for nth in 0..pairs {
            let key = cursor.string(&format!("metadata key {nth}"))?;
            let value = value::read(&mut cursor, key)?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(cursor.damaged(key, "is there twice"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(&Value::Unsigned(alignment)) if alignment.is_power_of_two() && alignment <= MOST_ALIGNMENT => {
                alignment as usize
            }
            Some(_) => return Err(cursor.damaged("general.alignment", "is not a power of two up to 2 MiB")),
        };
        let mut tensors = Vec::with_capacity(tensor_count);
        let mut by_name = HashMap::with_capacity(tensor_count);
        for nth in 0..tensor_count {
            let tensor = read_tensor(&mut cursor, nth, alignment)?;
            if by_name.insert(tensor.name.clone(), nth).is_some() {
                return Err(cursor.damaged(&tensor.name, "is there twice"));
            }
            tensors.push(tensor);
        }
        // The data begins at the next multiple of the alignment; offsets count from there.
        let start = cursor.at.next_multiple_of(alignment);
        for tensor in &mut tensors {
            let place = tensor.bytes.start.checked_add(start).zip(tensor.bytes.end.checked_add(start));
            tensor.bytes = match place {
                Some((from, to)) if to <= file.len() => from..to,
                _ => {
                    let Range { start: from, end: to } = tensor.bytes;
                    let have = file.len().saturating_sub(start);
                    let problem = format!("has bytes {from} to {to} of the data, and the file has {have}: it is cut");
                    return Err(cursor.damaged(&tensor.name, problem));
                }
            };
        }
        Ok(Gguf { version, metadata, tensors, by_name, file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor's description and bytes, if it is there.
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let tensor = &self.tensors[*self.by_name.get(name)?];
        Some((tensor, &self.file[tensor.bytes.clone()]))
    }

    /// A whole number, if the key is there.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.scalar(key, "a whole number", |value| match *value {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        })
    }

    /// A number, if the key is there.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.scalar(key, "a number", |value| match *value {
            Value::Float(number) => Some(number),
            Value::Unsigned(number) => Some(number as f64),
            Value::Signed(number) => Some(number as f64),
            _ => None,
        })
    }

    /// True or false, if the key is there.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.scalar(key, "true or false", |value| match *value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// A string, if the key is there.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.scalar(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An array's strings, if the key is there.
    pub fn strings(&self, key: &str) -> Result<Option<impl ExactSizeIterator<Item = &str>>> {
        let array = self.array(key, "an array of strings", |kind| kind == Kind::String)?;
        Ok(array.map(|array| {
            let mut rest = &self.file[array.bytes.clone()];
            (0..array.len).map(move |_| {
                // Opening the file has walked through these very bytes.
                let (length, after) = rest.split_at(8);
                let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
                let (text, after) = after.split_at(length);
                rest = after;
                std::str::from_utf8(text).expect("checked when the file was opened")
            })
        }))
    }

    /// An array's numbers, if the key is there. Whole numbers beyond 2^53 lose their last digits.
    pub fn floats(&self, key: &str) -> Result<Option<impl ExactSizeIterator<Item = f64>>> {
        let number = |kind| !matches!(kind, Kind::String | Kind::Array | Kind::Bool);
        let array = self.array(key, "an array of numbers", number)?;
        Ok(array.map(|array| {
            let mut cursor = Cursor { path: self.path(), bytes: &self.file[array.bytes.clone()], at: 0 };
            (0..array.len).map(move |_| match value::read_number(&mut cursor, array.kind, "array") {
                Ok(Value::Float(number)) => number,
                Ok(Value::Unsigned(number)) => number as f64,
                Ok(Value::Signed(number)) => number as f64,
                _ => unreachable!("checked when the file was opened"),
            })
        }))
    }

    fn scalar<'a, T>(&'a self, key: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let read = read(value);
        read.map(Some).ok_or_else(|| Error::damaged(self.path(), key, format!("is not {what}")))
    }

    fn array(&self, key: &str, what: &str, takes: impl FnOnce(Kind) -> bool) -> Result<Option<&Array>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if takes(array.kind) => Ok(Some(array)),
            Some(_) => Err(Error::damaged(self.path(), key, format!("is not {what}"))),
        }
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    if cursor.array::<4>("magic")? != *b"GGUF" {
        return Err(cursor.damaged("magic", "is not \"GGUF\": this is another kind of file"));
    }
    let version = cursor.u32("version")?;
    match version {
        2 | 3 => Ok(version),
        _ if version.swap_bytes() <= 3 => {
            let remedy = "convert the model on a little-endian machine";
            Err(Error::unsupported(cursor.path, "version", "big-endian", remedy))
        }
        _ => Err(Error::unsupported(cursor.path, "version", version, "versions 2 and 3 are: convert the model anew")),
    }
}

/// A tensor's description; its bytes are still relative to the data's start.
fn read_tensor(cursor: &mut Cursor<'_>, nth: usize, alignment: usize) -> Result<TensorInfo> {
    let name = cursor.string(&format!("name of tensor {nth}"))?;
    let dim_count = cursor.u32(name)?;
    if !(1..=MOST_DIMS).contains(&dim_count) {
        return Err(cursor.damaged(name, format!("has {dim_count} dimensions, not 1 to {MOST_DIMS}")));
    }
    let mut dims = Vec::with_capacity(dim_count as usize);
    for _ in 0..dim_count {
        dims.push(cursor.length(name)?);
    }
    let format = match cursor.u32(name)? {
        0 => Format::Float(DType::F32),
        1 => Format::Float(DType::F16),
        30 => Format::Float(DType::BF16),
        number => match Quant::from_ggml_type(number) {
            Some(quant) => Format::Quant(quant),
            None => {
                let remedy = "quantise the model as f32, f16, bf16, Q4_0, Q4_1, Q8_0, Q4_K or Q6_K";
                return Err(Error::unsupported(cursor.path, format!("type of {name}"), type_name(number), remedy));
            }
        },
    };
    let offset = cursor.length(name)?;
    let [cols, rows @ ..] = dims.as_slice() else { unreachable!("at least one dimension") };
    let rows = rows.iter().try_fold(1usize, |rows, &dim| rows.checked_mul(dim));
    let bytes = rows.zip(format.row_bytes(*cols)).and_then(|(rows, row)| rows.checked_mul(row));
    match bytes.and_then(|bytes| offset.checked_add(bytes)) {
        Some(end) if end > offset && offset.is_multiple_of(alignment) => {
            Ok(TensorInfo { name: name.to_owned(), dims, format, bytes: offset..end })
        }
        Some(end) if end > offset => {
            Err(cursor.damaged(name, format!("begins at {offset}, not a multiple of the alignment {alignment}")))
        }
        _ => Err(cursor.damaged(name, format!("cannot have dims {dims:?} of {format} at offset {offset}"))),
    }
}

/// What ggml calls the types of tensors that are not read here (`ggml_type` in `ggml.h`).
fn type_name(number: u32) -> String {
    let name = match number {
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        13 => "Q5_K",
        15 => "Q8_K",
        16..=23 | 29 => return format!("IQ (type {number})"),
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("type {number}"),
    };
    name.to_owned()
}
