//! Weak references: variables that become null when their object is freed.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, MutexGuard};

use crate::account;
use crate::class::Kind;
use crate::instance::Object;
use crate::retain::{objc_autorelease, objc_release};

/// A weak variable. It is read and written only while [`VARIABLES`] is locked.
type Variable = *mut *mut Object;

/// The addresses of the weak variables, by the address of the object they refer to.
static VARIABLES: LazyLock<Mutex<HashMap<usize, Vec<usize>>>> = LazyLock::new(Default::default);

type Variables = MutexGuard<'static, HashMap<usize, Vec<usize>>>;

fn variables() -> Variables {
    VARIABLES.lock().expect("never poisoned")
}

/// Has the variable refer to `object`, or to null if that is being freed. The variable's old contents are ignored.
///
/// # Safety
/// The variable is writable; the object is null or an object.
unsafe fn assign(variables: &mut Variables, variable: Variable, object: *mut Object) -> *mut Object {
    // SAFETY: promised by the caller.
    let referred = match unsafe { object.as_ref() } {
        Some(target) if target.class().kind == Kind::Counted => {
            // SAFETY: just seen to be counted.
            let header = unsafe { target.header() };
            if header.count.load(Ordering::Relaxed) > 0 {
                header.has_weak.store(true, Ordering::Relaxed);
                variables.entry(object.addr()).or_default().push(variable.addr());
                object
            } else {
                ptr::null_mut()
            }
        }
        Some(target) if target.class().kind == Kind::Freed => ptr::null_mut(),
        // Classes, protocols and blocks are not watched.
        _ => object,
    };
    // SAFETY: promised by the caller.
    unsafe { variable.write(referred) };
    referred
}

/// Has no one write to the variable any more.
///
/// # Safety
/// The variable was initialised.
unsafe fn forget(variables: &mut Variables, variable: Variable) {
    // SAFETY: promised by the caller.
    let object = unsafe { variable.read() }.addr();
    if let Some(watching) = variables.get_mut(&object) {
        watching.retain(|other| *other != variable.addr());
        if watching.is_empty() {
            variables.remove(&object);
        }
    }
}

/// Sets the variables that refer to `object` to null. It has no strong reference left.
pub(crate) fn clear(object: &Object) {
    // SAFETY: only counted objects are freed by way of this.
    if !unsafe { object.header() }.has_weak.load(Ordering::Relaxed) {
        return;
    }
    for variable in variables().remove(&ptr::from_ref(object).addr()).unwrap_or_default() {
        // SAFETY: whoever ends the variable's life takes it off the list first.
        unsafe { ptr::with_exposed_provenance_mut::<*mut Object>(variable).write(ptr::null_mut()) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_initWeak(variable: Variable, object: *mut Object) -> *mut Object {
    variable.expose_provenance();
    // SAFETY: the caller passes a new variable, and null or an object.
    unsafe { assign(&mut variables(), variable, object) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_storeWeak(variable: Variable, object: *mut Object) -> *mut Object {
    let mut variables = variables();
    // SAFETY: the caller passes an initialised variable, and null or an object.
    unsafe {
        forget(&mut variables, variable);
        assign(&mut variables, variable, object)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_destroyWeak(variable: Variable) {
    // SAFETY: the caller passes an initialised variable.
    unsafe { forget(&mut variables(), variable) };
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_loadWeakRetained(variable: Variable) -> *mut Object {
    // While this is locked the object cannot be freed: `clear` comes first and waits.
    let _variables = variables();
    // SAFETY: the caller passes an initialised variable, which holds null or an object.
    let object = unsafe { variable.read() };
    // SAFETY: as above.
    let Some(target) = (unsafe { object.as_ref() }) else {
        return object;
    };
    if target.class().kind != Kind::Counted {
        return object;
    }
    // SAFETY: just seen to be counted.
    let count = &unsafe { target.header() }.count;
    let revive = |count: isize| (count > 0).then_some(count + 1);
    if count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, revive).is_err() {
        return ptr::null_mut();
    }
    account::retain();
    object
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_loadWeak(variable: Variable) -> *mut Object {
    // SAFETY: passed on.
    unsafe { objc_autorelease(objc_loadWeakRetained(variable)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_copyWeak(to: Variable, from: Variable) {
    // SAFETY: the caller passes a new and an initialised variable.
    unsafe {
        let object = objc_loadWeakRetained(from);
        objc_initWeak(to, object);
        objc_release(object);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_moveWeak(to: Variable, from: Variable) {
    // SAFETY: the caller passes a new and an initialised variable.
    unsafe {
        objc_copyWeak(to, from);
        objc_destroyWeak(from);
    }
}
