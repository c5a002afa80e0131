//! The parameters of kernels and their attributes (Metal Shading Language Specification, 5.2).

use std::collections::HashMap;
use std::ops::Range;

use super::{Source, Violation};
use crate::outline::{Attribute, Function, attribute_end, attributes};
use crate::token::{after_angle, after_closing, split_at_commas};
use crate::translate::is_vector_name;

/// Attributes that give a kernel's parameter a value, with the widths it may have (5.2.3.6).
const BUILT_INS: [(&str, &[u8]); 19] = [
    ("thread_position_in_grid", &[1, 2, 3]),
    ("thread_position_in_threadgroup", &[1, 2, 3]),
    ("threadgroup_position_in_grid", &[1, 2, 3]),
    ("threads_per_grid", &[1, 2, 3]),
    ("threads_per_threadgroup", &[1, 2, 3]),
    ("dispatch_threads_per_threadgroup", &[1, 2, 3]),
    ("threadgroups_per_grid", &[1, 2, 3]),
    ("grid_origin", &[1, 2, 3]),
    ("grid_size", &[1, 2, 3]),
    ("thread_index_in_threadgroup", &[1]),
    ("thread_index_in_simdgroup", &[1]),
    ("thread_index_in_quadgroup", &[1]),
    ("thread_execution_width", &[1]),
    ("threads_per_simdgroup", &[1]),
    ("simdgroup_index_in_threadgroup", &[1]),
    ("simdgroups_per_threadgroup", &[1]),
    ("dispatch_simdgroups_per_threadgroup", &[1]),
    ("quadgroup_index_in_threadgroup", &[1]),
    ("quadgroups_per_threadgroup", &[1]),
];

/// All other attributes that Metal knows, in graphics and ray tracing, too.
const OTHER: [&str; 82] = [
    "buffer",
    "texture",
    "sampler",
    "threadgroup",
    "function_constant",
    "host_name",
    "kernel",
    "vertex",
    "fragment",
    "visible",
    "stitchable",
    "intersection",
    "mesh",
    "object",
    "id",
    "stage_in",
    "payload",
    "color",
    "user",
    "position",
    "flat",
    "center_perspective",
    "center_no_perspective",
    "centroid_perspective",
    "centroid_no_perspective",
    "sample_perspective",
    "sample_no_perspective",
    "point_size",
    "point_coord",
    "clip_distance",
    "invariant",
    "render_target_array_index",
    "viewport_array_index",
    "vertex_id",
    "instance_id",
    "base_vertex",
    "base_instance",
    "amplification_id",
    "amplification_count",
    "front_facing",
    "primitive_id",
    "sample_id",
    "sample_mask",
    "depth",
    "stencil",
    "barycentric_coord",
    "early_fragment_tests",
    "patch",
    "patch_id",
    "position_in_patch",
    "attribute",
    "control_point_index",
    "max_total_threads_per_threadgroup",
    "max_total_threadgroups_per_mesh_grid",
    "imageblock_data",
    "explicit_imageblock",
    "implicit_imageblock",
    "imageblock",
    "raster_order_group",
    "index",
    "primitive_culled",
    "accept_intersection",
    "continue_search",
    "distance",
    "origin",
    "direction",
    "min_distance",
    "max_distance",
    "instance_intersection_function_table_offset",
    "geometry_intersection_function_table_offset",
    "geometry_id",
    "user_instance_id",
    "world_space_origin",
    "world_space_direction",
    "opaque_primitive",
    "curve_parameter",
    "primitive_data",
    "required_threads_per_threadgroup",
    "unused",
    "maybe_unused",
    "unroll",
    "user_annotation",
];

/// Attributes of C++ itself, which stand anywhere.
const STANDARD: [&str; 9] = [
    "nodiscard",
    "fallthrough",
    "deprecated",
    "noreturn",
    "likely",
    "unlikely",
    "always_inline",
    "noinline",
    "max_work_group_size",
];

/// Highest indices of the tables that a kernel's parameters lie in (Metal Feature Set Tables).
const TABLES: [(&str, u64); 4] = [("buffer", 30), ("threadgroup", 30), ("texture", 127), ("sampler", 15)];

/// Types of parameters that are neither pointers nor values.
const RESOURCES: [&str; 10] = [
    "texture",
    "depth",
    "sampler",
    "array",
    "acceleration_structure",
    "visible_function_table",
    "intersection_function_table",
    "imageblock",
    "tensor",
    "command_buffer",
];

