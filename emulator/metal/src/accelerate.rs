//! `cblas_sgemm` of Accelerate (vecLib's cblas.h; "BLAS Technical Forum Standard", 2001, C interface): as plain loops.
//!
//! What the standard forbids raises. Memory of Metal's that it touches is compared with commands of the GPU that the host
//! has not waited for, byte by byte, in both directions: a hazard is a report of rule `HostAccess`.

use std::ffi::c_int;
use std::ops::Range;

use crate::account;
use crate::foundation::raise;
use crate::gpu::memory::Memory;
use crate::gpu::scheduler::{self, HostAccess};
use crate::gpu::work::{Span, Usage};
use crate::report::{self, Report, Rule};

const ROW_MAJOR: c_int = 101;
const COLUMN_MAJOR: c_int = 102;
const NO_TRANSPOSE: c_int = 111;
const TRANSPOSE: c_int = 112;
const CONJUGATE_TRANSPOSE: c_int = 113;

/// A stored matrix: `lines` of `length` elements, `step` from one to the next.
struct Stored {
    name: &'static str,
    start: *mut f32,
    lines: usize,
    length: usize,
    step: usize,
}

impl Stored {
    fn new(name: &'static str, start: *const f32, [lines, length]: [usize; 2], step: c_int) -> Self {
        if step < 1 || (step as usize) < length {
            refuse(format_args!("ld{name} is {step}, less than {}", length.max(1)));
        }
        if start.is_null() && lines * length > 0 {
            refuse(format_args!("{name} is null"));
        }
        Stored { name, start: start.cast_mut(), lines, length, step: step as usize }
    }

    fn address(&self, line: usize) -> usize {
        self.start.addr() + line * self.step * size_of::<f32>()
    }

    /// From its first byte to its last; empty where it has none.
    fn bytes(&self) -> Range<usize> {
        let empty = self.lines == 0 || self.length == 0;
        let end = if empty { self.start.addr() } else { self.address(self.lines - 1) + self.length * size_of::<f32>() };
        self.start.addr()..end
    }

    fn line(&self, line: usize) -> Range<usize> {
        self.address(line)..self.address(line) + self.length * size_of::<f32>()
    }

    /// Whether they share an element. Lines may lie between each other.
    fn meets(&self, other: &Stored) -> bool {
        let meet = |one: &Range<usize>, other: &Range<usize>| one.start < other.end && other.start < one.end;
        let lines = |one: Range<usize>| (0..other.lines).any(|line| meet(&one, &other.line(line)));
        meet(&self.bytes(), &other.bytes()) && (0..self.lines).any(|line| lines(self.line(line)))
    }

    /// An element, by line and place in it.
    ///
    /// # Safety
    /// The caller of `cblas_sgemm` promised that the matrix is there.
    unsafe fn at(&self, line: usize, place: usize) -> *mut f32 {
        // SAFETY: within the matrix.
        unsafe { self.start.add(line * self.step + place) }
    }

    /// As a use of Metal's memory, if it lies in such.
    fn span(&self, usage: Usage) -> Option<Span> {
        let memory = Memory::at(self.start.cast())?;
        let (start, all) = (memory.address().addr(), self.bytes());
        if all.end > start + memory.length() {
            let name = self.name;
            let text = format!(
                "cblas_sgemm: {name} is bytes {}..{} of {}, which has {}",
                all.start - start,
                all.end - start,
                memory.name(),
                memory.length()
            );
            report::file(Report::new(Rule::OutOfBounds, text));
        }
        let from_start = |line| self.line(line).start - start..self.line(line).end - start;
        let bytes = (0..self.lines).map(from_start).collect();
        Some(Span { memory, bytes, usage })
    }
}

fn refuse(what: std::fmt::Arguments<'_>) -> ! {
    raise("cblas_xerbla", &format!("cblas_sgemm: {what}"))
}

fn size(name: &str, value: c_int) -> usize {
    usize::try_from(value).unwrap_or_else(|_| refuse(format_args!("{name} is {value}")))
}

fn transposes(name: &str, value: c_int) -> bool {
    match value {
        NO_TRANSPOSE => false,
        TRANSPOSE | CONJUGATE_TRANSPOSE => true,
        _ => refuse(format_args!("trans{name} is {value}, none of CBLAS_TRANSPOSE")),
    }
}

/// C = alpha A B + beta C in f32: A [m, k], B [k, n], each stored transposed where asked. With beta = 0 C is not read, with
/// alpha = 0 A and B are not.
///
/// # Safety
/// The matrices are as large as their sizes say.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn cblas_sgemm(
    order: c_int,
    trans_a: c_int,
    trans_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: f32,
    a: *const f32,
    lda: c_int,
    b: *const f32,
    ldb: c_int,
    beta: f32,
    c: *mut f32,
    ldc: c_int,
) {
    account::count(|counts| counts.cpu_products += 1);
    let (m, n, k) = (size("m", m), size("n", n), size("k", k));
    let columns = match order {
        ROW_MAJOR => false,
        COLUMN_MAJOR => true,
        _ => refuse(format_args!("order is {order}, none of CBLAS_ORDER")),
    };
    // A matrix is stored by its rows, or by its columns where exactly one of both turns it around.
    let (a_turned, b_turned) = (transposes("a", trans_a) != columns, transposes("b", trans_b) != columns);
    let turned = |[rows, cols]: [usize; 2], turned| if turned { [cols, rows] } else { [rows, cols] };
    let a = Stored::new("a", a, turned([m, k], a_turned), lda);
    let b = Stored::new("b", b, turned([k, n], b_turned), ldb);
    let c = Stored::new("c", c, turned([m, n], columns), ldc);
    if c.meets(&a) || c.meets(&b) {
        refuse(format_args!("c overlaps a or b"));
    }
    let reads = alpha != 0.0 && m * n * k > 0;
    let mut spans: Vec<Span> = Vec::new();
    spans.extend([&a, &b].iter().filter(|_| reads).filter_map(|matrix| matrix.span(Usage::Read)));
    spans.extend(c.span(Usage::Read).filter(|_| beta != 0.0));
    spans.extend(c.span(Usage::Write));
    scheduler::host_accesses(HostAccess { name: format!("cblas_sgemm {m}x{n}x{k}"), spans });
    let element = |matrix: &Stored, turned: bool, row: usize, col: usize| {
        let (line, place) = if turned { (col, row) } else { (row, col) };
        // SAFETY: the caller's promise.
        unsafe { matrix.at(line, place) }
    };
    for row in 0..m {
        for col in 0..n {
            let at = element(&c, columns, row, col);
            let term = |p| {
                // SAFETY: the caller's promise.
                unsafe { *element(&a, a_turned, row, p) * *element(&b, b_turned, p, col) }
            };
            let sum: f32 = if reads { (0..k).map(term).sum() } else { 0.0 };
            let product = if reads { alpha * sum } else { 0.0 };
            // SAFETY: the caller's promise.
            unsafe { *at = if beta == 0.0 { product } else { product + beta * *at } };
        }
    }
}
