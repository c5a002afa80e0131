//! Methods and the encodings of their types.
//!
//! An encoding lists the return type and then each argument, every one followed by a stack offset:
//! "Type Encodings" in Apple's Objective-C Runtime Programming Guide.

use std::ffi::{CStr, CString, c_char, c_uint};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::selector::Sel;

/// The code of a method. Its real signature is known to the sender only.
pub(crate) type Imp = unsafe extern "C-unwind" fn();

/// A method of one class.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) selector: Sel,
    imp: AtomicPtr<()>,
    types: CString,
    /// How often a message led here, the emulator's own messages not counted.
    pub(crate) sent: AtomicU64,
    /// Not there in the system that is emulated now (`absent.rs`).
    pub(crate) is_hidden: AtomicBool,
}

impl Method {
    pub(crate) fn new(selector: Sel, imp: Imp, types: &CStr) -> Method {
        let imp = AtomicPtr::new(imp as *mut ());
        Method { selector, imp, types: types.to_owned(), sent: AtomicU64::new(0), is_hidden: AtomicBool::new(false) }
    }

    pub(crate) fn imp(&self) -> Imp {
        // SAFETY: the pointer was made from an `Imp` and is never null.
        unsafe { std::mem::transmute::<*mut (), Imp>(self.imp.load(Ordering::Acquire)) }
    }

    /// Puts other code in place of this method's, and returns what was there.
    pub(crate) fn replace_imp(&self, imp: Imp) -> Imp {
        let before = self.imp.swap(imp as *mut (), Ordering::AcqRel);
        // SAFETY: as in `imp`.
        unsafe { std::mem::transmute::<*mut (), Imp>(before) }
    }
}

/// The types of an encoding: the return type first. Offsets are dropped.
fn split(encoding: &[u8]) -> Vec<&[u8]> {
    let mut types = Vec::new();
    let mut rest = encoding;
    while !rest.is_empty() {
        let (one, after) = rest.split_at(length_of_first(rest));
        types.push(one);
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = &after[digits..];
    }
    types
}

/// How many bytes the first type of `encoding` takes.
fn length_of_first(encoding: &[u8]) -> usize {
    const QUALIFIERS: &[u8] = b"rnNoORVA";
    match encoding {
        [] => 0,
        [first, rest @ ..] if QUALIFIERS.contains(first) || *first == b'^' => 1 + length_of_first(rest),
        // A block is an object followed by a question mark.
        [b'@', b'?', ..] => 2,
        [b'{' | b'(' | b'[', ..] => length_of_group(encoding),
        [b'b', rest @ ..] => 1 + rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 1,
    }
}

/// The length of a struct, union or array, up to the bracket that closes it.
fn length_of_group(encoding: &[u8]) -> usize {
    let mut depth = 0;
    for (at, byte) in encoding.iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    encoding.len()
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
}

/// A copy of `items` that the caller gives back with `free`, as the runtime's `copy` functions promise.
pub(crate) fn malloc_copy<T: Copy>(items: &[T]) -> *mut T {
    // SAFETY: no precondition.
    let copy = unsafe { malloc(size_of_val(items).max(1)) }.cast::<T>();
    assert!(!copy.is_null(), "out of memory");
    // SAFETY: the new memory is large enough, aligned for every type without special alignment, and overlaps nothing.
    unsafe { ptr::copy_nonoverlapping(items.as_ptr(), copy, items.len()) };
    copy
}

fn malloc_string(text: &[u8]) -> *mut c_char {
    let with_nul: Vec<u8> = text.iter().copied().chain([0]).collect();
    malloc_copy(&with_nul).cast()
}

#[unsafe(no_mangle)]
extern "C" fn method_getName(method: &Method) -> Sel {
    method.selector
}

#[unsafe(no_mangle)]
extern "C" fn method_getImplementation(method: &Method) -> Imp {
    method.imp()
}

#[unsafe(no_mangle)]
extern "C" fn method_setImplementation(method: &Method, imp: Imp) -> Imp {
    method.replace_imp(imp)
}

#[unsafe(no_mangle)]
extern "C" fn method_exchangeImplementations(first: &Method, second: &Method) {
    let imp = first.replace_imp(second.imp());
    second.replace_imp(imp);
}

#[unsafe(no_mangle)]
extern "C" fn method_getTypeEncoding(method: &Method) -> *const c_char {
    method.types.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn method_getNumberOfArguments(method: &Method) -> c_uint {
    split(method.types.to_bytes()).len().saturating_sub(1) as c_uint
}

#[unsafe(no_mangle)]
extern "C" fn method_copyReturnType(method: &Method) -> *mut c_char {
    split(method.types.to_bytes()).first().map_or(ptr::null_mut(), |text| malloc_string(text))
}

#[unsafe(no_mangle)]
extern "C" fn method_copyArgumentType(method: &Method, index: c_uint) -> *mut c_char {
    split(method.types.to_bytes()).get(index as usize + 1).map_or(ptr::null_mut(), |text| malloc_string(text))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn an_encoding_is_split_at_its_types() {
        let types = split(b"{CGRect={CGPoint=dd}[2^v]}40@0:8^{State=Q^@}16@?24b3r^*32");
        let expected: [&[u8]; 7] = [b"{CGRect={CGPoint=dd}[2^v]}", b"@", b":", b"^{State=Q^@}", b"@?", b"b3", b"r^*"];
        assert_eq!(types, expected);
    }

    #[test]
    fn an_unclosed_group_ends_with_the_encoding() {
        assert_eq!(split(b"{open"), [b"{open"]);
    }
}
