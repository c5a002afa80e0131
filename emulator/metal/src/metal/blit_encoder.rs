//! `MTLBlitCommandEncoder`: copies and fills of buffers.

use objc2::DefinedClass;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{MTLBlitCommandEncoder, MTLBuffer, MTLCommandEncoder, MTLDevice, MTLFence, MTLResource};

use super::buffer::memory_of;
use super::class::{Object, emulated_class, protocol};
use super::command_buffer::CommandBuffer;
use super::device::Device;
use super::encoding::Encoding;
use super::fence::Fence;
use crate::gpu::work::{Span, Usage, Work};

emulated_class!(
    /// A blit encoder: serial.
    pub(crate) struct BlitEncoder, "EmulatedMTLBlitCommandEncoder", Encoding, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLCommandEncoder for BlitEncoder {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, Device::system())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.ivars().label())).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.ivars().set_label(label.map(NSString::to_string).unwrap_or_default());
            }

            #[unsafe(method(endEncoding))]
            fn end_encoding(&self) {
                self.ivars().end();
            }

            #[unsafe(method(insertDebugSignpost:))]
            fn insert_debug_signpost(&self, _text: &NSString) {}

            #[unsafe(method(pushDebugGroup:))]
            fn push_debug_group(&self, _name: &NSString) {
                self.ivars().push_debug_group();
            }

            #[unsafe(method(popDebugGroup))]
            fn pop_debug_group(&self) {
                self.ivars().pop_debug_group();
            }
        }

        // SAFETY: as above.
        unsafe impl MTLBlitCommandEncoder for BlitEncoder {
            #[unsafe(method(updateFence:))]
            fn update_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
                self.ivars().update_fence(Fence::of(fence).number());
            }

            #[unsafe(method(waitForFence:))]
            fn wait_for_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
                self.ivars().wait_for_fence(Fence::of(fence).number());
            }

            #[unsafe(method(synchronizeResource:))]
            fn synchronize(&self, _resource: &ProtocolObject<dyn MTLResource>) {
                self.ivars().must_be_open("synchronizeResource:");
            }

            #[unsafe(method(copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:))]
            fn copy(
                &self,
                source: &ProtocolObject<dyn MTLBuffer>,
                source_offset: usize,
                destination: &ProtocolObject<dyn MTLBuffer>,
                destination_offset: usize,
                size: usize,
            ) {
                let selector = "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:";
                let (source, destination) = (memory_of(source), memory_of(destination));
                let from = source_offset..source_offset.saturating_add(size);
                let to = destination_offset..destination_offset.saturating_add(size);
                for (what, range, memory) in [("source", &from, source), ("destination", &to, destination)] {
                    if range.end > memory.length() {
                        let text = format!("{what} bytes {range:?} past the {} of {}", memory.length(), memory.name());
                        self.ivars().fail(selector, text);
                    }
                }
                if source.root() == destination.root() && from.start < to.end && to.start < from.end && size > 0 {
                    self.ivars().fail(selector, format_args!("source bytes {from:?} and destination bytes {to:?} overlap in {}", source.name()));
                }
                crate::account::count(|counts| {
                    counts.blits += 1;
                    counts.bytes_copied += size as u64;
                });
                let spans = vec![
                    Span { memory: source.clone(), bytes: vec![from], usage: Usage::Read },
                    Span { memory: destination.clone(), bytes: vec![to], usage: Usage::Write },
                ];
                let retained = self.ivars().command_buffer().retained();
                let work = Work::known("copyFromBuffer", spans, retained, move |addresses| {
                    // SAFETY: both ranges were seen to lie inside their memories, which live now.
                    unsafe { std::ptr::copy(addresses[0].add(source_offset), addresses[1].add(destination_offset), size) };
                });
                self.ivars().push_work(selector, work);
            }

            #[unsafe(method(fillBuffer:range:value:))]
            fn fill(&self, buffer: &ProtocolObject<dyn MTLBuffer>, range: NSRange, value: u8) {
                let selector = "fillBuffer:range:value:";
                let memory = memory_of(buffer);
                let bytes = range.location..range.location.saturating_add(range.length);
                if bytes.end > memory.length() {
                    let text = format!("bytes {bytes:?} past the {} of {}", memory.length(), memory.name());
                    self.ivars().fail(selector, text);
                }
                if bytes.is_empty() {
                    // Metal's validation: "range.length must not be zero".
                    self.ivars().fail(selector, "range.length must not be zero");
                }
                crate::account::count(|counts| counts.blits += 1);
                let spans = vec![Span { memory: memory.clone(), bytes: vec![bytes.clone()], usage: Usage::Write }];
                let retained = self.ivars().command_buffer().retained();
                let work = Work::known("fillBuffer", spans, retained, move |addresses| {
                    // SAFETY: the range was seen to lie inside the memory, which lives now.
                    unsafe { std::ptr::write_bytes(addresses[0].add(bytes.start), value, bytes.len()) };
                });
                self.ivars().push_work(selector, work);
            }
        }
    }
);

impl BlitEncoder {
    pub(crate) fn new(command_buffer: &CommandBuffer) -> Retained<Self> {
        Self::make(Encoding::open("MTLBlitCommandEncoder", command_buffer, false))
    }
}
