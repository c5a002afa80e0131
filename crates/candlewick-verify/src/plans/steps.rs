//! The operations of random plans.

use super::generate::{Entry, Generator, WIDTHS};
use super::given::{Content, Role};
use candlewick::op::{Add, Attention, Pairs, Quant, Rope};
use candlewick::plan::Tensor;
use candlewick::{DType, LoraDelta, MatMul, Result, Scalar};

impl Generator<'_> {
    /// Records one or a few operations on what there is.
    pub(super) fn step(&mut self) -> Result<()> {
        let x = self.some()?;
        match self.rng.below(22) {
            0 => {
                self.rms_norm(x)?;
            }
            1 => self.softmax(x)?,
            2 | 3 => self.pair(x)?,
            4 | 5 => {
                self.linear(x)?;
            }
            6 => self.quantised(x)?,
            7 | 8 => self.lora(x)?,
            9 => self.product(x)?,
            10 => self.cast(x)?,
            11 => self.columns(x)?,
            12 => self.rows(x)?,
            13 => self.row_added(x)?,
            14 => self.rotated(x)?,
            15 | 16 => self.attention(x)?,
            17 => self.cached(x)?,
            18 if !self.gradients => self.written_again(x)?,
            19 => self.dropout(x)?,
            20 if !self.gradients => self.lora_rows(x)?,
            _ => self.gated(x)?,
        }
        Ok(())
    }

    pub(super) fn rms_norm(&mut self, x: Entry) -> Result<Entry> {
        let weight = self.parameter("norm", (1, x.cols), x.dtype, Content::AroundOne)?;
        let y = self.p.rms_norm(x.tensor, weight.tensor, 1e-3)?;
        Ok(self.add(y, 3.0, x.depends | weight.depends))
    }

    fn softmax(&mut self, x: Entry) -> Result<()> {
        let y = self.p.softmax(x.tensor, self.rng.pick(&[1.0, 0.5, -0.3]))?;
        self.add(y, 1.0, x.depends);
        Ok(())
    }

    fn dropout(&mut self, x: Entry) -> Result<()> {
        let seed = self.give("seed", (1, 2), DType::U32, Role::Input, Content::Ids(1 << 20));
        let stream = self.rng.below(100) as u32;
        let y = self.p.dropout(x.tensor, seed, 0.25, stream)?;
        self.add(y, 1.4 * x.size, x.depends);
        Ok(())
    }

    /// A layer, and what the adapters of its rows add to it.
    fn lora_rows(&mut self, x: Entry) -> Result<()> {
        let y = self.linear(x)?;
        let (adapters, rank) = (1 + self.rng.below(3), self.rng.pick(&[1, 4]));
        let factor = Content::Uniform(0.5);
        let a = self.give("a", (adapters * rank, x.cols), x.dtype, Role::Constant, factor);
        let b = self.give("b", (adapters * y.cols, rank), x.dtype, Role::Constant, factor);
        let scales = self.give("scales", (1, adapters), DType::F32, Role::Input, Content::Uniform(1.0));
        let slots = self.give("adapters", (1, x.rows), DType::U32, Role::Input, Content::Ids(adapters + 1));
        self.p.lora_rows(x.tensor, [a, b, scales], slots, y.tensor)
    }

    /// The sum of two tensors of one shape, or silu of one times the other.
    fn pair(&mut self, x: Entry) -> Result<()> {
        let same = |other: &Entry| (other.rows, other.cols, other.dtype) == (x.rows, x.cols, x.dtype);
        let other = self.fitting(same).unwrap_or(x);
        let depends = x.depends | other.depends;
        if self.rng.chance(50) {
            let y = self.p.add(x.tensor, other.tensor)?;
            self.add(y, x.size + other.size, depends);
        } else {
            let y = self.p.silu_mul(x.tensor, other.tensor)?;
            self.add(y, x.size * other.size, depends);
        }
        Ok(())
    }

    fn linear(&mut self, x: Entry) -> Result<Entry> {
        let out = self.rng.pick(&WIDTHS);
        let (w, size) = self.weight((out, x.cols), x.dtype);
        let bias = self.rng.chance(30);
        let bias = bias.then(|| self.give("bias", (1, out), x.dtype, Role::Constant, Content::Uniform(0.5)));
        let y = self.p.linear(x.tensor, w, bias)?;
        Ok(self.add(y, x.size * size + 0.5, x.depends))
    }

    /// A frozen [out, in], and how much larger it makes what it is multiplied with.
    fn weight(&mut self, shape: (usize, usize), dtype: DType) -> (Tensor, f64) {
        let scale = 1.5 / (shape.1.max(1) as f64).sqrt();
        (self.give("w", shape, dtype, Role::Constant, Content::Uniform(scale)), 1.5)
    }

    pub(super) fn blocks(&mut self, rows: usize, cols: usize) -> Result<Tensor> {
        let fitting: Vec<Quant> = Quant::ALL.into_iter().filter(|format| cols.is_multiple_of(format.block())).collect();
        let format = self.rng.pick(&fitting);
        let tensor = self.p.quantised("blocks", rows, cols, format)?;
        let elements = rows * format.row_bytes(cols);
        let content = Content::Blocks(format);
        self.given.push(super::given::Given { tensor, dtype: DType::U8, elements, role: Role::Constant, content });
        Ok(tensor)
    }

    /// A product with quantised weights, with its halves of LoRA sometimes.
    fn quantised(&mut self, x: Entry) -> Result<()> {
        // Whole blocks, of 256 seldom.
        let wide = if self.rng.chance(20) { 256 } else { 32 };
        let x = if x.cols.is_multiple_of(32) {
            x
        } else {
            let (w, _) = self.weight((wide, x.cols), x.dtype);
            let y = self.p.linear(x.tensor, w, None)?;
            self.add(y, x.size * 1.5, x.depends)
        };
        let out = self.rng.pick(&WIDTHS);
        let w = self.blocks(out, x.cols)?;
        let size = x.size * (x.cols as f64).sqrt();
        let y = self.p.linear(x.tensor, w, None)?;
        self.add(y, size, x.depends);
        Ok(())
    }

    fn lora(&mut self, x: Entry) -> Result<()> {
        let (out, rank) = (self.rng.pick(&WIDTHS), self.rng.pick(&[1, 3, 4, 8, 8, 16]));
        let scale = 1.0 / (x.cols as f64).sqrt();
        let a = self.parameter("a", (rank, x.cols), x.dtype, Content::Uniform(scale))?;
        let b = self.parameter("b", (out, rank), x.dtype, Content::Uniform(0.7))?;
        let depends = x.depends | a.depends | b.depends;
        let kind = self.rng.below(3);
        if kind == 0 {
            let y = self.p.lora_delta(x.tensor, a.tensor, b.tensor, 0.7)?;
            self.add(y, x.size, depends);
            return Ok(());
        }
        let w = if kind == 1 && x.cols.is_multiple_of(32) {
            self.blocks(out, x.cols)?
        } else {
            self.weight((out, x.cols), x.dtype).0
        };
        let y = self.p.lora_linear(x.tensor, w, None, a.tensor, b.tensor, 0.7)?;
        self.add(y, x.size * (x.cols as f64).sqrt(), depends);
        Ok(())
    }

    /// A product with a parameter, or with another tensor, transposed.
    fn product(&mut self, x: Entry) -> Result<()> {
        let same = |other: &Entry| other.cols == x.cols && other.dtype == x.dtype && other.rows <= 16;
        match self.fitting(same) {
            Some(other) if self.rng.chance(50) => {
                let y = self.p.matmul_transposed(x.tensor, other.tensor)?;
                self.add(y, x.size * other.size * (x.cols as f64).sqrt(), x.depends | other.depends);
            }
            _ => {
                let out = self.rng.pick(&WIDTHS);
                let content = Content::Uniform(1.5 / (x.cols as f64).sqrt());
                let b = self.parameter("b", (x.cols, out), x.dtype, content)?;
                let y = self.p.matmul(x.tensor, b.tensor)?;
                self.add(y, x.size * 1.5, x.depends | b.depends);
            }
        }
        Ok(())
    }

    fn cast(&mut self, x: Entry) -> Result<()> {
        if x.dense {
            let dtype = self.rng.pick(&DType::ALL);
            let y = self.p.cast(x.tensor, dtype)?;
            self.add(y, x.size, x.depends);
        }
        Ok(())
    }

    /// Some columns, in place.
    fn columns(&mut self, x: Entry) -> Result<()> {
        let cols = if x.cols >= 16 && self.rng.chance(60) { x.cols / 8 * 4 } else { 1 + self.rng.below(x.cols) };
        let first = self.rng.below(x.cols - cols + 1);
        let part = self.p.columns(x.tensor, first..first + cols)?;
        let dense = x.dense && cols == x.cols;
        self.pool.push(Entry { tensor: part, cols, dense, ..x });
        Ok(())
    }

    /// Some rows, in place.
    fn rows(&mut self, x: Entry) -> Result<()> {
        let rows = 1 + self.rng.below(x.rows);
        let first = self.rng.below(x.rows - rows + 1);
        let part = self.p.rows(x.tensor, first..first + rows)?;
        self.pool.push(Entry { tensor: part, rows, ..x });
        Ok(())
    }

    fn row_added(&mut self, x: Entry) -> Result<()> {
        let row = self.give("row", (1, x.cols), x.dtype, Role::Input, Content::Uniform(1.0));
        let y = self.p.add_row(x.tensor, row)?;
        self.add(y, x.size + 1.0, x.depends);
        Ok(())
    }

    fn rotated(&mut self, x: Entry) -> Result<()> {
        if x.cols.is_multiple_of(8) {
            let heads = x.cols / 8;
            self.rope(x, heads, 8)?;
        }
        Ok(())
    }

    fn rope(&mut self, x: Entry, heads: usize, head: usize) -> Result<Entry> {
        let positions = self.give("positions", (1, x.rows), DType::U32, Role::Input, Content::Positions);
        let rotary = self.rng.pick(&[head, head, head / 4 * 2]);
        let frequencies = self.give("frequencies", (1, rotary / 2), DType::F32, Role::Constant, Content::Uniform(1.0));
        let pairs = self.rng.pick(&[Pairs::Halves, Pairs::Interleaved]);
        let op = Rope { rotary, pairs, ..Rope::new(x.rows, heads, head, x.dtype) };
        let y = self.p.rope(x.tensor, positions, frequencies, op)?;
        Ok(self.add(y, 1.5 * x.size, x.depends))
    }

    /// Attention over columns of one product, or over products of its own.
    fn attention(&mut self, x: Entry) -> Result<()> {
        let (head, kv_heads) = (self.rng.pick(&[4, 8]), self.rng.pick(&[1, 1, 2]));
        let heads = kv_heads * self.rng.pick(&[1, 2, 3]);
        let (wide, narrow) = (heads * head, kv_heads * head);
        let x = if x.size > 2.0 { self.rms_norm(x)? } else { x };
        let (w, _) = self.weight((wide + 2 * narrow, x.cols), x.dtype);
        let all = self.p.linear(x.tensor, w, None)?;
        let all = self.add(all, 2.0, x.depends);
        let part = |generator: &mut Self, columns: std::ops::Range<usize>| -> Result<Entry> {
            let cols = columns.len();
            Ok(Entry { tensor: generator.p.columns(all.tensor, columns)?, cols, dense: false, ..all })
        };
        let mut q = part(self, 0..wide)?;
        let mut k = part(self, wide..wide + narrow)?;
        let v = part(self, wide + narrow..wide + 2 * narrow)?;
        if self.rng.chance(50) {
            (q, k) = (self.rope(q, heads, head)?, self.rope(k, kv_heads, head)?);
        }
        self.attend((q, k, v), (heads, kv_heads, head))
    }

    fn attend(&mut self, (q, k, v): (Entry, Entry, Entry), sizes: (usize, usize, usize)) -> Result<()> {
        let (heads, kv_heads, head) = sizes;
        let op = Attention {
            sequences: self.rng.pick(&[1, 1, 2, 3]),
            causal: self.rng.chance(70),
            // Scores of magnitude four at most, as the bound has it.
            scale: Scalar(1.0 / head as f32),
            ..Attention::new(q.rows, k.rows, heads, kv_heads, head, q.dtype)
        };
        let spans = self.give("spans", (op.sequences, 4), DType::U32, Role::Input, Content::Spans(op));
        let y = self.p.attention(q.tensor, k.tensor, v.tensor, spans, op)?;
        self.add(y, v.size, q.depends | k.depends | v.depends);
        Ok(())
    }

    /// Rows of a cache are written, and the cache is attended to: it holds rows of earlier runs.
    fn cached(&mut self, x: Entry) -> Result<()> {
        // Scores of magnitude four or so, as the bound has it; and copies into a cache have no gradient.
        let x = if x.size > 2.0 { self.rms_norm(x)? } else { x };
        if !x.cols.is_multiple_of(4) || (self.gradients && x.depends != 0) {
            return Ok(());
        }
        let capacity = x.rows + 1 + self.rng.below(6);
        let cache = self.state("cache", (capacity, x.cols), x.dtype, Content::Uniform(1.0))?;
        let slots = self.give("slots", (1, x.rows), DType::U32, Role::Input, Content::Slots(capacity));
        self.p.copy_rows(x.tensor, slots, cache)?;
        let cache =
            Entry { tensor: cache, rows: capacity, cols: x.cols, dense: true, depends: 0, writable: false, ..x };
        let cache = Entry { size: x.size.max(1.0), ..cache };
        if self.rng.chance(60) {
            self.attend((x, cache, cache), (x.cols / 4, x.cols / 4, 4))
        } else {
            let y = self.p.matmul_transposed(x.tensor, cache.tensor)?;
            self.add(y, x.size * cache.size * (x.cols as f64).sqrt(), x.depends);
            Ok(())
        }
    }

    /// A tensor that others may have read is written once more: added to, or multiplied into.
    fn written_again(&mut self, x: Entry) -> Result<()> {
        let into = self.fitting(|y| y.writable && (y.rows, y.dtype) == (x.rows, x.dtype));
        let inputs: Vec<Tensor> = self.given.iter().map(|given| given.tensor).collect();
        let recording = self.p.recording();
        let storage = |tensor: Tensor| recording.place(tensor).0;
        let given = |tensor: Tensor| inputs.iter().any(|&input| storage(input) == storage(tensor));
        let Some(y) = into.filter(|y| storage(y.tensor) != storage(x.tensor) && !given(y.tensor)) else {
            return self.softmax(x);
        };
        // Strides as they lie: a descriptor wants a whole row where there is but one.
        let row = |tensor: Tensor| match recording.layout(tensor) {
            (0 | 1, cols, _) => cols,
            (_, _, row) => row,
        };
        let (x_row, y_row) = (row(x.tensor), row(y.tensor));
        if x.cols == y.cols && self.rng.chance(40) {
            let op = Add { a_row: y_row, b_row: x_row, y_row, ..Add::new(y.rows, y.cols, y.dtype) };
            self.p.op_into(op, &[y.tensor, x.tensor], &[y.tensor])?;
        } else if self.rng.chance(50) {
            let scale = 1.0 / (x.cols as f64).sqrt();
            let b = self.give("b", (x.cols, y.cols), x.dtype, Role::Constant, Content::Uniform(scale));
            let op =
                MatMul { lda: x_row, ldc: y_row, beta: Scalar(1.0), ..MatMul::new(y.rows, y.cols, x.cols, y.dtype) };
            self.p.op_into(op, &[x.tensor, b], &[y.tensor])?;
        } else {
            let a = self.give("a", (4, x.cols), x.dtype, Role::Constant, Content::Uniform(0.3));
            let b = self.give("b", (y.cols, 4), x.dtype, Role::Constant, Content::Uniform(0.3));
            let op =
                LoraDelta { x_row, y_row, accumulate: true, ..LoraDelta::new(y.rows, x.cols, y.cols, 4, 0.5, y.dtype) };
            self.p.op_into(op, &[x.tensor, a, b], &[y.tensor])?;
        }
        for entry in self.pool.iter_mut().filter(|entry| storage(entry.tensor) == storage(y.tensor)) {
            (entry.size, entry.depends) = (entry.size + x.size, entry.depends | x.depends);
        }
        Ok(())
    }

    /// The feed-forward of a model: gate and up in one product or two.
    fn gated(&mut self, x: Entry) -> Result<()> {
        let hidden = self.rng.pick(&[16, 24, 40]);
        let (gate, up) = if self.rng.chance(50) {
            let (w, _) = self.weight((2 * hidden, x.cols), x.dtype);
            let both = self.p.linear(x.tensor, w, None)?;
            (self.p.columns(both, 0..hidden)?, self.p.columns(both, hidden..2 * hidden)?)
        } else {
            let ((gate, _), (up, _)) = (self.weight((hidden, x.cols), x.dtype), self.weight((hidden, x.cols), x.dtype));
            (self.p.linear(x.tensor, gate, None)?, self.p.linear(x.tensor, up, None)?)
        };
        let y = self.p.silu_mul(gate, up)?;
        let y = self.add(y, (1.5 * x.size).powi(2), x.depends);
        let (w, _) = self.weight((x.cols, hidden), x.dtype);
        let down = self.p.linear(y.tensor, w, None)?;
        let down = self.add(down, 1.5 * y.size, x.depends);
        let sum = self.p.add(x.tensor, down.tensor)?;
        self.add(sum, x.size + down.size, x.depends);
        Ok(())
    }

    /// Rows of a table.
    pub(super) fn embedding(&mut self, dtype: DType) -> Result<()> {
        let (vocab, width) = (3 + self.rng.below(20), self.rng.pick(&WIDTHS));
        let table = self.parameter("table", (vocab, width), dtype, Content::Uniform(1.0))?;
        let ids = self.give("ids", (1, self.rows), DType::U32, Role::Input, Content::Ids(vocab));
        let x = self.p.embedding(ids, table.tensor)?;
        self.add(x, 1.0, table.depends);
        Ok(())
    }
}
