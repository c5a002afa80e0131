//! `MTLCompileOptions` and `MTLFunctionConstantValues`.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::NSObject;
use objc2::{DefinedClass, msg_send};
use objc2_foundation::{NSDictionary, NSRange, NSString};
use objc2_metal::{
    MTLDataType, MTLLanguageVersion, MTLLibraryOptimizationLevel, MTLMathFloatingPointFunctions, MTLMathMode,
};

use super::class::{assertion, emulated_class};
use crate::{settings, systems};

/// How a source is to be compiled.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) math_mode: MTLMathMode,
    pub(crate) functions: MTLMathFloatingPointFunctions,
    pub(crate) language: MTLLanguageVersion,
    pub(crate) macros: Vec<(String, String)>,
    pub(crate) level: MTLLibraryOptimizationLevel,
    pub(crate) max_threads: usize,
}

impl Default for Options {
    /// MTLLibrary.h: fast math, and the newest language that the system has.
    fn default() -> Self {
        Options {
            math_mode: MTLMathMode::Fast,
            functions: MTLMathFloatingPointFunctions::Fast,
            language: systems::language(settings::current().macos),
            macros: Vec::new(),
            level: MTLLibraryOptimizationLevel::Default,
            max_threads: 0,
        }
    }
}

emulated_class!(
    /// `MTLCompileOptions`.
    pub(crate) struct CompileOptions, "MTLCompileOptions", Mutex<Options>, {
        impl CompileOptions {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::default())), init] }
            }

            #[unsafe(method(fastMathEnabled))]
            fn fast_math(&self) -> bool {
                self.fields().math_mode == MTLMathMode::Fast
            }

            #[unsafe(method(setFastMathEnabled:))]
            fn set_fast_math(&self, fast: bool) {
                self.fields().math_mode = if fast { MTLMathMode::Fast } else { MTLMathMode::Safe };
            }

            #[unsafe(method(mathMode))]
            fn math_mode(&self) -> MTLMathMode {
                self.fields().math_mode
            }

            #[unsafe(method(setMathMode:))]
            fn set_math_mode(&self, mode: MTLMathMode) {
                self.fields().math_mode = mode;
            }

            #[unsafe(method(mathFloatingPointFunctions))]
            fn functions(&self) -> MTLMathFloatingPointFunctions {
                self.fields().functions
            }

            #[unsafe(method(setMathFloatingPointFunctions:))]
            fn set_functions(&self, functions: MTLMathFloatingPointFunctions) {
                self.fields().functions = functions;
            }

            #[unsafe(method(languageVersion))]
            fn language(&self) -> MTLLanguageVersion {
                self.fields().language
            }

            #[unsafe(method(setLanguageVersion:))]
            fn set_language(&self, language: MTLLanguageVersion) {
                self.fields().language = language;
            }

            #[unsafe(method(setOptimizationLevel:))]
            fn set_level(&self, level: MTLLibraryOptimizationLevel) {
                self.fields().level = level;
            }

            #[unsafe(method(optimizationLevel))]
            fn level(&self) -> MTLLibraryOptimizationLevel {
                self.fields().level
            }

            #[unsafe(method(setMaxTotalThreadsPerThreadgroup:))]
            fn set_max_threads(&self, threads: usize) {
                self.fields().max_threads = threads;
            }

            #[unsafe(method(maxTotalThreadsPerThreadgroup))]
            fn max_threads(&self) -> usize {
                self.fields().max_threads
            }

            #[unsafe(method(setPreprocessorMacros:))]
            fn set_macros(&self, macros: Option<&NSDictionary<NSString, NSObject>>) {
                let _own = emulator_objc::own();
                let Some(macros) = macros else {
                    self.fields().macros.clear();
                    return;
                };
                let (names, values) = macros.to_vecs();
                let text = |value: &NSObject| -> String {
                    // Apple: values are NSString or NSNumber. Both describe themselves as they are to be pasted.
                    // SAFETY: both classes have `description`, which returns a string.
                    let description: Retained<NSString> = unsafe { msg_send![value, description] };
                    description.to_string()
                };
                let pairs = names.iter().zip(&values).map(|(name, value)| (name.to_string(), text(value)));
                self.fields().macros = pairs.collect();
            }
        }
    }
);

