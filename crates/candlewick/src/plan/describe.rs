//! What a plan consists of, as text.

use super::Plan;
use super::graph::Kind;
use std::fmt::Write as _;

impl Plan {
    /// A table of the operations, in order: engine, what is read and written, where the result lies and how long it lives,
    /// FLOPs and least bytes moved; then the memory.
    pub fn describe(&self) -> String {
        let head = ["", "operation", "engine", "reads", "writes", "arena bytes", "alive", "MFLOP", "KiB moved"];
        let mut rows: Vec<[String; 9]> = vec![head.map(String::from)];
        for (at, (node, kernel)) in self.graph.nodes.iter().zip(&self.kernels).enumerate() {
            let names = |tensors: &[super::Tensor]| {
                tensors.iter().map(|&tensor| self.name_of(tensor)).collect::<Vec<_>>().join(", ")
            };
            let (mut places, mut lives) = (Vec::new(), Vec::new());
            for &output in &node.outputs {
                let storage = self.graph.view(output).storage;
                let bytes = self.graph.storages[storage].elements * self.graph.storages[storage].dtype.bytes();
                places.push(match self.layout.offsets[storage] {
                    Some(offset) => format!("{offset}..{}", offset + bytes),
                    None => "own".into(),
                });
                let life = &self.layout.lives[storage];
                lives.push(format!("{}..{}", life.start, life.end));
            }
            rows.push([
                at.to_string(),
                node.op.to_string(),
                kernel.engine().to_string(),
                names(&node.inputs),
                names(&node.outputs),
                places.join(", "),
                lives.join(", "),
                format!("{:.3}", node.op.flops() / 1e6),
                format!("{:.1}", node.op.bytes() / 1024.0),
            ]);
        }
        let mut text = table(&rows);
        let (flops, bytes) = self
            .graph
            .nodes
            .iter()
            .fold((0.0, 0.0), |(flops, bytes), node| (flops + node.op.flops(), bytes + node.op.bytes()));
        // Constants that are read as a part of others alone have no memory.
        let used = |storage: usize| !self.layout.lives[storage].is_empty();
        let of = |wanted: fn(&Kind) -> bool| -> usize {
            let storages =
                self.graph.storages.iter().enumerate().filter(|&(i, storage)| used(i) && wanted(&storage.kind));
            storages.map(|(_, storage)| storage.elements * storage.dtype.bytes()).sum()
        };
        let kib = |bytes: usize| bytes.div_ceil(1024);
        let _ = write!(
            text,
            "\n{} operations, {:.3} MFLOP, {:.1} KiB moved at the least\narena {} KiB (side by side its tensors would take {} KiB), constants {} KiB, states {} KiB\n",
            self.graph.nodes.len(),
            flops / 1e6,
            bytes / 1024.0,
            kib(self.layout.bytes),
            kib(self.layout.apart),
            kib(of(|kind| matches!(kind, Kind::Constant(_)))),
            kib(of(|kind| matches!(kind, Kind::State(_)))),
        );
        if self.rewrites.saved() > 0 {
            let _ = writeln!(text, "rewritten, {} operations fewer: {}", self.rewrites.saved(), self.rewrites);
        }
        for activations in &self.graph.activations {
            let _ = writeln!(text, "{activations}");
        }
        text
    }

    /// Bytes of the constants that it reads, in every form in which they are kept: packed for one side, for the other, plain.
    /// Plans of a session share them.
    pub fn constant_bytes(&self) -> usize {
        let bytes = |storage: &super::graph::Storage| {
            let Kind::Constant(shared) = &storage.kind else { return 0 };
            let forms = shared.tensor().forms();
            let packed = forms.packed.iter().map(|(packing, _)| packing.k * packing.n * packing.dtype.bytes());
            let plain = if forms.plain.is_some() { storage.elements * storage.dtype.bytes() } else { 0 };
            packed.sum::<usize>() + plain
        };
        self.graph.storages.iter().map(bytes).sum()
    }

    /// A tensor's name: the caller's for inputs, constants and states, the writer's number for temporaries.
    pub(super) fn name_of(&self, tensor: super::Tensor) -> String {
        let (view, storage) = (self.graph.view(tensor), self.graph.storage(tensor));
        let name = match storage.kind {
            Kind::Temporary { .. } => format!("{}{}", storage.name, self.layout.lives[view.storage].start),
            _ => storage.name.clone(),
        };
        match view.part_of {
            Some((_, first)) => format!("{name}[{first}..{}]", first + view.cols),
            None => name,
        }
    }
}

/// Columns as wide as their widest cell; numbers in the last two stand right.
fn table(rows: &[[String; 9]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 | 7 | 8 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
