//! `MPSKernel`, and what every kernel does when it is encoded.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol, NSZone};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLCommandBuffer, MTLComputeCommandEncoder};
use objc2_metal_performance_shaders::MPSKernelOptions;

use objc2::runtime::ProtocolObject;

use super::call::Call;
use super::object::{Commands, Device, require_same_device};
use crate::account;
use crate::foundation;
use crate::gpu::work::{Span, Work};
use crate::metal::command_buffer::CommandBuffer;
use crate::metal::compute_encoder::ComputeEncoder;

/// The properties of a kernel. MPSKernel.h: "only one thread is operating on any particular MPSKernel object at a
/// time".
pub(super) struct Fields<T>(Mutex<T>);

impl<T: Clone> Fields<T> {
    /// Fields with these values.
    pub(super) fn new(values: T) -> Self {
        Fields(Mutex::new(values))
    }

    /// Sole use of the fields; raises if another thread is in the kernel now.
    pub(super) fn enter(&self, class: &str) -> MutexGuard<'_, T> {
        match self.0.try_lock() {
            Ok(fields) => fields,
            // A refusal unwound while it held the lock. It changed nothing.
            Err(TryLockError::Poisoned(fields)) => PoisonError::into_inner(fields),
            Err(TryLockError::WouldBlock) => foundation::raise(
                class,
                &format!(
                    "two threads use one {class} at the same time; only one thread may operate on a kernel object at \
                     a time (MPSKernel.h): make a copy for each thread"
                ),
            ),
        }
    }

    /// A copy of the values.
    pub(super) fn values(&self, class: &str) -> T {
        self.enter(class).clone()
    }
}

#[derive(Clone)]
struct Common {
    label: Option<Retained<NSString>>,
    options: MPSKernelOptions,
}

/// The instance variables of `MPSKernel`.
pub(super) struct Kernel {
    device: Retained<Device>,
    common: Fields<Common>,
}

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSKernel"]
    #[ivars = Kernel]
    pub(super) struct EmulatedKernel;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedKernel {}

    impl EmulatedKernel {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(this: Allocated<Self>, device: &Device) -> Retained<Self> {
            let _own = emulator_objc::own();
            let common = Fields::new(Common { label: None, options: MPSKernelOptions::None });
            let this = this.set_ivars(Kernel { device: device.retain(), common });
            // SAFETY: NSObject's `init` takes no arguments.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<Device> {
            self.ivars().device.clone()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            self.ivars().common.enter("MPSKernel").label.clone()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            let _own = emulator_objc::own();
            // MPSKernel.h declares the property `copy`.
            self.ivars().common.enter("MPSKernel").label = label.map(|label| NSString::from_str(&label.to_string()));
        }

        #[unsafe(method(options))]
        fn options(&self) -> MPSKernelOptions {
            self.ivars().common.enter("MPSKernel").options
        }

        #[unsafe(method(setOptions:))]
        fn set_options(&self, options: MPSKernelOptions) {
            self.ivars().common.enter("MPSKernel").options = options;
        }

        #[unsafe(method_id(copy))]
        fn copy(&self) -> Retained<Self> {
            self.copy_for(None)
        }

        // MPSKernel.h: "-copyWithZone: will call this API [copyWithZone:device:] to make a copy of the MPSKernel on
        // the same device".
        #[unsafe(method_id(copyWithZone:))]
        fn copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            self.copy_for(None)
        }
    }
);

impl EmulatedKernel {
    fn copy_for(&self, device: Option<&Device>) -> Retained<Self> {
        let _own = emulator_objc::own();
        let zone: *mut NSZone = std::ptr::null_mut();
        // SAFETY: every kernel class of this module implements it with this signature.
        unsafe { msg_send![self, copyWithZone: zone, device: device] }
    }

    /// The device it was made for.
    pub(super) fn its_device(&self) -> &Device {
        &self.ivars().device
    }

    /// Takes over label and options from the kernel it is a copy of.
    pub(super) fn copy_common(&self, original: &EmulatedKernel) {
        *self.ivars().common.enter("MPSKernel") = original.ivars().common.values("MPSKernel");
    }

    /// Encodes what the kernel does as a pass of its own.
    pub(super) fn encode(
        &self,
        call: Call,
        commands: &Commands,
        spans: Vec<Span>,
        run: impl FnOnce(&[*mut u8]) + Send + 'static,
    ) {
        let commands = self.accept(call, commands);
        commands.encode_pass(self.work(call, spans, commands.retained(), run));
    }

    /// Encodes what the kernel does into an encoder that is open.
    pub(super) fn encode_into(
        &self,
        call: Call,
        encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
        commands: &Commands,
        spans: Vec<Span>,
        run: impl FnOnce(&[*mut u8]) + Send + 'static,
    ) {
        let commands = self.accept(call, commands);
        let encoder = ComputeEncoder::of(encoder);
        call.require(std::ptr::eq(encoder.encoding().command_buffer(), &*commands), || {
            "the encoder belongs to another command buffer than the one given".to_owned()
        });
        encoder.encode(self.work(call, spans, encoder.retained(), run));
    }

    fn accept(&self, call: Call, commands: &Commands) -> Retained<CommandBuffer> {
        let _own = emulator_objc::own();
        let commands = CommandBuffer::behind(commands);
        require_same_device(call, self.its_device(), "command buffer", &commands.device());
        account::count(|counts| counts.mps_kernels += 1);
        commands
    }

    fn work(
        &self,
        call: Call,
        spans: Vec<Span>,
        retained: bool,
        run: impl FnOnce(&[*mut u8]) + Send + 'static,
    ) -> Work {
        let _own = emulator_objc::own();
        let label = self.ivars().common.enter(call.class()).label.as_ref().map(|label| label.to_string());
        let name = label.map_or_else(|| call.class().to_owned(), |label| format!("{} '{label}'", call.class()));
        Work::known(name, spans, retained, run)
    }
}
