//! What is appended to a source: the tables of its kernels and its constants.

use std::fmt::Write as _;

use super::constants::{Constants, DEFINED};
use super::kernels::Kernel;

const EXPORTED: &str = "extern \"C\" __attribute__((visibility(\"default\")))";

/// The tables, in the form of `emulator/abi.h`. Mistakes that appear in instantiations are reported at `file`'s lines.
pub fn write(kernels: &[Kernel], constants: &Constants, file: &str) -> String {
    let mut text = String::from("\n");
    for (i, kernel) in kernels.iter().enumerate() {
        let Kernel { function, parameters, line, .. } = kernel;
        let origins: String = parameters.iter().map(|parameter| format!(", {}", parameter.origin)).collect();
        let names: Vec<String> = parameters.iter().map(|parameter| format!("\"{}\"", parameter.name)).collect();
        let _ = writeln!(text, "# {line} \"{file}\"");
        let _ = writeln!(text, "using EmulatorEntry{i} = emulator::Entry<decltype(&{function}){origins}>;");
        let _ = writeln!(text, "# {line} \"{file}\"");
        let _ = writeln!(
            text,
            "static constexpr auto emulator_parameters_{i} = EmulatorEntry{i}::describe({});",
            names.join(", ")
        );
    }
    let _ = writeln!(text, "{EXPORTED} const emulator::Kernel emulator_kernels[] = {{");
    for (i, kernel) in kernels.iter().enumerate() {
        let Kernel { host_name, function, parameters, max_total_threads, line } = kernel;
        let count = parameters.len();
        let _ = writeln!(text, "# {line} \"{file}\"");
        let _ = writeln!(
            text,
            "{{\"{host_name}\", (const void *)(decltype(&{function}))&{function}, &EmulatorEntry{i}::enter, \
             emulator_parameters_{i}.items, {count}, {max_total_threads}}},"
        );
    }
    let _ = writeln!(text, "{{}}}};\n{EXPORTED} const uint32_t emulator_kernel_count = {};", kernels.len());
    let _ = writeln!(text, "{EXPORTED} const emulator::FunctionConstant emulator_constants[] = {{");
    for constant in &constants.given {
        let (name, qualified) = (&constant.name, &constant.qualified);
        let scope = qualified.strip_suffix(name.as_str()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{{\"{name}\", \"{}\", &{qualified}, sizeof({qualified}), {}, &{scope}{DEFINED}{name}}},",
            constant.type_name, constant.index
        );
    }
    let _ = writeln!(text, "{{}}}};\n{EXPORTED} const uint32_t emulator_constant_count = {};", constants.given.len());
    let calls: String = constants.derivations.iter().map(|function| format!(" {function}();")).collect();
    let _ = writeln!(text, "extern \"C\" void emulator_derive_constants() {{{calls} }}");
    text
}
