//! `MTLResidencySet`: allocations that stay where the GPU can reach them. The emulated GPU reaches everything.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2::{DefinedClass, Message, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLAllocation, MTLDevice, MTLResidencySet};

use super::class::{Object, emulated_class, protocol};
use super::device::Device;
use super::fence::Sendable;

emulated_class!(
    /// `MTLResidencySetDescriptor`.
    pub(crate) struct ResidencySetDescriptor, "MTLResidencySetDescriptor", Mutex<(String, usize)>, {
        impl ResidencySetDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::default())), init] }
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.fields().0 = label.map(NSString::to_string).unwrap_or_default();
            }

            #[unsafe(method(initialCapacity))]
            fn initial_capacity(&self) -> usize {
                self.fields().1
            }

            #[unsafe(method(setInitialCapacity:))]
            fn set_initial_capacity(&self, capacity: usize) {
                self.fields().1 = capacity;
            }
        }
    }
);

impl ResidencySetDescriptor {
    fn fields(&self) -> MutexGuard<'_, (String, usize)> {
        self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Allocations by address. Changes count once they are committed.
#[derive(Default)]
pub(crate) struct Members {
    committed: BTreeMap<usize, Sendable<Retained<AnyObject>>>,
    wanted: BTreeMap<usize, Sendable<Retained<AnyObject>>>,
}

pub(crate) struct ResidencySetIvars {
    device: Retained<Device>,
    label: String,
    members: Mutex<Members>,
}

emulated_class!(
    /// A residency set. It keeps its allocations alive, as Metal's does.
    pub(crate) struct ResidencySet, "EmulatedMTLResidencySet", ResidencySetIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLResidencySet for ResidencySet {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.ivars().label))
            }

            #[unsafe(method(allocatedSize))]
            fn allocated_size(&self) -> u64 {
                let _own = emulator_objc::own();
                let members = self.members();
                // SAFETY: only objects that conform to MTLAllocation are added.
                members.committed.values().map(|object| unsafe { msg_send![&*object.0, allocatedSize] }).map(|size: usize| size as u64).sum()
            }

            #[unsafe(method(requestResidency))]
            fn request_residency(&self) {}

            #[unsafe(method(endResidency))]
            fn end_residency(&self) {}

            #[unsafe(method(addAllocation:))]
            fn add(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
                self.insert(allocation);
            }

            #[unsafe(method(addAllocations:count:))]
            fn add_all(&self, allocations: NonNull<NonNull<ProtocolObject<dyn MTLAllocation>>>, count: usize) {
                for index in 0..count {
                    // SAFETY: the caller passes `count` valid objects.
                    self.insert(unsafe { allocations.add(index).read().as_ref() });
                }
            }

            #[unsafe(method(removeAllocation:))]
            fn remove(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
                let _own = emulator_objc::own();
                let removed = self.members().wanted.remove(&address(allocation));
                drop(removed);
            }

            #[unsafe(method(removeAllAllocations))]
            fn remove_all(&self) {
                let _own = emulator_objc::own();
                let removed = std::mem::take(&mut self.members().wanted);
                drop(removed);
            }

            #[unsafe(method(containsAllocation:))]
            fn contains(&self, allocation: &ProtocolObject<dyn MTLAllocation>) -> bool {
                self.members().wanted.contains_key(&address(allocation))
            }

            #[unsafe(method(allocationCount))]
            fn count(&self) -> usize {
                self.members().wanted.len()
            }

            #[unsafe(method(commit))]
            fn commit(&self) {
                let _own = emulator_objc::own();
                let before = {
                    let mut members = self.members();
                    let now = members.wanted.iter().map(|(address, object)| (*address, Sendable(object.0.clone()))).collect();
                    std::mem::replace(&mut members.committed, now)
                };
                drop(before);
            }
        }
    }
);

impl ResidencySet {
    pub(crate) fn new(device: &Device, descriptor: &ResidencySetDescriptor) -> Retained<Self> {
        let label = descriptor.fields().0.clone();
        Self::make(ResidencySetIvars { device: device.retain(), label, members: Mutex::default() })
    }

    fn insert(&self, allocation: &ProtocolObject<dyn MTLAllocation>) {
        let _own = emulator_objc::own();
        let object: &AnyObject = allocation.as_ref();
        let replaced = self.members().wanted.insert(address(allocation), Sendable(object.retain()));
        drop(replaced);
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.ivars().members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(allocation: &ProtocolObject<dyn MTLAllocation>) -> usize {
    std::ptr::from_ref(allocation).cast::<u8>() as usize
}
