//! Classes and methods that older systems do not have: hidden, as if nobody had ever written them.

use std::ffi::CString;
use std::sync::atomic::Ordering;

use crate::class;
use crate::selector::Sel;

/// Hides a class (`selector` is `None`: its name is not found, and messages to it raise; instances that exist live on), or
/// one method of it, an instance's or the class's. `hidden = false` brings it back. What was looked up before is looked
/// up again.
///
/// Panics where there is no such class or method: a list of them should not rot.
pub fn hide(class: &str, selector: Option<&str>, hidden: bool) {
    let name = CString::new(class).expect("a class's name");
    let found = class::lookup_hidden(&name).unwrap_or_else(|| panic!("no class {class} to hide"));
    match selector {
        None => found.isa().is_hidden.store(hidden, Ordering::Release),
        Some(selector) => {
            let selector = Sel::named(&CString::new(selector).expect("a selector's name"));
            let mut methods =
                [found, found.isa()].into_iter().filter_map(|class| class.own_method(selector)).peekable();
            assert!(methods.peek().is_some(), "no method {selector} of {class} to hide");
            methods.for_each(|method| method.is_hidden.store(hidden, Ordering::Release));
        }
    }
    class::forget_lookups();
}
