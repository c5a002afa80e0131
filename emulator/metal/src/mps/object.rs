//! From the typed crates' objects to the emulated ones behind them.

use objc2::runtime::{AnyObject, ProtocolObject};
use objc2::{DowncastTarget, Message};
use objc2_metal::{MTLBuffer, MTLCommandBuffer, MTLDevice};

use super::call::Call;

/// A device of the typed crate.
pub(super) type Device = ProtocolObject<dyn MTLDevice>;
/// A buffer of the typed crate.
pub(super) type MetalBuffer = ProtocolObject<dyn MTLBuffer>;
/// A command buffer of the typed crate.
pub(super) type Commands = ProtocolObject<dyn MTLCommandBuffer>;

/// The emulated object behind an object of the typed crates, if it is of class `T`.
pub(super) fn downcast<T: DowncastTarget>(object: &(impl Message + ?Sized)) -> Option<&T> {
    let _own = emulator_objc::own();
    let object = std::ptr::from_ref(object).cast::<AnyObject>();
    // SAFETY: every `Message` is an Objective-C object, and `AnyObject` stands for any of them.
    unsafe { &*object }.downcast_ref()
}

/// The emulated object behind an object of the typed crates.
pub(super) fn emulated<T: DowncastTarget>(object: &(impl Message + ?Sized)) -> &T {
    downcast(object).unwrap_or_else(|| {
        let wanted = T::class().name().to_string_lossy();
        crate::foundation::raise(
            "NSInvalidArgumentException",
            &format!("an object that is no {wanted} was given as one"),
        )
    })
}

/// MPSKernel.h and the matrix headers give every object the one device "on which it will be used".
pub(super) fn require_same_device(call: Call, kernel: &Device, what: &str, device: &Device) {
    call.require(std::ptr::addr_eq(kernel, device), || format!("the {what} belongs to another device than the kernel"));
}
