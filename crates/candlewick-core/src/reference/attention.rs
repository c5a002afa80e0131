use super::{part, part_mut};
use crate::Attention;
use crate::op::Span;

pub(super) fn forward(op: &Attention, q: &[f64], k: &[f64], v: &[f64], spans: &[f64], y: &mut [f64], lse: &mut [f64]) {
    for query in 0..op.queries {
        let seen = seen(op, spans, query);
        for head in 0..op.heads {
            let y = part_mut(y, query * op.y_row + head * op.head, op.head);
            y.fill(0.0);
            lse[query * op.heads + head] = f64::NEG_INFINITY;
            if seen.is_empty() {
                continue;
            }
            let scores: Vec<f64> = seen.clone().map(|key| score(op, q, k, query, key, head)).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            lse[query * op.heads + head] = max + sum.ln();
            for (key, score) in seen.clone().zip(scores) {
                let v = part(v, key * op.v_row + head / op.group() * op.head, op.head);
                y.iter_mut().zip(v).for_each(|(y, v)| *y += (score - max).exp() / sum * v);
            }
        }
    }
}

/// q, k, v, spans, y, lse, dy.
pub(super) fn backward(op: &Attention, inputs: [&[f64]; 7], dq: &mut [f64], dk: &mut [f64], dv: &mut [f64]) {
    let [q, k, v, spans, y, lse, dy] = inputs;
    let clear = |gradient: &mut [f64], rows: usize, row: usize, cols: usize| {
        (0..rows).for_each(|i| part_mut(gradient, i * row, cols).fill(0.0));
    };
    clear(dq, op.queries, op.q_row, op.heads * op.head);
    clear(dk, op.keys, op.k_row, op.kv_heads * op.head);
    clear(dv, op.keys, op.v_row, op.kv_heads * op.head);
    for query in 0..op.queries {
        for head in 0..op.heads {
            let (of_q, of_y) = (query * op.q_row + head * op.head, query * op.y_row + head * op.head);
            let row: f64 = (0..op.head).map(|j| dy[of_y + j] * y[of_y + j]).sum();
            for key in seen(op, spans, query) {
                let kv = head / op.group() * op.head;
                let (of_k, of_v) = (key * op.k_row + kv, key * op.v_row + kv);
                let p = (score(op, q, k, query, key, head) - lse[query * op.heads + head]).exp();
                let dp: f64 = (0..op.head).map(|j| dy[of_y + j] * v[of_v + j]).sum();
                let ds = f64::from(op.scale.get()) * p * (dp - row);
                for j in 0..op.head {
                    dv[of_v + j] += p * dy[of_y + j];
                    dq[of_q + j] += ds * k[of_k + j];
                    dk[of_k + j] += ds * q[of_q + j];
                }
            }
        }
    }
}

/// The keys that a query sees: those of the first span that the query is in.
fn seen(op: &Attention, spans: &[f64], query: usize) -> std::ops::Range<usize> {
    let holds = |span: &Span| (span.query..span.query + span.queries).contains(&query);
    let mut rows = spans.chunks_exact(4).take(op.sequences);
    let span = rows.find_map(|row| {
        let span = op.span([0, 1, 2, 3].map(|i| row[i] as u32));
        holds(&span).then_some(span)
    });
    span.map_or(0..0, |span| span.key..span.key + op.visible(&span, query - span.query))
}

fn score(op: &Attention, q: &[f64], k: &[f64], query: usize, key: usize, head: usize) -> f64 {
    let q = part(q, query * op.q_row + head * op.head, op.head);
    let k = part(k, key * op.k_row + head / op.group() * op.head, op.head);
    f64::from(op.scale.get()) * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()
}
