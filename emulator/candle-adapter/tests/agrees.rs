//! Every operation and its gradients on Metal tensors, against the CPU's.

use candle_adapter_on_the_emulator::Lies::{self, Gaps, Plain, Transposed};
use candle_adapter_on_the_emulator::numbers::DTYPES;
use candle_adapter_on_the_emulator::{compare, shuffled};
use candlewick_candle::{lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};

#[test]
fn products() {
    let cases: [(&[usize], &[usize]); 9] = [
        (&[1, 1], &[1, 1]),
        (&[5, 7], &[7, 3]),
        (&[64, 64], &[64, 64]),
        (&[1, 129], &[129, 33]),
        (&[33, 17], &[17, 65]),
        (&[2, 3, 9, 11], &[2, 3, 11, 5]),
        (&[4, 9, 8], &[8, 16]),
        (&[3, 1, 5, 6], &[2, 6, 4]),
        (&[2, 40, 24], &[2, 24, 40]),
    ];
    shuffled(0..2, || {
        for dtype in DTYPES {
            for (a, b) in cases {
                compare("matmul", &[(a, Plain), (b, Plain)], dtype, &|x| matmul(&x[0], &x[1]));
            }
            for lies in [(Gaps, Plain), (Plain, Gaps), (Transposed, Plain), (Plain, Transposed), (Gaps, Transposed)] {
                let inputs: [(&[usize], Lies); 2] = [(&[21, 34], lies.0), (&[34, 19], lies.1)];
                compare("matmul", &inputs, dtype, &|x| matmul(&x[0], &x[1]));
            }
        }
    });
}

#[test]
fn empty_products() {
    shuffled(0..1, || {
        for (a, b) in [([0, 3], [3, 2]), ([2, 0], [0, 3]), ([2, 3], [3, 0])] {
            let x = candle_core::Tensor::zeros(&a, candle_core::DType::F32, &candle_adapter_on_the_emulator::metal());
            let y = candle_core::Tensor::zeros(&b, candle_core::DType::F32, &candle_adapter_on_the_emulator::metal());
            let c = matmul(&x.unwrap(), &y.unwrap()).unwrap();
            assert_eq!(c.dims(), [a[0], b[1]]);
            let sum: f32 = c.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().sum();
            assert_eq!(sum, 0.0);
        }
    });
}

#[test]
fn softmaxes() {
    let shapes: [&[usize]; 7] = [&[1], &[7], &[3, 5], &[2, 3, 33], &[4, 256], &[2, 4099], &[1, 20000]];
    shuffled(0..2, || {
        for dtype in DTYPES {
            for shape in shapes {
                compare("softmax", &[(shape, Plain)], dtype, &|x| softmax(&x[0], 0.7));
            }
            compare("softmax", &[(&[6, 24], Gaps)], dtype, &|x| softmax(&x[0], 1.0));
            compare("softmax", &[(&[6, 24], Transposed)], dtype, &|x| softmax(&x[0], 1.0));
            for shape in [&[9, 9][..], &[2, 2, 5, 12]] {
                compare("softmax_causal", &[(shape, Plain)], dtype, &|x| softmax_causal(&x[0], 0.25));
            }
        }
    });
}

#[test]
fn norms() {
    let shapes: [&[usize]; 6] = [&[4], &[3, 5], &[2, 3, 33], &[70, 64], &[5, 257], &[2, 9000]];
    shuffled(0..2, || {
        for dtype in DTYPES {
            for shape in shapes {
                let weight = [shape[shape.len() - 1]];
                compare("rms_norm", &[(shape, Plain), (&weight, Plain)], dtype, &|x| rms_norm(&x[0], &x[1], 1e-5));
            }
            for lies in [Gaps, Transposed] {
                compare("rms_norm", &[(&[6, 24], lies), (&[24], Plain)], dtype, &|x| rms_norm(&x[0], &x[1], 1e-5));
            }
        }
    });
}

#[test]
fn lora_layers() {
    // rows, in, out, rank
    let sizes = [(1, 1, 1, 1), (1, 64, 48, 8), (3, 17, 5, 2), (20, 33, 40, 4), (70, 64, 96, 8), (8, 40, 24, 33)];
    shuffled(0..2, || {
        for dtype in DTYPES {
            for (rows, ins, outs, rank) in sizes {
                for lies in if rows == 20 { vec![Plain, Gaps, Transposed] } else { vec![Plain] } {
                    let (x, w, a, b) = ([rows, ins], [outs, ins], [rank, ins], [outs, rank]);
                    let adapter: [(&[usize], Lies); 3] = [(&x, lies), (&a, Plain), (&b, Plain)];
                    let frozen = |shape: &[usize], x: &candle_core::Tensor| {
                        let w = candle_adapter_on_the_emulator::numbers::tensor(9, shape, dtype);
                        w.to_device(x.device())
                    };
                    compare("lora_delta", &adapter, dtype, &|t| lora_delta(&t[0], &t[1], &t[2], 0.5));
                    compare("lora_linear", &adapter, dtype, &|t| {
                        lora_linear(&t[0], &frozen(&w, &t[0])?, None, &t[1], &t[2], 2.0)
                    });
                    compare("lora_linear with bias", &adapter, dtype, &|t| {
                        let bias = frozen(&[outs], &t[0])?;
                        lora_linear(&t[0], &frozen(&w, &t[0])?, Some(&bias), &t[1], &t[2], 2.0)
                    });
                }
            }
        }
    });
}