/// Checks the attributes of the whole source, and every kernel.
pub fn check(source: &Source<'_>, found: &mut Vec<Violation>) {
    for attribute in attributes(source.tokens, 0..source.tokens.len()) {
        let name = source.tokens[attribute.name].text;
        let known = attribute.scoped
            || BUILT_INS.iter().any(|(known, _)| *known == name)
            || OTHER.contains(&name)
            || STANDARD.contains(&name);
        if !known {
            let message = format!("unknown attribute '{name}'");
            found.push(Violation::error(attribute.name, "unknown-attribute", message));
        }
    }
    for kernel in source.outline.functions.iter().filter(|function| function.kernel && !function.instantiation) {
        returns_void(source, kernel, found);
        let mut taken = HashMap::new();
        for parameter in split_at_commas(source.tokens, kernel.parameters.clone()) {
            check_parameter(source, parameter, &mut taken, found);
        }
    }
}

fn returns_void(source: &Source<'_>, kernel: &Function, found: &mut Vec<Violation>) {
    let head = &source.tokens[kernel.head.clone()];
    // The type stands right before the name, unless it is spelled in a way that only clang can follow.
    let Some(last) = head.last() else { return };
    let names_type = is_vector_name(last.text) || source.outline.types.contains(last.text) || is_number_type(last.text);
    if names_type || last.is_one_of(&["bool", "float", "half", "bfloat", "auto", "*", "&"]) {
        let message = format!("kernel '{}' must return void", source.tokens[kernel.name].text);
        found.push(Violation::error(kernel.name, "kernel-return", message));
    }
}

fn is_number_type(name: &str) -> bool {
    matches!(name, "char" | "uchar" | "short" | "ushort" | "int" | "uint" | "long" | "ulong" | "size_t")
        || matches!(
            name,
            "int8_t" | "uint8_t" | "int16_t" | "uint16_t" | "int32_t" | "uint32_t" | "int64_t" | "uint64_t"
        )
}

type Taken = HashMap<(String, u64), usize>;

fn check_parameter(source: &Source<'_>, range: Range<usize>, taken: &mut Taken, found: &mut Vec<Violation>) {
    let attributes = attributes(source.tokens, range.clone());
    let declaration = declaration_of(source, range.clone());
    if declaration.is_empty() || declaration.iter().all(|at| source.tokens[*at].is("void")) {
        return;
    }
    for attribute in &attributes {
        let name = source.tokens[attribute.name].text;
        if let Some((_, widths)) = BUILT_INS.iter().find(|(known, _)| *known == name) {
            check_built_in(source, attribute, widths, &declaration, found);
        }
        if let Some((table, highest)) = TABLES.iter().find(|(table, _)| *table == name) {
            check_index(source, attribute, table, *highest, taken, found);
        }
    }
    // An array of pointed-to bytes: `constant const long strides[2]`.
    let array = (range.start + 1..range.end).any(|at| {
        let opens = source.tokens[at].is("[") && !source.tokens[at - 1].is("[");
        opens && attribute_end(source.tokens, at).is_none()
    });
    check_space(source, &attributes, &declaration, array, found);
}

/// The tokens of a parameter without attributes and without a default.
fn declaration_of(source: &Source<'_>, range: Range<usize>) -> Vec<usize> {
    let mut declaration = Vec::new();
    let mut i = range.start;
    while i < range.end && !source.tokens[i].is("=") {
        if source.tokens[i].is("[") {
            i = after_closing(source.tokens, i);
        } else if source.tokens[i].is("<") {
            i = after_angle(source.tokens, i).unwrap_or(i + 1);
        } else {
            declaration.push(i);
            i += 1;
        }
    }
    declaration
}

