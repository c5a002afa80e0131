//! A compiled source: its kernels and what they ask for.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi;
use crate::compile::SOURCE_NAME;
use crate::elf::{self, Symbol};
use crate::symbolize;

/// What a kernel's argument is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgumentKind {
    /// `[[buffer(n)]]`.
    Buffer,
    /// `[[threadgroup(n)]]`.
    Threadgroup,
}

/// What the type of an argument allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The pointee is `const` or in `constant` memory.
    Read,
    /// Anything else.
    ReadWrite,
}

/// An argument that the host binds.
#[derive(Clone, Debug)]
pub struct Argument {
    /// Buffer or threadgroup memory.
    pub kind: ArgumentKind,
    /// Its slot.
    pub index: u32,
    /// What its type allows.
    pub access: Access,
    /// It has `[[function_constant(..)]]`: it may be left unbound.
    pub optional: bool,
    /// The alignment of its element type in bytes: an offset must be a multiple of it.
    pub alignment: u32,
    /// The size of its element type in bytes.
    pub size: u32,
    /// Its name in the source.
    pub name: String,
}

/// A `[[function_constant(n)]]`.
#[derive(Clone, Debug)]
pub struct FunctionConstant {
    /// Its name in the source.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its size in bytes.
    pub size: usize,
    /// Its type as the source spells it.
    pub type_name: String,
}

/// A variable in threadgroup memory.
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) address: *mut u8,
    pub(crate) length: usize,
}

/// What the library says of a kernel.
struct Kernel {
    name: String,
    raw: *const abi::Kernel,
    arguments: Vec<Argument>,
    variables: Vec<Variable>,
    max_total_threads: Option<u32>,
}

/// A compiled source, loaded.
pub struct Library {
    file: PathBuf,
    kernels: Vec<Kernel>,
    constants: Vec<FunctionConstant>,
    base: u64,
    threadgroup_variables: [*const u8; 2],
    launch: unsafe extern "C" fn(*mut abi::Launch),
    running: Mutex<()>,
    // Dropped last: everything above points into it.
    _object: libloading::Library,
}

// SAFETY: the pointers lead to tables that nothing changes after loading; `running` guards the launches.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Loads what `compile` has built.
    ///
    /// # Safety
    ///
    /// The file must be such a library.
    pub(crate) unsafe fn load(file: PathBuf) -> Result<Self, String> {
        let text = |error: libloading::Error| error.to_string();
        // SAFETY: the caller says that this is one of our libraries, whose symbols have these types.
        unsafe {
            let object = libloading::Library::new(&file).map_err(text)?;
            let launch = *object.get::<unsafe extern "C" fn(*mut abi::Launch)>(b"emulator_launch").map_err(text)?;
            let kernel_count = **object.get::<*const u32>(b"emulator_kernel_count").map_err(text)?;
            let kernels = *object.get::<*const abi::Kernel>(b"emulator_kernels").map_err(text)?;
            let constant_count = **object.get::<*const u32>(b"emulator_constant_count").map_err(text)?;
            let constants = *object.get::<*const abi::FunctionConstant>(b"emulator_constants").map_err(text)?;

            let symbols = elf::symbols(&std::fs::read(&file).map_err(|error| error.to_string())?);
            let known =
                symbols.iter().find(|symbol| symbol.name == "emulator_launch").ok_or("no symbols in the library")?;
            let base = (launch as usize as u64).wrapping_sub(known.address);
            let variables = Variables::new(&symbols, base);
            let kernels = (0..kernel_count as usize).map(|i| kernel(kernels.add(i), &variables)).collect();
            Ok(Library {
                file,
                kernels,
                constants: (0..constant_count as usize).map(|i| constant(&*constants.add(i))).collect(),
                base,
                threadgroup_variables: variables.extent(),
                launch,
                running: Mutex::new(()),
                _object: object,
            })
        }
    }

    /// The names of all kernels, in the order of the source.
    pub fn function_names(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// A kernel by its name for the host.
    pub fn function(self: &Arc<Self>, name: &str) -> Option<Function> {
        let index = self.kernels.iter().position(|kernel| kernel.name == name)?;
        Some(Function { library: self.clone(), index })
    }
}

/// A kernel of a library.
#[derive(Clone)]
pub struct Function {
    library: Arc<Library>,
    index: usize,
}

impl Function {
    fn kernel(&self) -> &Kernel {
        &self.library.kernels[self.index]
    }

    /// Its name for the host.
    pub fn name(&self) -> &str {
        &self.kernel().name
    }

    /// The arguments that the host binds, in the order of the source.
    pub fn arguments(&self) -> &[Argument] {
        &self.kernel().arguments
    }

    /// All function constants of the library: any of them may be used by this kernel.
    pub fn constants(&self) -> &[FunctionConstant] {
        &self.library.constants
    }

