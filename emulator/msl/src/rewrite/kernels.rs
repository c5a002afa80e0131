//! Kernels: their definitions with the attributes of the parameters, and explicit instantiations with a host name.

use std::collections::HashMap;
use std::ops::Range;

use super::items::{Item, ItemKind, walk};
use super::source::{Attribute, Source};
use super::{Failure, Result};

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Where its value comes from: a template of `emulator/entry.h`.
    pub origin: String,
}

/// A kernel that the host can name.
#[derive(Debug)]
pub struct Kernel {
    /// The name for the host.
    pub host_name: String,
    /// The function, with its template arguments.
    pub function: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// `[[max_total_threads_per_threadgroup(n)]]`, or `0`.
    pub max_total_threads: String,
    /// Where it is made.
    pub line: u32,
}

#[derive(Clone)]
struct Definition {
    parameters: Vec<Parameter>,
    max_total_threads: String,
}

/// Attributes whose value each lane gets, as emulator/lane.h names them.
const LANE_VALUES: [&str; 19] = [
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threads_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "threads_per_grid",
    "threadgroups_per_grid",
    "thread_index_in_threadgroup",
    "simdgroup_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "threads_per_simdgroup",
    "thread_execution_width",
    "simdgroups_per_threadgroup",
    "dispatch_simdgroups_per_threadgroup",
    "thread_index_in_quadgroup",
    "quadgroup_index_in_threadgroup",
    "quadgroups_per_threadgroup",
    "grid_origin",
    "grid_size",
];

