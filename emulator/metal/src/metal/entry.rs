//! Metal's C functions and strings.

use std::sync::atomic::{AtomicPtr, Ordering};

use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_foundation::NSString;
use objc2_metal::MTLDevice;

use super::class::protocol;
use super::device::Device;
use super::{command_buffer, library};
use crate::foundation;

/// `MTLCreateSystemDefaultDevice`.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn MTLCreateSystemDefaultDevice() -> *mut ProtocolObject<dyn MTLDevice> {
    Retained::into_raw(protocol!(MTLDevice, Device::system()))
}

/// `MTLCopyAllDevices`.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn MTLCopyAllDevices() -> *mut AnyObject {
    // SAFETY: every object may be seen as an AnyObject.
    let device: Retained<AnyObject> = unsafe { Retained::cast_unchecked(Device::system()) };
    Retained::into_raw(foundation::array(vec![device])).cast()
}

/// `MTLLibraryErrorDomain`.
#[unsafe(no_mangle)]
pub static MTLLibraryErrorDomain: AtomicPtr<NSString> = AtomicPtr::new(std::ptr::null_mut());

/// `MTLCommandBufferErrorDomain`.
#[unsafe(no_mangle)]
pub static MTLCommandBufferErrorDomain: AtomicPtr<NSString> = AtomicPtr::new(std::ptr::null_mut());

/// Makes the strings; they live as long as the process.
pub(crate) fn register() {
    let _own = emulator_objc::own();
    let string = |text: &str| Retained::into_raw(NSString::from_str(text));
    MTLLibraryErrorDomain.store(string(library::ERROR_DOMAIN), Ordering::Release);
    MTLCommandBufferErrorDomain.store(string(command_buffer::ERROR_DOMAIN), Ordering::Release);
}