    /// The size of the threadgroup variables that the kernel declares.
    pub fn static_threadgroup_bytes(&self) -> usize {
        self.kernel().variables.iter().map(|variable| variable.length).sum()
    }

    /// `[[max_total_threads_per_threadgroup(n)]]`.
    pub fn max_total_threads(&self) -> Option<u32> {
        self.kernel().max_total_threads
    }

    pub(crate) fn raw(&self) -> *const abi::Kernel {
        self.kernel().raw
    }

    pub(crate) fn variables(&self) -> &[Variable] {
        &self.kernel().variables
    }

    pub(crate) fn threadgroup_variables(&self) -> [*const u8; 2] {
        self.library.threadgroup_variables
    }

    /// Runs a launch; launches of one library wait for each other.
    ///
    /// # Safety
    ///
    /// All pointers of the launch must be valid.
    pub(crate) unsafe fn launch(&self, launch: &mut abi::Launch) {
        let _running = self.library.running.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller vouches for the pointers, the lock for the library's own state.
        unsafe { (self.library.launch)(launch) }
    }

    /// The line of the source that an address in the library belongs to.
    pub(crate) fn line(&self, code: *const c_void) -> Option<u32> {
        let offset = (code as u64).checked_sub(self.library.base)?;
        symbolize::line(&self.library.file, offset, SOURCE_NAME)
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.function_names()).finish()
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.name()).finish()
    }
}

/// The threadgroup variables of all functions, and the functions by their addresses.
struct Variables<'a> {
    by_function: HashMap<&'a str, Vec<&'a Symbol>>,
    functions: HashMap<u64, &'a str>,
    base: u64,
}

impl<'a> Variables<'a> {
    fn new(symbols: &'a [Symbol], base: u64) -> Self {
        let mut by_function = HashMap::<&str, Vec<&Symbol>>::new();
        for symbol in symbols.iter().filter(|symbol| symbol.zeroed && symbol.size > 0) {
            if let Some((function, _)) = elf::local_variable(&symbol.name) {
                by_function.entry(function).or_default().push(symbol);
            }
        }
        let functions =
            symbols.iter().filter_map(|symbol| Some((symbol.address, symbol.name.strip_prefix("_Z")?))).collect();
        Variables { by_function, functions, base }
    }

    fn of(&self, function: *const c_void) -> Vec<Variable> {
        let name = self.functions.get(&(function as u64).wrapping_sub(self.base));
        let symbols = name.and_then(|name| self.by_function.get(name)).map_or(&[][..], Vec::as_slice);
        symbols
            .iter()
            .map(|symbol| Variable {
                name: elf::local_variable(&symbol.name).map_or(String::new(), |(_, name)| name.to_owned()),
                address: self.base.wrapping_add(symbol.address) as *mut u8,
                length: symbol.size as usize,
            })
            .collect()
    }

    /// From the first to the last byte of all of them.
    fn extent(&self) -> [*const u8; 2] {
        let all = || self.by_function.values().flatten();
        let start = all().map(|symbol| symbol.address).min();
        let end = all().map(|symbol| symbol.address + symbol.size).max();
        [start, end].map(|at| at.map_or(std::ptr::null(), |at| self.base.wrapping_add(at) as *const u8))
    }
}

/// # Safety
///
/// The pointer must lead to a kernel of a loaded library.
unsafe fn kernel(raw: *const abi::Kernel, variables: &Variables<'_>) -> Kernel {
    // SAFETY: the table's rows point to constants of the library.
    unsafe {
        let row = &*raw;
        let parameters = std::slice::from_raw_parts(row.parameters, row.parameter_count as usize);
        Kernel {
            name: string(row.name),
            raw,
            arguments: parameters.iter().filter_map(|parameter| argument(parameter)).collect(),
            variables: variables.of(row.function),
            max_total_threads: (row.max_total_threads > 0).then_some(row.max_total_threads),
        }
    }
}

/// # Safety
///
/// As [`kernel`].
unsafe fn argument(parameter: &abi::Parameter) -> Option<Argument> {
    let kind = match parameter.kind {
        abi::BUFFER => ArgumentKind::Buffer,
        abi::THREADGROUP => ArgumentKind::Threadgroup,
        _ => return None,
    };
    Some(Argument {
        kind,
        index: parameter.index,
        access: if parameter.writable != 0 { Access::ReadWrite } else { Access::Read },
        optional: parameter.optional != 0,
        alignment: parameter.alignment,
        size: parameter.size,
        // SAFETY: the name is a constant of the library.
        name: unsafe { string(parameter.name) },
    })
}

/// # Safety
///
/// As [`kernel`].
unsafe fn constant(row: &abi::FunctionConstant) -> FunctionConstant {
    // SAFETY: the names are constants of the library.
    unsafe {
        FunctionConstant {
            name: string(row.name),
            index: row.index,
            size: row.size as usize,
            type_name: string(row.type_name),
        }
    }
}

/// # Safety
///
/// The pointer must lead to a C string.
unsafe fn string(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
