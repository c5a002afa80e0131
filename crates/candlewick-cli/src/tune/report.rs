//! A profile as one page that needs nothing else.

use super::heat::{COLOURS, map};
use super::summary::{gain, groups, wins};
use crate::report::grid::escape;
use candlewick::profile::{Profile, Row};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark; --page: #fff; --text: #1c1e21; --faint: #667; --line: #e3e5ea; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --text: #e6e8ec; --faint: #9aa0ad; --line: #2b2f37; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 36px 0 4px; } p { margin: 4px 0 12px; max-width: 80ch; } .faint { color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 14px 0; font-size: 14px; } dt { color: var(--faint); } dd { margin: 0; }
.ops { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 0 36px; } .ops .wide { grid-column: 1 / -1; }
.maps { display: flex; flex-wrap: wrap; gap: 22px 36px; align-items: flex-start; } .maps > div { flex: 0 1 auto; min-width: 240px; max-width: 100%; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: var(--text); } svg text.faint { fill: var(--faint); } svg text.title { font-weight: 600; }
svg g:hover rect { stroke: var(--text); }
.key { list-style: none; padding: 0; margin: 8px 0 14px; display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14px; } .key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 7px; }
@media (max-width: 560px) { body { padding: 16px 12px 40px; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; } }
";

/// The page.
pub(super) fn page(profile: &Profile) -> String {
    let machine = &profile.machine;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Candlewick tune: {name}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>Candlewick tune</h1>\n\
         <p class=\"faint\">{name}, {date}</p>\n<dl>\n",
        name = escape(&machine.name),
        date = escape(&profile.date),
    );
    let mut facts: Vec<(String, String)> = vec![("device".into(), machine.device.clone())];
    facts.extend(machine.facts.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts.push(("Candlewick".into(), profile.candlewick.clone()));
    facts.push(("measured".into(), profile.settings.clone()));
    if let Some(seconds) = profile.seconds_per_thread {
        facts.push(("a thread pays from".into(), format!("{:.1} µs of work on", seconds * 1e6)));
    }
    if let Some(operations) = profile.operations_per_command_buffer {
        facts.push(("a command buffer holds".into(), format!("{operations} operations")));
    }
    for (name, value) in &facts {
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    }
    page += "</dl>\n<p>A cell is a shape. Its colour is the fastest engine there; its number is that engine's share of the \
             least time that the machine could take, in percent, by its measured arithmetic and memory rates. Sizes stand \
             for all up to them. Pointed at, a cell shows every engine's time.</p>\n";
    page += "<div class=\"ops\">\n";
    for ((op, dtype), rows) in groups(profile) {
        section(&mut page, &op, &dtype, &rows);
    }
    page + "</div>\n</body></html>\n"
}

fn section(page: &mut String, op: &str, dtype: &str, rows: &[&Row]) {
    let wins = wins(rows);
    let engines: Vec<&str> = wins.iter().map(|(engine, _)| *engine).collect();
    let (axes, panels) = panels(op, rows);
    let class = if panels.len() > 2 { " class=\"wide\"" } else { "" };
    let _ = writeln!(page, "<section{class}><h2>{} <span class=\"faint\">{}</span></h2>", escape(op), escape(dtype));
    if let Some(gain) = gain(rows).filter(|gain| *gain > 1.005) {
        let text = "Choosing by shape against the best engine alone, geometric mean";
        let _ = writeln!(page, "<p class=\"faint\">{text}: {gain:.2}x.</p>");
    }
    *page += "<ul class=\"key\">\n";
    for (at, (engine, count)) in wins.iter().enumerate() {
        let colour = COLOURS.get(at).copied().unwrap_or("#999999");
        let shapes = if *count == 1 { "shape" } else { "shapes" };
        let _ = writeln!(page, "<li><i style=\"background:{colour}\"></i>{} ({count} {shapes})</li>", escape(engine));
    }
    *page += "</ul>\n<div class=\"maps\">\n";
    for (title, rows) in panels {
        let _ = writeln!(page, "<div>{}</div>", map(&title, axes, &rows, &engines));
    }
    *page += "</div></section>\n";
}

/// The names of the axes, and a map's rows for each combination of the other sizes, by its title.
fn panels<'a>(op: &str, rows: &[&'a Row]) -> ([&'static str; 2], Vec<(String, Vec<&'a Row>)>) {
    let mut names = names(op);
    let square = op.starts_with("lora") && rows.iter().all(|row| row.bucket[1] == row.bucket[2]);
    if square {
        (names[1], names[2]) = ("in = out", "");
    }
    let mut panels: BTreeMap<[u8; 2], Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let third = if square { 0 } else { row.bucket[2] };
        panels.entry([third, row.bucket[3]]).or_default().push(row);
    }
    let titled = panels.into_iter().map(|(rest, rows)| {
        let sizes = names[2..].iter().zip(rest).filter(|(name, _)| !name.is_empty());
        let title: Vec<String> = sizes.map(|(name, exponent)| format!("{name} {}", 1u64 << exponent)).collect();
        (title.join(", "), rows)
    });
    ([names[0], names[1]], titled.collect())
}

/// What the four numbers of a bucket are.
fn names(op: &str) -> [&'static str; 4] {
    match op {
        "matmul" => ["m", "n", "k", ""],
        op if op.starts_with("lora") => ["rows", "in", "out", "rank"],
        op if op.starts_with("attention") => ["queries", "keys", "heads", "head"],
        op if op.starts_with("rope") => ["rows", "heads", "head", ""],
        "cast" => ["elements", "", "", ""],
        _ => ["rows", "columns", "", ""],
    }
}
