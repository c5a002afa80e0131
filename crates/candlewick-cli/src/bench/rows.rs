//! The results as flat rows: what `--json` writes and every table prints.

use super::contenders::Maker;
use super::rounds::{Entry, Measured};
use super::stats::Micros;
use super::timing::Regime;
use candlewick::Limits;
use serde::Serialize;

/// One engine with one setting, in one regime.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `lora_linear+backward`.
    pub op: &'static str,
    /// `32x512x512 r8`.
    pub shape: String,
    /// `f32`.
    pub dtype: &'static str,
    /// `cpu`.
    pub device: String,
    /// `cpu/avx512`, `candlewick-candle`, `candle`, `pytorch`.
    pub engine: String,
    /// `as it comes` or `one thread`.
    pub setting: &'static str,
    /// Threads that it used, or was allowed where it does not say.
    pub threads: usize,
    /// How it was timed.
    pub regime: Regime,
    /// What was measured.
    pub microseconds: Micros,
    /// Floating-point operations.
    pub flops: f64,
    /// The least bytes moved.
    pub bytes: f64,
    /// The least time that the machine can take with the threads that were allowed, over the median.
    pub share_of_limit: Option<f64>,
    /// max |y - reference| / max |reference|, against f64 on the same inputs.
    pub error: Option<f64>,
    /// The median of Candle's faster setting over this median, in the same regime.
    pub ratio_to_candle: Option<f64>,
    /// What a reader of the figures must know.
    pub note: Option<String>,
}

/// Candle's faster setting in a regime, in microseconds: what every ratio is taken against.
pub fn better_candle(entries: &[Entry], regime: Regime) -> Option<f64> {
    let candle = entries.iter().filter(|entry| entry.maker == Maker::Candle);
    candle.filter_map(|entry| Some(entry.times.get(&regime)?.median)).min_by(f64::total_cmp)
}

/// The rates of the machine with as many threads as an entry was allowed.
pub fn limits_of<'a>(limits: &'a [Limits], entry: &Entry) -> Option<&'a Limits> {
    limits.iter().find(|limits| limits.threads == entry.threads_allowed)
}

/// The least time over the measured one, of 1; none where there is no limit.
pub fn share_of_limit(measured: &Measured, entry: &Entry, limits: &[Limits], micros: f64) -> Option<f64> {
    let share = measured.case.limit_seconds(limits_of(limits, entry)?) * 1e6 / micros;
    (share.is_finite() && share > 0.0).then_some(share)
}

/// The rows of one case.
pub fn rows(measured: &Measured, device: &str, limits: &[Limits]) -> Vec<Row> {
    let case = &measured.case;
    let mut rows = Vec::new();
    for entry in &measured.entries {
        for (&regime, &microseconds) in &entry.times {
            rows.push(Row {
                op: case.op_name(),
                shape: case.shape.to_string(),
                dtype: case.dtype.name(),
                device: device.to_owned(),
                engine: entry.engine.clone(),
                setting: if entry.one_thread { "one thread" } else { "as it comes" },
                threads: entry.threads_used.unwrap_or(entry.threads_allowed),
                regime,
                microseconds,
                flops: case.flops(),
                bytes: case.bytes(),
                share_of_limit: share_of_limit(measured, entry, limits, microseconds.median),
                error: entry.error.filter(|error| error.is_finite()),
                ratio_to_candle: better_candle(&measured.entries, regime)
                    .filter(|_| entry.maker != Maker::Candle)
                    .map(|candle| candle / microseconds.median),
                note: entry.note.clone(),
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::DType;
    use std::collections::BTreeMap;

    #[test]
    fn ratios_are_against_the_better_candle_and_shares_against_the_own_threads() {
        let entry = |maker, threads: usize, median| Entry {
            maker,
            one_thread: threads == 1,
            forced: false,
            engine: "x/y".into(),
            threads_allowed: threads,
            threads_used: None,
            note: None,
            error: Some(1e-7),
            times: BTreeMap::from([(Regime::Latency, Micros { min: median, median, p90: median })]),
        };
        let entries =
            vec![entry(Maker::Candlewick, 2, 1.0), entry(Maker::Candle, 2, 30.0), entry(Maker::Candle, 1, 4.0)];
        let measured = Measured { case: "matmul 64x64x64 f32".parse().unwrap(), entries, contract: None };
        // 2 * 64^3 operations in 0.5 us with two threads, in 1 us with one.
        let limits = |threads: usize| Limits {
            threads,
            flops: DType::ALL.map(|dtype| (dtype, threads as f64 * 524_288.0 * 1e6)),
            bandwidth: vec![(1e9, 1e15)],
            wake: 1e-6,
        };
        let rows = rows(&measured, "cpu", &[limits(2), limits(1)]);
        assert_eq!(rows[0].ratio_to_candle, Some(4.0));
        assert_eq!(rows[1].ratio_to_candle, None);
        let shares: Vec<f64> = rows.iter().map(|row| row.share_of_limit.unwrap()).collect();
        assert!((shares[0] - 0.5).abs() < 1e-9 && (shares[2] - 0.25).abs() < 1e-9, "{shares:?}");
        let json = serde_json::to_value(&rows[0]).unwrap();
        for field in ["op", "shape", "dtype", "device", "engine", "regime", "flops", "bytes", "share_of_limit", "error"]
        {
            assert!(json.get(field).is_some(), "{field}");
        }
        for field in ["min", "median", "p90"] {
            assert!(json["microseconds"][field].is_f64(), "{field}");
        }
        assert_eq!(json["regime"], "latency");
    }
}