impl CompileOptions {
    fn fields(&self) -> MutexGuard<'_, Options> {
        self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn options(&self) -> Options {
        self.fields().clone()
    }
}

/// Values of function constants, by index or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Constants {
    pub(crate) by_index: HashMap<u32, (MTLDataType, Vec<u8>)>,
    pub(crate) by_name: HashMap<String, (MTLDataType, Vec<u8>)>,
}

emulated_class!(
    /// `MTLFunctionConstantValues`.
    pub(crate) struct FunctionConstantValues, "MTLFunctionConstantValues", Mutex<Constants>, {
        impl FunctionConstantValues {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::default())), init] }
            }

            #[unsafe(method_id(copy))]
            fn copy(&self) -> Retained<Self> {
                Self::make(Mutex::new(self.constants()))
            }

            #[unsafe(method(setConstantValue:type:atIndex:))]
            fn set_at(&self, value: NonNull<c_void>, kind: MTLDataType, index: usize) {
                let bytes = take(value, kind, 0);
                self.fields().by_index.insert(index as u32, (kind, bytes));
            }

            #[unsafe(method(setConstantValues:type:withRange:))]
            fn set_range(&self, values: NonNull<c_void>, kind: MTLDataType, range: NSRange) {
                for position in 0..range.length {
                    let bytes = take(values, kind, position);
                    self.fields().by_index.insert((range.location + position) as u32, (kind, bytes));
                }
            }

            #[unsafe(method(setConstantValue:type:withName:))]
            fn set_named(&self, value: NonNull<c_void>, kind: MTLDataType, name: &NSString) {
                let _own = emulator_objc::own();
                let bytes = take(value, kind, 0);
                self.fields().by_name.insert(name.to_string(), (kind, bytes));
            }

            #[unsafe(method(reset))]
            fn reset(&self) {
                *self.fields() = Constants::default();
            }
        }
    }
);

impl FunctionConstantValues {
    fn fields(&self) -> MutexGuard<'_, Constants> {
        self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn constants(&self) -> Constants {
        self.fields().clone()
    }
}

/// The value at `position` of an array of this type.
fn take(values: NonNull<c_void>, kind: MTLDataType, position: usize) -> Vec<u8> {
    let Some(size) = size_of(kind) else {
        assertion(
            "-[MTLFunctionConstantValues setConstantValue:type:..]",
            format_args!("{kind:?} cannot be a constant"),
        )
    };
    // SAFETY: the caller promises values of this type at `values`, this one included.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>().add(position * size), size) }.to_vec()
}

/// Bytes of a scalar or vector (MTLArgument.h, MTLDataType; vectors of three take the room of four).
pub(crate) fn size_of(kind: MTLDataType) -> Option<usize> {
    let families = [
        (MTLDataType::Float, MTLDataType::Float4, 4),
        (MTLDataType::Half, MTLDataType::Half4, 2),
        (MTLDataType::Int, MTLDataType::Int4, 4),
        (MTLDataType::UInt, MTLDataType::UInt4, 4),
        (MTLDataType::Short, MTLDataType::Short4, 2),
        (MTLDataType::UShort, MTLDataType::UShort4, 2),
        (MTLDataType::Char, MTLDataType::Char4, 1),
        (MTLDataType::UChar, MTLDataType::UChar4, 1),
        (MTLDataType::Bool, MTLDataType::Bool4, 1),
        (MTLDataType::Long, MTLDataType::Long4, 8),
        (MTLDataType::ULong, MTLDataType::ULong4, 8),
        (MTLDataType::BFloat, MTLDataType::BFloat4, 2),
    ];
    let (first, _, scalar) = families.into_iter().find(|(first, last, _)| (first.0..=last.0).contains(&kind.0))?;
    Some(scalar * [1, 2, 4, 4][kind.0 - first.0])
}
