//! `NSProcessInfo`: what it can truly say of this process and machine.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::{env, process, thread};

use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{ClassType, define_class};
use objc2_foundation::{NSOperatingSystemVersion, NSString};

use super::{new_object, string};
use crate::settings;

/// The system whose Metal is emulated.
fn version() -> NSOperatingSystemVersion {
    let (major, minor) = settings::current().macos;
    NSOperatingSystemVersion { majorVersion: major as isize, minorVersion: minor as isize, patchVersion: 0 }
}

/// The only instance, made when the class is registered and never released.
static SHARED: AtomicPtr<EmulatedProcessInfo> = AtomicPtr::new(std::ptr::null_mut());

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSProcessInfo"]
    pub(super) struct EmulatedProcessInfo;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedProcessInfo {}

    impl EmulatedProcessInfo {
        #[unsafe(method(processInfo))]
        fn _shared() -> *mut EmulatedProcessInfo {
            SHARED.load(Ordering::Acquire)
        }

        #[unsafe(method_id(processName))]
        fn _name(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let executable = env::current_exe().unwrap_or_default();
            string::from_str(&executable.file_name().unwrap_or_default().to_string_lossy())
        }

        #[unsafe(method(processIdentifier))]
        fn _identifier(&self) -> i32 {
            process::id() as i32
        }

        #[unsafe(method(processorCount))]
        fn _processors(&self) -> usize {
            processors()
        }

        #[unsafe(method(activeProcessorCount))]
        fn _active_processors(&self) -> usize {
            processors()
        }

        #[unsafe(method(physicalMemory))]
        fn _memory(&self) -> u64 {
            let _own = emulator_objc::own();
            // SAFETY: both names are defined on Linux.
            let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
            pages.max(0) as u64 * size.max(0) as u64
        }

        #[unsafe(method(operatingSystemVersion))]
        fn _version(&self) -> NSOperatingSystemVersion {
            version()
        }

        #[unsafe(method(isOperatingSystemAtLeastVersion:))]
        fn _is_at_least(&self, version: NSOperatingSystemVersion) -> bool {
            let parts = |of: NSOperatingSystemVersion| (of.majorVersion, of.minorVersion, of.patchVersion);
            parts(self::version()) >= parts(version)
        }

        #[unsafe(method_id(operatingSystemVersionString))]
        fn _version_string(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let NSOperatingSystemVersion { majorVersion, minorVersion, .. } = version();
            string::from_str(&format!("Version {majorVersion}.{minorVersion} (emulated)"))
        }
    }
);

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn register() {
    EmulatedProcessInfo::class();
    SHARED.store(Retained::into_raw(new_object::<EmulatedProcessInfo>(())), Ordering::Release);
}
