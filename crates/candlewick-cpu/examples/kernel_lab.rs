//! A measurement of ours, not an example to begin with.
//!
//! Times the CPU kernels on one thread, beside the peak of this CPU's multipliers.
//!
//! `cargo run --release --example kernel_lab -- [instruction set] [text that the name contains] [misalignment in bytes]`

use candlewick_core::DType;
use candlewick_cpu::kernels::*;
use candlewick_cpu::simd::{Isa, Simd};
use std::hint::black_box;
use std::time::Instant;

/// Bytes that have been written: untouched pages of zeros would all be one page, always in cache.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    /// The misalignment is relative to a cache line. Every element is a small normal number in any format.
    fn new(n: usize, dtype: DType, misalignment: usize) -> Memory {
        let bytes = vec![0x3cu8; n * dtype.bytes() + 128];
        let start = bytes.as_ptr().align_offset(64) + misalignment;
        Memory { bytes, start }
    }

    fn ptr(&self) -> *const u8 {
        self.bytes[self.start..].as_ptr()
    }

    fn mut_ptr(&mut self) -> *mut u8 {
        self.bytes[self.start..].as_mut_ptr()
    }
}

/// Times one kernel and prints a line.
struct Lab {
    table: &'static Kernels,
    filter: String,
    /// FLOP per nanosecond.
    peak: f64,
    /// Bytes from the start of a cache line to the start of each operand, packed panels excepted.
    misalignment: usize,
}

impl Lab {
    /// `work` is in FLOP, or in bytes if `bytes` is set.
    fn time(&self, name: &str, work: f64, bytes: bool, mut kernel: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let mut run = |repeats: usize| {
            let start = Instant::now();
            for _ in 0..repeats {
                kernel();
            }
            start.elapsed().as_nanos() as f64 / repeats as f64
        };
        // Samples of 50 us each, so that reading the clock does not count.
        let repeats = (50_000.0 / run(3).max(1.0)).ceil() as usize;
        run(repeats);
        let mut samples: Vec<f64> = (0..101).map(|_| run(repeats)).collect();
        samples.sort_by(f64::total_cmp);
        let (least, median) = (samples[0], samples[samples.len() / 2]);
        let rate = work / median;
        if bytes {
            println!("{name:44} {median:11.1} ns  min {least:11.1}  {rate:7.1} GB/s");
        } else {
            let share = 100.0 * rate / self.peak;
            println!("{name:44} {median:11.1} ns  min {least:11.1}  {rate:7.1} GFLOP/s {share:5.1}%");
        }
    }

    fn memory(&self, n: usize, dtype: DType) -> Memory {
        Memory::new(n, dtype, self.misalignment)
    }

    fn product(&self, m: usize, k: usize, n: usize, packed: bool, b_dtype: DType, c_dtype: DType) {
        let panel = self.table.panel;
        let a = self.memory(m * k, DType::F32);
        let b = Memory::new(k * n.next_multiple_of(panel), b_dtype, if packed { 0 } else { self.misalignment });
        let mut c = self.memory(m * n, c_dtype);
        let (row, panel) = if packed { (panel, k * panel) } else { (n, panel) };
        let b = Panels { ptr: b.ptr(), dtype: b_dtype, row, panel, padded: packed };
        let segments = [Segment { a: a.ptr().cast(), a_row: k, a_col: 1, b, k }];
        let (alpha, beta, bias, c_row) = (1.0, 0.0, std::ptr::null(), n);
        let args =
            ProductArgs { rows: m, cols: n, segments: &segments, alpha, beta, bias, c: c.mut_ptr(), c_row, c_dtype };
        let layout = if packed { "packed" } else { "rows" };
        let name = format!("product {m}x{k}x{n} {layout} {b_dtype}->{c_dtype}");
        // SAFETY: the buffers have the sizes that the arguments say.
        self.time(&name, 2.0 * (m * k * n) as f64, false, || unsafe { (self.table.product)(black_box(&args)) });
    }

