//! The values of a GGUF file's metadata.

use super::cursor::Cursor;
use crate::Result;
use std::ops::Range;

/// What kind a value is, and its number in the file (`gguf_type` in ggml's `gguf.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Kind; 13] = {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }

    /// Bytes of a value; of a string or an array, the least that one has.
    fn least_bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number of any width without a sign.
    Unsigned(u64),
    /// A whole number of any width with a sign.
    Signed(i64),
    /// A float of either width.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A string.
    String(String),
    /// Many values, which stay in the file: see [`super::Gguf::strings`] and its neighbours.
    Array(Array),
}

/// An array in the file, checked but not copied: a vocabulary has more bytes than everything else before the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Of its elements.
    pub kind: Kind,
    /// How many there are.
    pub len: usize,
    /// Where they are in the file.
    pub(super) bytes: Range<usize>,
}

/// Arrays in arrays deeper than this are nobody's model.
const DEEPEST: usize = 4;

pub(super) fn read(cursor: &mut Cursor<'_>, field: &str) -> Result<Value> {
    let kind = read_kind(cursor, field)?;
    Ok(match kind {
        Kind::Array => Value::Array(read_array(cursor, field, DEEPEST)?),
        Kind::String => Value::String(cursor.string(field)?.to_owned()),
        kind => read_number(cursor, kind, field)?,
    })
}

fn read_kind(cursor: &mut Cursor<'_>, field: &str) -> Result<Kind> {
    let number = cursor.u32(field)?;
    Kind::from_number(number).ok_or_else(|| cursor.damaged(field, format!("{number} is no type of value")))
}

/// A value that is neither a string nor an array.
pub(super) fn read_number(cursor: &mut Cursor<'_>, kind: Kind, field: &str) -> Result<Value> {
    Ok(match kind {
        Kind::U8 => Value::Unsigned(u8::from_le_bytes(cursor.array(field)?).into()),
        Kind::I8 => Value::Signed(i8::from_le_bytes(cursor.array(field)?).into()),
        Kind::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array(field)?).into()),
        Kind::I16 => Value::Signed(i16::from_le_bytes(cursor.array(field)?).into()),
        Kind::U32 => Value::Unsigned(cursor.u32(field)?.into()),
        Kind::I32 => Value::Signed(i32::from_le_bytes(cursor.array(field)?).into()),
        Kind::F32 => Value::Float(f32::from_le_bytes(cursor.array(field)?).into()),
        Kind::U64 => Value::Unsigned(cursor.u64(field)?),
        Kind::I64 => Value::Signed(i64::from_le_bytes(cursor.array(field)?)),
        Kind::F64 => Value::Float(f64::from_le_bytes(cursor.array(field)?)),
        Kind::Bool => match cursor.array(field)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [byte] => return Err(cursor.damaged(field, format!("{byte} is neither false (0) nor true (1)"))),
        },
        Kind::String | Kind::Array => return Err(cursor.damaged(field, "is not a number")),
    })
}

fn read_array(cursor: &mut Cursor<'_>, field: &str, depth: usize) -> Result<Array> {
    let kind = read_kind(cursor, field)?;
    let len = cursor.count(field, kind.least_bytes())?;
    let start = cursor.at;
    match kind {
        Kind::String => {
            for _ in 0..len {
                cursor.string(field)?;
            }
        }
        Kind::Array if depth == 0 => return Err(cursor.damaged(field, "has arrays in arrays, too deep")),
        Kind::Array => {
            for _ in 0..len {
                read_array(cursor, field, depth - 1)?;
            }
        }
        Kind::Bool => {
            if cursor.take(len, field)?.iter().any(|&byte| byte > 1) {
                return Err(cursor.damaged(field, "has a bool that is neither 0 nor 1"));
            }
        }
        // `count` has seen that the product fits the file.
        kind => _ = cursor.take(len * kind.least_bytes(), field)?,
    }
    Ok(Array { kind, len, bytes: start..cursor.at })
}
