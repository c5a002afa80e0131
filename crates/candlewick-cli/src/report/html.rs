//! The session as one page that needs nothing else.

use super::chart;
use super::grid::escape;
use super::tables;
use crate::bench::session::Session;
use std::fmt::Write as _;

const PAGE_STYLE: &str = "
:root { color-scheme: light dark; --page: #fff; --text: #1c1e21; --faint: #667; --line: #e3e5ea; --good: #177a3d; --bad: #b3261e;
  --candlewick: #1f6feb; --adapter: #0f9d8a; --candle: #d9730d; --pytorch: #b5369e; --mlx: #6b7280;
  --part-limit: #1f6feb; --part-wake: #0f9d8a; --part-contract: #7a3fd1; --part-lookup: #d9730d; --part-rest: #c3c8d2; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --text: #e6e8ec; --faint: #9aa0ad; --line: #2b2f37; --good: #5fd38a; --bad: #ff8a80;
  --candlewick: #6ea8ff; --adapter: #4fd1c0; --candle: #ffa657; --pytorch: #e58ad2; --mlx: #a3aab5;
  --part-limit: #4c8dff; --part-wake: #4fd1c0; --part-contract: #b794f6; --part-lookup: #f0883e; --part-rest: #4a505c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 6px; } h3 { font-size: 15px; margin: 26px 0 4px; } h3 .faint { font-weight: 400; }
p { margin: 4px 0 12px; max-width: 78ch; } .faint { color: var(--faint); } .good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--faint); border-bottom: 1px solid var(--line); } th, td { padding: 3px 16px 3px 0; white-space: nowrap; }
.number { text-align: right; } tr.next td { border-top: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 14px 0; font-size: 14px; } dt { color: var(--faint); } dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 30px 40px; margin: 16px 0; align-items: start; }
.key { list-style: none; padding: 0; margin: 8px 0; font-size: 14px; } .key li { padding-left: 20px; text-indent: -20px; } .key svg { display: inline-block; width: 12px; height: 12px; margin-right: 8px; }
@media (max-width: 560px) { body { padding: 16px 12px 40px; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 6px; } }
";

/// The page.
pub fn page(session: &Session) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Candlewick bench: {name}, {date}</title>\n<style>{PAGE_STYLE}{chart_style}</style></head>\n<body>\n\
         <h1>Candlewick bench</h1>\n<p class=\"faint\">{name}, {date}</p>\n",
        name = escape(&session.device.name),
        date = escape(&session.date),
        chart_style = chart::STYLE,
    );
    facts(&mut page, session);
    for warning in &session.warnings {
        let _ = writeln!(page, "<p class=\"bad\">{}</p>", escape(warning));
    }
    for regime in tables::summed_up(session) {
        let _ = write!(
            page,
            "<h2>Summary: {}</h2>\n<p class=\"faint\">{}</p>\n{}",
            regime.title(),
            escape(&tables::summary_meaning(session, regime)),
            tables::summary(session, regime).to_html()
        );
    }
    let blocks = tables::blocks(session);
    section(
        &mut page,
        "Time against size",
        "Median latency. Solid lines are libraries as they come, dotted ones the same with one thread. A point shows its figure when pointed at.",
        blocks.iter().filter_map(|block| chart::lines(session, block)).collect(),
    );
    section(
        &mut page,
        "What the time is made of",
        "Each library as it comes. The two bars of a shape have one scale.",
        blocks.iter().filter_map(|block| chart::bars(session, block)).collect(),
    );
    page += "<h2>Every figure</h2>\n<p class=\"faint\">Times in microseconds: latency is one operation waited for, pipelined the time per \
             operation of a long run closed by one wait. vs Candle: against the faster of Candle's two settings.</p>\n";
    for block in &blocks {
        let _ = write!(
            page,
            "<h3>{} <span class=\"faint\">{}</span></h3>\n{}",
            escape(&block.title),
            escape(block.meaning),
            tables::block(session, block).to_html()
        );
    }
    page += "<h2>Notes</h2>\n<ul>\n";
    for note in tables::notes(session).into_iter().chain(tables::columns(session)) {
        let _ = writeln!(page, "<li>{}</li>", escape(&note));
    }
    page + "</ul>\n</body></html>\n"
}

fn facts(page: &mut String, session: &Session) {
    *page += "<dl>\n";
    for (name, value) in session.facts() {
        let _ = writeln!(page, "<dt>{}</dt><dd>{}</dd>", escape(&name), escape(&value));
    }
    *page += "</dl>\n";
}

fn section(page: &mut String, title: &str, meaning: &str, charts: Vec<String>) {
    if charts.is_empty() {
        return;
    }
    let _ = write!(page, "<h2>{title}</h2>\n<p class=\"faint\">{meaning}</p>\n");
    if charts.iter().any(|chart| chart.contains("part-limit")) {
        *page += "<ul class=\"key\">\n";
        for (class, text) in chart::BARS_LEGEND {
            let square =
                format!("<svg viewBox=\"0 0 12 12\"><rect class=\"{class}\" width=\"12\" height=\"12\"/></svg>");
            let _ = writeln!(page, "<li>{square}{text}</li>");
        }
        *page += "</ul>\n";
    }
    let _ = writeln!(page, "<div class=\"charts\">\n{}</div>", charts.concat());
}