    fn dot(&self, rows: usize, rank: usize, k: usize, x_dtype: DType, a_dtype: DType) {
        let (x, a) = (self.memory(rows * k, x_dtype), self.memory(rank * k, a_dtype));
        let mut h = vec![0.0f32; rows * rank];
        let (x, a, h) = (x.ptr(), a.ptr(), h.as_mut_ptr());
        let args = DotArgs { rows, rank, k, alpha: 1.0, x, x_row: k, x_dtype, a, a_row: k, a_dtype, h, h_row: rank };
        let name = format!("dot {rows}x{rank}x{k} {x_dtype} {a_dtype}");
        // SAFETY: the buffers have the sizes that the arguments say.
        self.time(&name, 2.0 * (rows * rank * k) as f64, false, || unsafe { (self.table.dot)(black_box(&args)) });
    }

    fn pack(&self, k: usize, cols: usize, transposed: bool, src_dtype: DType, dst_dtype: DType) {
        let src = self.memory(k * cols, src_dtype);
        let mut dst = Memory::new(k * cols.next_multiple_of(self.table.panel), dst_dtype, 0);
        let src_row = if transposed { k } else { cols };
        let (src, dst) = (src.ptr(), dst.mut_ptr());
        let args = PackArgs { k, cols, src, src_dtype, src_row, transposed, dst, dst_dtype };
        let layout = if transposed { "transposed" } else { "rows" };
        let name = format!("pack {k}x{cols} {layout} {src_dtype}->{dst_dtype}");
        let bytes = k * cols * (src_dtype.bytes() + dst_dtype.bytes());
        // SAFETY: the buffers have the sizes that the arguments say.
        self.time(&name, bytes as f64, true, || unsafe { (self.table.pack)(black_box(&args)) });
    }

    fn transpose(&self, rows: usize, cols: usize, src_dtype: DType, dst_dtype: DType) {
        let (src, mut dst) = (self.memory(rows * cols, src_dtype), self.memory(rows * cols, dst_dtype));
        let (src, dst) = (src.ptr(), dst.mut_ptr());
        let (src_row, dst_row) = (cols, rows);
        let args = TransposeArgs { rows, cols, scale: 1.0, src, src_dtype, src_row, dst, dst_dtype, dst_row };
        let name = format!("transpose {rows}x{cols} {src_dtype}->{dst_dtype}");
        let bytes = rows * cols * (src_dtype.bytes() + dst_dtype.bytes());
        // SAFETY: the buffers have the sizes that the arguments say.
        self.time(&name, bytes as f64, true, || unsafe { (self.table.transpose)(black_box(&args)) });
    }

    fn rows(&self, n: usize, dtype: DType) {
        let (x, mut y) = (self.memory(n, dtype), self.memory(n, dtype));
        let mut scratch = self.memory(n, DType::F32);
        let bytes = (n * dtype.bytes()) as f64;
        let (x, y, scratch) = (x.ptr(), y.mut_ptr(), scratch.mut_ptr().cast());
        let args = SoftmaxArgs { n, valid: n, scale: 1.0, dtype, x, y, scratch };
        // SAFETY: n elements at each pointer, here and below.
        self.time(&format!("softmax {n} {dtype}"), 2.0 * bytes, true, || unsafe {
            (self.table.softmax)(black_box(&args))
        });
        let args = SoftmaxBackwardArgs { n, valid: n, scale: 1.0, dtype, y: x, dy: x, dx: y };
        self.time(&format!("softmax backward {n} {dtype}"), 3.0 * bytes, true, || {
            // SAFETY: as above.
            unsafe { (self.table.softmax_backward)(black_box(&args)) }
        });
        let args = RmsNormArgs { n, eps: 1e-5, dtype, x, w: x, y };
        // SAFETY: as above.
        self.time(&format!("rms_norm {n} {dtype}"), 3.0 * bytes, true, || unsafe {
            (self.table.rms_norm)(black_box(&args))
        });
        let args = RmsNormBackwardArgs { n, eps: 1e-5, dtype, x, w: x, dy: x, dx: y, dw: scratch };
        self.time(&format!("rms_norm backward {n} {dtype}"), 4.0 * bytes + 8.0 * n as f64, true, || {
            // SAFETY: as above.
            unsafe { (self.table.rms_norm_backward)(black_box(&args)) }
        });
        let args = WidenArgs { n, src: x, src_dtype: dtype, dst: scratch };
        // SAFETY: as above.
        self.time(&format!("widen {n} {dtype}"), bytes + 4.0 * n as f64, true, || unsafe {
            (self.table.widen)(black_box(&args))
        });
    }
}

