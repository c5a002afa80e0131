//! A plan as a picture: its operations from top to bottom in their order, and who reads whose result.

use super::Plan;
use super::graph::Kind;
use std::fmt::Write as _;

/// Of a box, in pixels.
const WIDTH: usize = 520;
const HEIGHT: usize = 26;
/// Between boxes.
const GAP: usize = 12;

/// Who writes what whom reads: from, to, and the tensor's name.
type Edge = (usize, usize, String);

impl Plan {
    /// The graph in Graphviz's language: operations as boxes, tensors as edges; inputs, constants and states as ellipses.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph plan {\n  node [shape=box fontname=\"sans-serif\"];\n");
        for (at, node) in self.graph.nodes.iter().enumerate() {
            let _ = writeln!(text, "  n{at} [label=\"{}\\n{}\"];", node.op, self.kernels[at].engine());
        }
        for (from, to, name) in self.edges() {
            let _ = writeln!(text, "  n{from} -> n{to} [label=\"{}\"];", escape(&name));
        }
        for (at, node) in self.graph.nodes.iter().enumerate() {
            for &input in &node.inputs {
                let storage = self.graph.view(input).storage;
                if !matches!(self.graph.storages[storage].kind, Kind::Temporary { .. }) {
                    let name = escape(&self.graph.storages[storage].name);
                    let _ = writeln!(text, "  s{storage} [shape=ellipse label=\"{name}\"];\n  s{storage} -> n{at};");
                }
            }
        }
        text.push_str("}\n");
        text
    }

    /// The same as an SVG that needs nothing else: a box per operation in the order of the run, an arc per tensor to each
    /// of its readers, longer lives further to the right.
    pub fn svg(&self) -> String {
        let step = HEIGHT + GAP;
        let edges = self.edges();
        let longest = edges.iter().map(|(from, to, _)| to - from).max().unwrap_or(0);
        let reach = |length: usize| 30.0 + 34.0 * (length as f64).sqrt();
        let (right, bottom) = (WIDTH as f64 + reach(longest) + 40.0, self.graph.nodes.len() * step + GAP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {right:.0} {bottom}\" width=\"{right:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        for (from, to, name) in &edges {
            let y = |at: usize| (GAP + at * step + HEIGHT / 2) as f64;
            let (top, foot, x) = (y(*from), y(*to), WIDTH as f64);
            if to - from == 1 {
                let (x, top, foot) = (WIDTH / 2, from * step + GAP + HEIGHT, to * step + GAP);
                let _ = writeln!(
                    svg,
                    "<path d=\"M{x} {top}V{foot}\" stroke=\"#6b7280\" fill=\"none\"><title>{}</title></path>",
                    escape(name)
                );
                continue;
            }
            let bend = x + reach(to - from);
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {top}C{bend:.0} {top} {bend:.0} {foot} {x} {foot}\" stroke=\"#1f6feb\" stroke-opacity=\"0.6\" fill=\"none\"><title>{}</title></path>",
                escape(name)
            );
        }
        for (at, node) in self.graph.nodes.iter().enumerate() {
            let y = GAP + at * step;
            let (label, engine) = (escape(&format!("{at}  {}", node.op)), self.kernels[at].engine());
            let _ = writeln!(
                svg,
                "<rect x=\"8\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" rx=\"5\" fill=\"#eef2f7\" stroke=\"#c5cfdb\"/>\n\
                 <text x=\"18\" y=\"{}\">{label}</text>\n\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#6b7280\">{engine}</text>",
                WIDTH - 8,
                y + 17,
                WIDTH - 10,
                y + 17
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// From every operation to the operations that read what it wrote last.
    fn edges(&self) -> Vec<Edge> {
        let mut writer: Vec<Option<usize>> = vec![None; self.graph.storages.len()];
        let mut edges = Vec::new();
        for (at, node) in self.graph.nodes.iter().enumerate() {
            for &input in &node.inputs {
                let from = writer[self.graph.view(input).storage];
                edges.extend(from.map(|from| (from, at, self.name_of(input))));
            }
            for &output in &node.outputs {
                writer[self.graph.view(output).storage] = Some(at);
            }
        }
        edges.dedup_by(|a, b| (a.0, a.1) == (b.0, b.1));
        edges
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
