//! `cast`, between all formats.

use crate::engines::{check, random, rounded};
use candlewick_core::{Cast, DType, Op};

#[test]
fn casts_between_all_formats() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -7e4, 65519.0, 1e-7, 1e-9, 0.0, 1.0 / 3.0];
    for (from, to) in DType::ALL.into_iter().flat_map(|from| DType::ALL.map(|to| (from, to))) {
        for n in [0, 1, 15, 33, 20_000] {
            let op = Cast::new(n, from, to);
            let want = check(op, &random(op, 4), &[]);
            assert_eq!(want[0], rounded(to, &rounded(from, &random(op, 4)[0])));
        }
        check(Cast::new(special.len(), from, to), &[special.to_vec()], &[]);
    }
    assert!(Op::from(Cast::new(1, DType::U8, DType::F32)).operands().unwrap_err().to_string().contains("u8"));
    assert!(Op::from(Cast::new(1, DType::F32, DType::U32)).operands().unwrap_err().to_string().contains("u32"));
}