/// FLOP per nanosecond of 14 independent chains of multiply-adds: more than latency times throughput, and they fit sixteen registers.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn chains<S: Simd>() -> f64 {
    const STEPS: usize = 100_000;
    const CHAINS: usize = 14;
    let mut best = 0.0f64;
    for _ in 0..20 {
        // SAFETY: the caller's contract.
        unsafe {
            let (x, y) = (S::splat(black_box(0.5)), S::splat(black_box(1.0)));
            let mut sums = [y; CHAINS];
            let start = Instant::now();
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = S::fma(*sum, x, y);
                }
            }
            let flops = (2 * STEPS * CHAINS * S::LANES) as f64;
            best = best.max(flops / start.elapsed().as_nanos() as f64);
            black_box(S::sum8(sums[..8].try_into().unwrap()));
            black_box(S::sum8(sums[6..].try_into().unwrap()));
        }
    }
    best
}

#[cfg(target_arch = "x86_64")]
fn peak(isa: Isa) -> f64 {
    use candlewick_cpu::simd::{avx2::Avx2, avx512::Avx512, portable::Portable};
    /// # Safety
    /// The CPU has these features.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2() -> f64 {
        // SAFETY: the caller's contract.
        unsafe { chains::<Avx2>() }
    }
    /// # Safety
    /// The CPU has these features.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn avx512() -> f64 {
        // SAFETY: the caller's contract.
        unsafe { chains::<Avx512>() }
    }
    // SAFETY: `isa` is available.
    unsafe {
        match isa {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => avx512(),
            Isa::Avx2 | Isa::AvxVnni => avx2(),
            _ => chains::<Portable>(),
        }
    }
}

#[cfg(target_arch = "aarch64")]
fn peak(_: Isa) -> f64 {
    // SAFETY: every CPU of this architecture has NEON.
    unsafe { chains::<candlewick_cpu::simd::neon::Neon>() }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let isa = Isa::available().find(|isa| isa.name() == name).unwrap_or(Isa::best());
    let table = kernels(isa).expect("an instruction set of this CPU");
    let filter = arguments.next().unwrap_or_default();
    let misalignment = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let lab = Lab { table, filter, peak: peak(isa), misalignment };
    println!("{isa}: {:.1} GFLOP/s on one thread", lab.peak);

    let (f32, f16, bf16) = (DType::F32, DType::F16, DType::BF16);
    for size in [32, 64, 128, 256, 512] {
        lab.product(size, size, size, false, f32, f32);
        lab.product(size, size, size, true, f32, f32);
    }
    lab.product(64, 64, 64, false, f16, f16);
    lab.product(64, 64, 64, false, bf16, bf16);
    lab.product(256, 256, 256, true, f16, f32);
    lab.product(256, 256, 256, true, bf16, f32);
    for m in [1, 2, 3, 4, 8, 64, 256] {
        lab.product(m, 512, 512, true, f32, f32);
    }
    for m in [1, 8, 64] {
        lab.product(m, 512, 512, false, f32, f32);
        lab.product(m, 512, 512, true, bf16, bf16);
    }
    for m in [1, 2, 3, 4, 8, 64] {
        lab.product(m, 4096, 4096, true, f32, f32);
    }
    for m in [1, 8, 64] {
        lab.product(m, 4096, 4096, true, bf16, bf16);
    }
    lab.product(64, 1024, 1024, true, f32, f32);
    lab.product(256, 1024, 1024, true, f32, f32);
    for rows in [1, 8, 64, 256] {
        lab.dot(rows, 8, 512, f32, f32);
    }
    lab.dot(64, 16, 1024, f32, f32);
    for (x, a) in [(f16, f16), (bf16, bf16), (bf16, f32)] {
        lab.dot(1, 8, 512, x, a);
        lab.dot(64, 8, 512, x, a);
    }
    for (src, dst) in [(f32, f32), (f16, f32), (bf16, f32), (bf16, bf16)] {
        lab.pack(256, 256, false, src, dst);
        lab.pack(256, 256, true, src, dst);
    }
    lab.pack(4096, 4096, false, f32, f32);
    lab.pack(4096, 4096, true, f32, f32);
    lab.transpose(512, 8, f32, f32);
    lab.transpose(8, 512, f32, f32);
    lab.transpose(4096, 16, bf16, f32);
    lab.transpose(16, 4096, f32, bf16);
    for dtype in DType::ALL {
        lab.rows(4096, dtype);
    }
}
