//! A profile on the terminal: how often each engine wins, what it gains, when threads pay.

use crate::report::grid::{Cell, Grid, Tone};
use candlewick::profile::{CANDLE, Profile, Row, Source};
use std::collections::BTreeMap;

/// Rows of one operation and dtype.
pub(super) fn groups(profile: &Profile) -> BTreeMap<(String, String), Vec<&Row>> {
    let mut groups: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in profile.rows.iter().filter(|row| !row.times.is_empty()) {
        groups.entry((row.op.clone(), row.dtype.clone())).or_default().push(row);
    }
    groups
}

/// Engines by how often they win, with how often.
pub(super) fn wins<'a>(rows: &[&'a Row]) -> Vec<(&'a str, usize)> {
    let mut wins: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *wins.entry(&row.times[0].engine).or_default() += 1;
    }
    let mut wins: Vec<(&str, usize)> = wins.into_iter().collect();
    wins.sort_by_key(|&(engine, count)| (std::cmp::Reverse(count), engine));
    wins
}

/// How many times faster the best engine per shape is in total than the one engine that is best overall; 1 where one
/// engine always wins. Only of engines that ran every shape.
pub(super) fn gain(rows: &[&Row]) -> Option<f64> {
    let best: f64 = rows.iter().map(|row| row.times[0].microseconds.ln()).sum();
    let engines = rows.first()?.times.iter().map(|time| &time.engine);
    let alone = engines.filter_map(|engine| {
        let time = |row: &&Row| row.times.iter().find(|time| time.engine == *engine).map(|time| time.microseconds.ln());
        rows.iter().map(time).sum::<Option<f64>>()
    });
    let alone = alone.fold(f64::INFINITY, f64::min);
    alone.is_finite().then(|| ((alone - best) / rows.len() as f64).exp())
}

pub(super) fn print(profile: &Profile, source: &Source) {
    let mut grid = Grid::new(
        &["operation", "dtype", "fastest engine at how many shapes"],
        &["shapes", "share of limit", "choosing gains"],
    );
    for ((op, dtype), rows) in groups(profile) {
        let wins = wins(&rows).iter().map(|(engine, count)| format!("{engine} {count}")).collect::<Vec<_>>().join(", ");
        let mut shares: Vec<f64> = rows.iter().map(|row| row.limit / row.times[0].microseconds).collect();
        shares.sort_by(f64::total_cmp);
        let gained = gain(&rows).map_or_else(|| "–".to_owned(), |gain| format!("{gain:.2}x"));
        grid.push(vec![
            Cell::new(op, Tone::Strong),
            dtype.into(),
            wins.into(),
            rows.len().to_string().into(),
            format!("{:.0} %", 100.0 * shares[shares.len() / 2]).into(),
            gained.into(),
        ]);
    }
    println!("{}, {}", profile.machine.name, profile.date);
    anstream::print!("{}", grid.to_terminal());
    println!(
        "share of limit: the median over the shapes, of the fastest engine; choosing gains: the geometric mean of its time \
         against the\none engine that is best alone"
    );
    let on_tensors = profile.rows.iter().filter_map(|row| row.on_candle_tensors.first());
    let (candles, ours): (Vec<_>, Vec<_>) = on_tensors.partition(|fastest| fastest.engine == CANDLE.to_string());
    if !candles.is_empty() || !ours.is_empty() {
        let all = candles.len() + ours.len();
        println!("on Candle's tensors, Candle's own is faster at {} of {all} shapes", candles.len());
    }
    if let Some(seconds) = profile.seconds_per_thread {
        println!("a thread pays from {:.1} µs of work on", seconds * 1e6);
    }
    if let Some(operations) = profile.operations_per_command_buffer {
        println!("a command buffer holds {operations} operations");
    }
    match source {
        Source::Measured(path) => println!("the profile is {}; `candlewick dispatch explain` reads it", path.display()),
        Source::BuiltIn(name) => println!("the profile is built in: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::profile::Time;

    #[test]
    fn choosing_gains_where_no_engine_always_wins() {
        let row = |times: [(&str, f64); 2]| Row {
            op: "matmul".into(),
            dtype: "f32".into(),
            shape: String::new(),
            bucket: [0; 4],
            limit: 1.0,
            times: times.map(|(engine, microseconds)| Time { engine: engine.into(), microseconds, samples: 1 }).into(),
            on_candle_tensors: Vec::new(),
        };
        let rows = [row([("a", 1.0), ("b", 4.0)]), row([("b", 1.0), ("a", 4.0)])];
        let rows: Vec<&Row> = rows.iter().collect();
        assert!((gain(&rows).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(wins(&rows), [("a", 1), ("b", 1)]);
        assert!((gain(&rows[..1]).unwrap() - 1.0).abs() < 1e-9);
    }
}