/// Finds all kernels and takes the explicit instantiations out: the table of kernels instantiates them.
pub fn take(source: &mut Source<'_>, items: &[Item]) -> Result<Vec<Kernel>> {
    let mut definitions = HashMap::new();
    let mut kernels = Vec::new();
    let mut instantiations = Vec::new();
    let mut limits = Vec::new();
    let mut failure = None;
    walk(items, source, "", &mut |item, scope| match item.kind {
        ItemKind::Function if is_kernel(source, item) => match define(source, item) {
            Ok((name, definition)) => {
                if !source.is(item.head.start, "template") {
                    let host_name = host_name(source, &item.head).unwrap_or_else(|| name.clone());
                    kernels.push(make(&definition, host_name, format!("{scope}{name}"), source.line(item.head.start)));
                }
                limits.extend(limit(source, item, &name, &definition));
                definitions.insert(name, definition);
            }
            Err(error) => failure = failure.take().or(Some(error)),
        },
        ItemKind::Other if source.is(item.head.start, "template") && !source.is(item.head.start + 1, "<") => {
            instantiations.push((item.all.clone(), item.head.clone(), scope.to_owned()));
        }
        _ => {}
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    for (all, head, scope) in instantiations {
        if let Some(host_name) = host_name(source, &head) {
            let line = source.line(head.start);
            let (name, arguments) = instantiated(source, &head).ok_or_else(|| {
                Failure::new(line, "an explicit instantiation without template arguments is not supported")
            })?;
            let definition = definitions
                .get(&name)
                .ok_or_else(|| Failure::new(line, format!("explicit instantiation of '{name}', which is no kernel")))?;
            let mut kernel = make(definition, host_name, format!("{scope}{name}{arguments}"), line);
            if kernel.max_total_threads != "0" {
                kernel.max_total_threads = format!("{scope}{}{arguments}", limit_name(&name));
            }
            kernels.push(kernel);
        }
        source.erase(all);
    }
    for (start, declaration) in limits {
        let first = source.text(start).to_owned();
        source.replace(start, declaration + &first);
    }
    Ok(kernels)
}

/// A kernel template's limit of threads may depend on the template's parameters: a variable template computes it.
fn limit(source: &Source<'_>, item: &Item, name: &str, definition: &Definition) -> Option<(usize, String)> {
    let start = item.head.start;
    let close = source.closing_angle(start + 1).filter(|_| source.is(start, "template"))?;
    let value = Some(&definition.max_total_threads).filter(|value| *value != "0")?;
    let declaration = format!("{} constexpr uint32_t {} = {value}; ", source.code(start..close + 1), limit_name(name));
    Some((start, declaration))
}

fn limit_name(kernel: &str) -> String {
    format!("emulator_max_threads_of_{kernel}")
}

fn make(definition: &Definition, host_name: String, function: String, line: u32) -> Kernel {
    let Definition { parameters, max_total_threads } = definition.clone();
    Kernel { host_name, function, parameters, max_total_threads, line }
}

fn is_kernel(source: &Source<'_>, item: &Item) -> bool {
    item.head.clone().any(|i| source.is(i, "kernel"))
        && (attributes_of_head(source, &item.head).iter().any(|attribute| attribute.name == "kernel")
            || (item.head.start..parameter_list(source, &item.head).map_or(item.head.start, |list| list.start))
                .any(|i| source.is(i, "kernel")))
}

fn attributes_of_head(source: &Source<'_>, head: &Range<usize>) -> Vec<Attribute> {
    source.attributes(head.clone())
}

fn host_name(source: &Source<'_>, head: &Range<usize>) -> Option<String> {
    let attribute = attributes_of_head(source, head).into_iter().find(|attribute| attribute.name == "host_name")?;
    Some(source.string(attribute.arguments))
}

/// The parentheses with the parameters of a function.
fn parameter_list(source: &Source<'_>, head: &Range<usize>) -> Option<Range<usize>> {
    let mut at = head.start;
    while at < head.end {
        match source.text(at) {
            "(" => return Some(at..source.closing(at) + 1),
            "alignas" | "__attribute__" | "decltype" => at = source.after_group(at + 1),
            _ => at = source.after_group(at),
        }
    }
    None
}

fn define(source: &Source<'_>, item: &Item) -> Result<(String, Definition)> {
    let line = source.line(item.head.start);
    let list = parameter_list(source, &item.head).ok_or_else(|| Failure::new(line, "kernel without parameters"))?;
    let name = source.text(list.start - 1).to_owned();
    let max_total_threads = attributes_of_head(source, &item.head)
        .into_iter()
        .find(|attribute| attribute.name == "max_total_threads_per_threadgroup")
        .map_or_else(|| "0".to_owned(), |attribute| source.code(attribute.arguments));
    let parts = source.split_at_commas(list.start + 1..list.end - 1);
    Ok((name, Definition { parameters: parameters(source, parts)?, max_total_threads }))
}

/// Parameters without an index get the ones that are free, in their order.
fn parameters(source: &Source<'_>, parts: Vec<Range<usize>>) -> Result<Vec<Parameter>> {
    let indexed = |attribute: &Attribute, name: &str| {
        (attribute.name == name).then(|| source.code(attribute.arguments.clone()).parse::<u32>().ok()).flatten()
    };
    let taken = |name: &str| -> Vec<u32> {
        let attributes = parts.iter().flat_map(|part| source.attributes(part.clone()));
        attributes.filter_map(|attribute| indexed(&attribute, name)).collect()
    };
    let mut free_buffers = Free::new(taken("buffer"));
    let mut free_threadgroup = Free::new(taken("threadgroup"));
    parts.iter().map(|part| parameter(source, part, &mut free_buffers, &mut free_threadgroup)).collect()
}

struct Free {
    taken: Vec<u32>,
    next: u32,
}

impl Free {
    fn new(taken: Vec<u32>) -> Self {
        Free { taken, next: 0 }
    }

    fn index(&mut self) -> String {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        (self.next - 1).to_string()
    }
}

fn parameter(
    source: &Source<'_>,
    part: &Range<usize>,
    buffers: &mut Free,
    threadgroup: &mut Free,
) -> Result<Parameter> {
    let end_of_name = part.clone().find(|i| source.is(*i, "[")).unwrap_or(part.end);
    let name = (part.start..end_of_name).rfind(|i| source.is_word(*i)).map_or("", |i| source.text(i)).to_owned();
    let attributes = source.attributes(part.clone());
    let constant = attributes.iter().find(|attribute| attribute.name == "function_constant");
    let constant =
        constant.map_or(String::new(), |attribute| format!(", &{}", source.code(attribute.arguments.clone())));
    let mut origin = None;
    for attribute in &attributes {
        let index = source.code(attribute.arguments.clone());
        origin = Some(match attribute.name.as_str() {
            "buffer" => format!("emulator::Buffer<{index}{constant}>"),
            "threadgroup" => format!("emulator::ThreadgroupMemory<{index}{constant}>"),
            name if LANE_VALUES.contains(&name) => format!("emulator::Value<&emulator::LaneValues::{name}>"),
            "function_constant" | "maybe_unused" => continue,
            other => {
                let text = format!("parameter '{name}': [[{other}]] is not supported by the emulator");
                return Err(Failure::new(source.line(part.start), text));
            }
        });
    }
    let origin = origin.unwrap_or_else(|| {
        if part.clone().any(|i| source.is(i, "threadgroup")) {
            format!("emulator::ThreadgroupMemory<{}{constant}>", threadgroup.index())
        } else {
            format!("emulator::Buffer<{}{constant}>", buffers.index())
        }
    });
    Ok(Parameter { name, origin })
}

/// The name and the template arguments of `template .. name<arguments>;` or `.. name<arguments>(parameters);`.
fn instantiated(source: &Source<'_>, head: &Range<usize>) -> Option<(String, String)> {
    let mut last = head.end - 1;
    while source.is(last, "]") {
        last = source.opening(last) - 1;
    }
    if source.is(last, ")") {
        last = source.opening(last) - 1;
    }
    let open = source.is(last, ">").then(|| source.opening_angle(last)).flatten()?;
    Some((source.text(open - 1).to_owned(), source.code(open..last + 1)))
}
