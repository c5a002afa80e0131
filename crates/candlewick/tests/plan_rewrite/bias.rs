//! A bias goes into the product that it is added to, where that is certain.

use crate::recorded::*;
use candlewick::{LoraLinear, MatMul, Result};

#[test]
fn a_bias_goes_into_the_product() {
    for dtype in [F32, BF16] {
        for (rows, ins, outs, rank) in [(1, 64, 48, 4), (5, 33, 17, 3), (9, 130, 65, 0)] {
            let limit = bound(LoraLinear::new(rows, ins, outs, rank, 0.5, dtype));
            let ran = both(dtype, limit, |m| {
                let (x, w, bias) = (m.input(rows, ins), m.constant(outs, ins), m.constant(1, outs));
                let (a, b) = (m.constant(rank, ins), m.constant(outs, rank));
                let y = m.p.lora_linear(x, w, None, a, b, 0.5)?;
                let y = m.p.add_row(y, bias)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.biases, ran.operations), (1, 1), "{}", ran.described);
            if rank == 0 {
                let (x, w, bias) = (numbers(rows * ins, 0), numbers(outs * ins, 1), numbers(outs, 2));
                let mut expected = product(&x, &w, rows, ins, outs);
                expected.iter_mut().enumerate().for_each(|(i, y)| *y += f64::from(bias[i % outs]));
                close(&ran.outputs[0], &expected, limit, "the reference");
            }
        }
        // A product with a matrix that lies plain.
        let ran = both(dtype, bound(MatMul::new(9, 31, 40, dtype)), |m| {
            let (x, w, bias) = (m.input(9, 40), m.input(31, 40), m.input(1, 31));
            let y = m.p.matmul_transposed(x, w)?;
            let y = m.p.add_row(y, bias)?;
            m.output(y)
        });
        assert_eq!((ran.rewrites.biases, ran.operations), (1, 1), "{}", ran.described);
        assert!(ran.described.contains("1 biases"), "{}", ran.described);
    }
}

#[test]
fn a_bias_stays_where_it_is_not_certain() {
    let rewrites = |make: &dyn Fn(&mut Maker<'_>) -> Result<()>| both(F32, 1e-5, make).rewrites.biases;
    let linear = |m: &mut Maker<'_>| {
        let (x, w) = (m.input(3, 8), m.constant(5, 8));
        m.p.linear(x, w, None)
    };
    let two_readers = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let (biased, other) = (m.p.add_row(y, bias)?, m.p.softmax(y, 1.0)?);
        m.output(biased)?;
        m.output(other)
    });
    let an_output = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let biased = m.p.add_row(y, bias)?;
        m.output(y)?;
        m.output(biased)
    });
    let written_later = rewrites(&|m| {
        let (y, bias) = (linear(m)?, m.constant(1, 5));
        let bias = m.p.softmax(bias, 1.0)?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    let has_one = rewrites(&|m| {
        let (x, w, bias) = (m.input(3, 8), m.constant(5, 8), m.constant(1, 5));
        let y = m.p.linear(x, w, Some(bias))?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    let a_product_by_columns = rewrites(&|m| {
        let (x, w, bias) = (m.input(9, 8), m.constant(8, 5), m.constant(1, 5));
        let y = m.p.matmul(x, w)?;
        let biased = m.p.add_row(y, bias)?;
        m.output(biased)
    });
    assert_eq!([two_readers, an_output, written_later, has_one, a_product_by_columns], [0; 5]);
}
