//! `MTLCaptureManager`: there is nothing to capture with, and it says so.

use objc2::rc::Retained;
use objc2::runtime::AnyObject;
use objc2_foundation::NSError;
use objc2_metal::{MTLCaptureDescriptor, MTLCaptureDestination, MTLCaptureError};

use super::class::emulated_class;
use crate::foundation;

emulated_class!(
    /// `MTLCaptureManager`.
    pub(crate) struct CaptureManager, "MTLCaptureManager", (), {
        impl CaptureManager {
            #[unsafe(method_id(sharedCaptureManager))]
            fn shared() -> Retained<Self> {
                Self::make(())
            }

            #[unsafe(method(supportsDestination:))]
            fn supports(&self, _destination: MTLCaptureDestination) -> bool {
                false
            }

            #[unsafe(method(isCapturing))]
            fn is_capturing(&self) -> bool {
                false
            }

            #[unsafe(method(startCaptureWithDescriptor:error:))]
            fn start(&self, _descriptor: &MTLCaptureDescriptor, error: *mut *mut NSError) -> bool {
                let _own = emulator_objc::own();
                let text = "the emulator has no GPU capture".to_owned();
                // SAFETY: the caller passed this out-parameter.
                unsafe {
                    let code = MTLCaptureError::NotSupported.0;
                    foundation::put_error(error, foundation::error("MTLCaptureError", code, text));
                }
                false
            }

            #[unsafe(method(stopCapture))]
            fn stop(&self) {}
        }
    }
);

emulated_class!(
    /// `MTLCaptureDescriptor`: takes what it is given.
    pub(crate) struct CaptureDescriptor, "MTLCaptureDescriptor", (), {
        impl CaptureDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: objc2::rc::Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { objc2::msg_send![super(this.set_ivars(())), init] }
            }

            #[unsafe(method(setCaptureObject:))]
            fn set_object(&self, _object: Option<&AnyObject>) {}

            #[unsafe(method(setDestination:))]
            fn set_destination(&self, _destination: MTLCaptureDestination) {}

            #[unsafe(method(setOutputURL:))]
            fn set_url(&self, _url: Option<&AnyObject>) {}
        }
    }
);
