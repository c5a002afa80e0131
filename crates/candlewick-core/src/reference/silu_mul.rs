use crate::SiluMul;

pub(super) fn forward(op: &SiluMul, gate: &[f64], up: &[f64], y: &mut [f64]) {
    for row in 0..op.rows {
        for j in 0..op.cols {
            let gate = gate[row * op.gate_row + j];
            y[row * op.y_row + j] = gate / (1.0 + (-gate).exp()) * up[row * op.up_row + j];
        }
    }
}

pub(super) fn backward(op: &SiluMul, gate: &[f64], up: &[f64], dy: &[f64], dgate: &mut [f64], dup: &mut [f64]) {
    for row in 0..op.rows {
        for j in 0..op.cols {
            let (g, u) = (row * op.gate_row + j, row * op.up_row + j);
            let (gate, up, dy) = (gate[g], up[u], dy[row * op.y_row + j]);
            let s = 1.0 / (1.0 + (-gate).exp());
            dgate[g] = dy * up * s * (1.0 + gate * (1.0 - s));
            dup[u] = dy * gate * s;
        }
    }
}
