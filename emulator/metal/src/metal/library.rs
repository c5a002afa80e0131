//! `MTLLibrary` and `MTLFunction`: sources compiled by `emulator-msl`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use objc2::rc::Retained;
use objc2::{DefinedClass, Message};
use objc2_foundation::{NSArray, NSError, NSString};
use objc2_metal::{
    MTLDevice, MTLFunction, MTLFunctionConstantValues, MTLFunctionType, MTLLibrary, MTLLibraryError, MTLLibraryType,
    MTLMathMode,
};

use super::class::{Object, emulated_class, protocol};
use super::compile_options::{Constants, FunctionConstantValues, Options, size_of};
use super::device::Device;
use crate::foundation;
use crate::{settings, systems};

/// MTLLibrary.h, MTLLibraryErrorDomain.
pub(crate) const ERROR_DOMAIN: &str = "MTLLibraryErrorDomain";

pub(crate) struct LibraryIvars {
    device: Retained<Device>,
    compiled: Arc<emulator_msl::Library>,
    label: Mutex<String>,
}

emulated_class!(
    /// A compiled library.
    pub(crate) struct Library, "EmulatedMTLLibrary", LibraryIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLLibrary for Library {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                let label = self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner);
                Some(NSString::from_str(&label)).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                let label = label.map(NSString::to_string).unwrap_or_default();
                *self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner) = label;
            }

            #[unsafe(method(type))]
            fn kind(&self) -> MTLLibraryType {
                MTLLibraryType::Executable
            }

            #[unsafe(method_id(functionNames))]
            fn function_names(&self) -> Retained<NSArray<NSString>> {
                let _own = emulator_objc::own();
                let names: Vec<_> = self.ivars().compiled.function_names().map(NSString::from_str).collect();
                NSArray::from_retained_slice(&names)
            }

            #[unsafe(method_id(newFunctionWithName:))]
            fn new_function(&self, name: &NSString) -> Option<Object<dyn MTLFunction>> {
                let _own = emulator_objc::own();
                let function = self.ivars().compiled.function(&name.to_string());
                function.map(|function| protocol!(MTLFunction, self.make_function(function, HashMap::new())))
            }

            #[unsafe(method_id(newFunctionWithName:constantValues:error:))]
            fn new_specialised_function(
                &self,
                name: &NSString,
                constants: &MTLFunctionConstantValues,
                error: *mut *mut NSError,
            ) -> Option<Object<dyn MTLFunction>> {
                let _own = emulator_objc::own();
                let constants = FunctionConstantValues::of(constants).constants();
                match self.specialise(&name.to_string(), &constants) {
                    Ok(function) => Some(protocol!(MTLFunction, function)),
                    Err((code, text)) => {
                        // SAFETY: the caller passed this out-parameter.
                        unsafe { foundation::put_error(error, foundation::error(ERROR_DOMAIN, code.0 as isize, text)) };
                        None
                    }
                }
            }
        }
    }
);

impl Library {
    /// Compiles a source; the error is the compiler's text, as Metal's `localizedDescription` gives it.
    pub(crate) fn compile(device: &Device, source: &str, options: &Options) -> Result<Retained<Self>, String> {
        let (major, minor) = (options.language.0 >> 16, options.language.0 & 0xFFFF);
        let settings = settings::current();
        if options.language > systems::language(settings.macos) {
            let (os_major, os_minor) = settings.macos;
            return Err(format!("language version {major}.{minor} is not supported by macOS {os_major}.{os_minor}"));
        }
        if let Some(word) = settings.refused_word.filter(|word| source.contains(word)) {
            return Err(format!("program_source: error: {word} is refused, as the settings ask"));
        }
        let options = emulator_msl::Options {
            fast_math: options.math_mode == MTLMathMode::Fast,
            language_version: (major as u32, minor as u32),
            macros: options.macros.clone(),
            check: settings.check_sources,
        };
        let compiled = emulator_msl::compile(source, &options).map_err(|error| error.to_string())?;
        Ok(Self::make(LibraryIvars { device: device.retain(), compiled, label: Mutex::default() }))
    }

    fn make_function(&self, function: emulator_msl::Function, constants: HashMap<u32, Vec<u8>>) -> Retained<Function> {
        Function::make(FunctionIvars { library: self.retain(), function, constants: Arc::new(constants) })
    }

    fn specialise(&self, name: &str, given: &Constants) -> Result<Retained<Function>, (MTLLibraryError, String)> {
        let Some(function) = self.ivars().compiled.function(name) else {
            return Err((MTLLibraryError::FunctionNotFound, format!("no function named '{name}' in the library")));
        };
        let mut values = HashMap::new();
        for constant in function.constants() {
            let value = given.by_name.get(&constant.name).or_else(|| given.by_index.get(&constant.index));
            let Some((kind, bytes)) = value else { continue };
            if size_of(*kind) != Some(constant.size) {
                let text = format!(
                    "function '{name}': constant '{}' at index {} has {} bytes, the value given is a {kind:?}",
                    constant.name, constant.index, constant.size
                );
                return Err((MTLLibraryError::CompileFailure, text));
            }
            values.insert(constant.index, bytes.clone());
        }
        Ok(self.make_function(function, values))
    }
}

pub(crate) struct FunctionIvars {
    library: Retained<Library>,
    function: emulator_msl::Function,
    constants: Arc<HashMap<u32, Vec<u8>>>,
}

emulated_class!(
    /// A function of a library, its constants set.
    pub(crate) struct Function, "EmulatedMTLFunction", FunctionIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLFunction for Function {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().library.ivars().device.clone())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                None
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, _label: Option<&NSString>) {}

            #[unsafe(method(functionType))]
            fn kind(&self) -> MTLFunctionType {
                MTLFunctionType::Kernel
            }

            #[unsafe(method_id(name))]
            fn name(&self) -> Retained<NSString> {
                let _own = emulator_objc::own();
                NSString::from_str(self.ivars().function.name())
            }
        }
    }
);

impl Function {
    /// The compiled function and the values of its constants.
    pub(crate) fn parts(&self) -> (emulator_msl::Function, Arc<HashMap<u32, Vec<u8>>>) {
        (self.ivars().function.clone(), self.ivars().constants.clone())
    }
}
