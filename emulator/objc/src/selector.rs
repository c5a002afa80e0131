//! Selectors: method names, interned so that equal names have equal addresses.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::sync::{LazyLock, RwLock};

/// What a selector points to; objc2 only compares addresses and asks for the name.
#[derive(Debug)]
pub(crate) struct SelectorName(&'static CStr);

/// A selector, as it is passed to functions and methods.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sel(&'static SelectorName);

impl Sel {
    /// The selector of this name; the first to ask for it interns it.
    pub(crate) fn named(name: &CStr) -> Sel {
        if let Some(found) = SELECTORS.read().expect("never poisoned").get(name) {
            return *found;
        }
        let mut selectors = SELECTORS.write().expect("never poisoned");
        if let Some(found) = selectors.get(name) {
            return *found;
        }
        let name: &'static CStr = Box::leak(name.into());
        let selector = Sel(Box::leak(Box::new(SelectorName(name))));
        selectors.insert(name, selector);
        selector
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static CStr {
        self.0.0
    }

    /// A number that is this selector's alone.
    pub(crate) fn address(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }
}

impl PartialEq for Sel {
    fn eq(&self, other: &Sel) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl fmt::Display for Sel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_string_lossy())
    }
}

static SELECTORS: LazyLock<RwLock<HashMap<&'static CStr, Sel>>> = LazyLock::new(Default::default);

#[unsafe(no_mangle)]
unsafe extern "C" fn sel_registerName(name: *const c_char) -> Sel {
    // SAFETY: the caller passes a string that ends in NUL.
    Sel::named(unsafe { CStr::from_ptr(name) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sel_getUid(name: *const c_char) -> Sel {
    // SAFETY: the same function by its older name.
    unsafe { sel_registerName(name) }
}

#[unsafe(no_mangle)]
extern "C" fn sel_getName(selector: Sel) -> *const c_char {
    selector.name().as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn sel_isEqual(left: Sel, right: Sel) -> u8 {
    u8::from(left == right)
}
