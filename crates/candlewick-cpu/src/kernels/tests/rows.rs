//! Softmax and normalisation, row by row.

use super::*;
use crate::kernels::{RmsNormArgs, RmsNormBackwardArgs, SoftmaxArgs, SoftmaxBackwardArgs};

const LENGTHS: [usize; 12] = [0, 1, 3, 7, 8, 15, 16, 17, 33, 65, 130, 257];

fn softmax_on(table: &Kernels, x: &Numbers, valid: usize, scale: f32) -> Vec<f32> {
    let n = x.n;
    let mut y = Numbers::new(x.dtype, &vec![-7.0; n + 1]);
    let mut scratch = vec![0.0f32; valid];
    let (y_ptr, scratch) = (y.mut_ptr(), scratch.as_mut_ptr());
    let args = SoftmaxArgs { n, valid, scale, dtype: x.dtype, x: x.ptr(), y: y_ptr, scratch };
    // SAFETY: n elements at each pointer.
    unsafe { (table.softmax)(&args) };
    let mut y = y.values();
    assert_eq!(y.pop(), Some(-7.0), "{}: wrote beyond the row", table.isa);
    y
}

#[test]
fn softmax_of_rows_of_any_length() {
    for (table, dtype) in tables().flat_map(|t| DType::ALL.map(|d| (t, d))) {
        for n in LENGTHS {
            for valid in [n, n / 2, n.saturating_sub(1)] {
                let scale = 3.0;
                let x = Numbers::random(dtype, n, 3);
                let got = softmax_on(table, &x, valid, scale);
                let powers: Vec<f64> = x.values().iter().map(|v| (f64::from(scale) * f64::from(*v)).exp()).collect();
                let sum: f64 = powers[..valid].iter().sum();
                for i in 0..n {
                    let want = if i < valid { powers[i] / sum } else { 0.0 };
                    assert_near(got[i], want, 2e-6 * want, dtype, &format!("{} {dtype} {n} {valid} {i}", table.isa));
                }
            }
        }
    }
}

#[test]
fn softmax_of_special_rows() {
    let inf = f32::INFINITY;
    for table in tables() {
        for n in [1, 5, 16, 40] {
            for at in [0, n / 2, n - 1] {
                for special in [f32::NAN, inf] {
                    let mut row = random(n, 4);
                    row[at] = special;
                    let y = softmax_on(table, &Numbers::new(DType::F32, &row), n, 1.0);
                    assert!(y.iter().all(|v| v.is_nan()), "{} {n} {special} at {at}: {y:?}", table.isa);
                }
                let mut row = vec![-inf; n];
                assert!(softmax_on(table, &Numbers::new(DType::F32, &row), n, 1.0).iter().all(|v| v.is_nan()));
                row[at] = -1000.0;
                let y = softmax_on(table, &Numbers::new(DType::F32, &row), n, 1.0);
                assert!((0..n).all(|i| y[i] == f32::from(i == at)), "{} {n} {at}: {y:?}", table.isa);
                // What lies beyond `valid` does not take part.
                row[at] = f32::NAN;
                row[..at].fill(1e30);
                let y = softmax_on(table, &Numbers::new(DType::F32, &row), at, 1.0);
                assert!(y.iter().all(|v| v.is_finite()), "{} {n} {at}: {y:?}", table.isa);
            }
        }
    }
}

#[test]
fn softmax_gradient() {
    for (table, dtype) in tables().flat_map(|t| DType::ALL.map(|d| (t, d))) {
        for n in LENGTHS {
            let valid = n - n / 3;
            let (y, dy) = (Numbers::random(dtype, n, 1), Numbers::random(dtype, n, 2));
            let mut dx = Numbers::new(dtype, &vec![-7.0; n + 1]);
            let (y_ptr, dy_ptr, dx_ptr) = (y.ptr(), dy.ptr(), dx.mut_ptr());
            let args = SoftmaxBackwardArgs { n, valid, scale: 0.5, dtype, y: y_ptr, dy: dy_ptr, dx: dx_ptr };
            // SAFETY: n elements at each pointer.
            unsafe { (table.softmax_backward)(&args) };
            let (y, dy, dx) = (y.values(), dy.values(), dx.values());
            let sum: f64 = (0..valid).map(|i| f64::from(y[i]) * f64::from(dy[i])).sum();
            for i in 0..n {
                let want = if i < valid { 0.5 * f64::from(y[i]) * (f64::from(dy[i]) - sum) } else { 0.0 };
                assert_near(dx[i], want, 1e-7 * (n + 4) as f64, dtype, &format!("{} {dtype} {n} {i}", table.isa));
            }
            assert_eq!(dx[n], -7.0);
        }
    }
}

#[test]
fn rms_norm_and_its_gradients() {
    for (table, dtype) in tables().flat_map(|t| DType::ALL.map(|d| (t, d))) {
        for n in LENGTHS.into_iter().filter(|n| *n > 0) {
            let what = format!("{} {dtype} {n}", table.isa);
            let eps = 1e-3;
            let x = Numbers::random(dtype, n, 1);
            let w = Numbers::random(dtype, n, 2);
            let dy = Numbers::random(dtype, n, 3);
            let mut y = Numbers::new(dtype, &vec![-7.0; n + 1]);
            let mut dx = y.clone();
            let mut dw = vec![0.25f32; n + 1];
            let (x_ptr, w_ptr, dy_ptr) = (x.ptr(), w.ptr(), dy.ptr());
            let forward = RmsNormArgs { n, eps, dtype, x: x_ptr, w: w_ptr, y: y.mut_ptr() };
            let (dx_ptr, dw_ptr) = (dx.mut_ptr(), dw.as_mut_ptr());
            let backward =
                RmsNormBackwardArgs { n, eps, dtype, x: x_ptr, w: w_ptr, dy: dy_ptr, dx: dx_ptr, dw: dw_ptr };
            // SAFETY: n elements at each pointer.
            unsafe {
                (table.rms_norm)(&forward);
                (table.rms_norm_backward)(&backward);
            }
            let (x, w, dy) = (x.values(), w.values(), dy.values());
            let f = |v: &[f32], i: usize| f64::from(v[i]);
            let mean: f64 = (0..n).map(|i| f(&x, i) * f(&x, i)).sum::<f64>() / n as f64;
            let inv = 1.0 / (mean + f64::from(eps)).sqrt();
            let products: f64 = (0..n).map(|i| f(&w, i) * f(&dy, i) * f(&x, i)).sum();
            let error = 1e-7 * (n + 8) as f64 * inv * (1.0 + inv * inv);
            let (y, dx) = (y.values(), dx.values());
            for i in 0..n {
                assert_near(y[i], f(&x, i) * inv * f(&w, i), 4e-7 * inv, dtype, &what);
                let want = inv * f(&w, i) * f(&dy, i) - f(&x, i) * inv.powi(3) / n as f64 * products;
                assert_near(dx[i], want, error, dtype, &what);
                assert_near(dw[i], 0.25 + f(&dy, i) * f(&x, i) * inv, 1e-6 * inv, DType::F32, &what);
            }
            assert_eq!((y[n], dx[n], dw[n]), (-7.0, -7.0, 0.25), "{what}: wrote beyond a row");
        }
    }
}