/// A value from the grid is an unsigned integer of 16 or 32 bits, or a vector of such.
fn check_built_in(
    source: &Source<'_>,
    attribute: &Attribute,
    widths: &[u8],
    declaration: &[usize],
    found: &mut Vec<Violation>,
) {
    let attribute_name = source.tokens[attribute.name].text;
    let words =
        declaration.iter().map(|at| source.tokens[*at].text).filter(|text| !matches!(*text, "const" | "metal" | "::"));
    let words: Vec<&str> = words.collect();
    let Some(type_name) = words.first() else { return };
    let (scalar, width) = match type_name.strip_suffix(['2', '3', '4']) {
        Some(scalar) if is_vector_name(type_name) => (scalar, type_name.as_bytes()[type_name.len() - 1] - b'0'),
        _ => (*type_name, 1),
    };
    let unsigned = matches!(scalar, "uint" | "ushort" | "uint32_t" | "uint16_t" | "unsigned");
    // A name that is not built in may stand for anything; clang's own names for anything else do not.
    let built_in = is_vector_name(type_name)
        || is_number_type(type_name)
        || matches!(*type_name, "float" | "half" | "bool" | "bfloat");
    if (unsigned && !widths.contains(&width)) || (built_in && !unsigned) {
        let expected =
            if widths.len() == 1 { "ushort or uint" } else { "ushort, uint, or a vector of 2 or 3 of these" };
        let message = format!("type '{type_name}' is not valid for attribute '{attribute_name}': use {expected}");
        found.push(Violation::error(declaration[0], "built-in-type", message));
    } else if words.iter().any(|text| matches!(*text, "*" | "&")) {
        let message = format!("attribute '{attribute_name}' needs a value, not a pointer or a reference");
        found.push(Violation::error(declaration[0], "built-in-type", message));
    }
}

fn check_index(
    source: &Source<'_>,
    attribute: &Attribute,
    table: &str,
    highest: u64,
    taken: &mut Taken,
    found: &mut Vec<Violation>,
) {
    let [argument] = &source.tokens[attribute.arguments.clone()] else {
        if attribute.arguments.is_empty() {
            let message = format!("attribute '{table}' needs an index");
            found.push(Violation::error(attribute.name, "missing-index", message));
        }
        return;
    };
    let Ok(index) = argument.text.trim_end_matches(['u', 'U']).parse::<u64>() else { return };
    if index > highest {
        let message = format!("'{table}' attribute parameter is out of bounds: must be between 0 and {highest}");
        found.push(Violation::error(attribute.arguments.start, "index-bounds", message));
    }
    if taken.insert((table.to_owned(), index), attribute.name).is_some() {
        let message = format!("{table} index {index} is already in use by another parameter");
        found.push(Violation::error(attribute.arguments.start, "duplicate-index", message));
    }
}

/// Pointers of kernels lead to memory that exists before the kernel runs; anything else needs an attribute.
fn check_space(
    source: &Source<'_>,
    attributes: &[Attribute],
    declaration: &[usize],
    array: bool,
    found: &mut Vec<Violation>,
) {
    let has = |word: &str| declaration.iter().any(|at| source.tokens[*at].is(word));
    let attribute =
        |names: &[&str]| attributes.iter().find(|attribute| names.contains(&source.tokens[attribute.name].text));
    let indirect = array || has("*") || has("&");
    if indirect && has("thread") && !has("device") && !has("constant") && !has("threadgroup") {
        let message = "a kernel's parameter cannot point to thread memory: use device, constant or threadgroup";
        found.push(Violation::error(declaration[0], "parameter-space", message));
    } else if let Some(buffer) = attribute(&["buffer"]).filter(|_| has("threadgroup")) {
        let message = "attribute 'buffer' is for device and constant memory: threadgroup memory has 'threadgroup(n)'";
        found.push(Violation::error(buffer.name, "parameter-space", message));
    } else if let Some(group) = attribute(&["threadgroup"]).filter(|_| has("device") || has("constant")) {
        let message = "attribute 'threadgroup' is for threadgroup memory: device and constant memory have 'buffer(n)'";
        found.push(Violation::error(group.name, "parameter-space", message));
    } else if !indirect {
        let resource =
            declaration.iter().any(|at| RESOURCES.iter().any(|name| source.tokens[*at].text.starts_with(name)));
        let given = attributes.iter().any(|attribute| {
            let name = source.tokens[attribute.name].text;
            BUILT_INS.iter().any(|(known, _)| *known == name)
                || matches!(name, "stage_in" | "payload" | "imageblock_data")
        });
        if let Some(buffer) = attribute(&["buffer", "threadgroup"]).filter(|_| !resource) {
            let message = "a buffer's parameter is a pointer or a reference to device, constant or threadgroup memory";
            found.push(Violation::error(buffer.name, "parameter-value", message));
        } else if !resource && !given {
            let message = "a kernel's parameter that is a value needs an attribute such as [[thread_position_in_grid]]; \
                           bytes that are set come as 'constant T &'";
            found.push(Violation::error(declaration[0], "parameter-value", message));
        }
    }
}
