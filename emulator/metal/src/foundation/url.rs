//! `NSURL`, of files only.

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::ptr::NonNull;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSCopying, NSString};

use super::{new_object, string};

/// A path to a file, without a slash at its end, that is to say also of a folder.
pub(super) struct File {
    path: CString,
    is_folder: bool,
}

impl File {
    fn new(path: &[u8], is_folder: Option<bool>, base: Option<&EmulatedUrl>) -> File {
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let path = match base {
            Some(base) => PathBuf::from(std::ffi::OsStr::from_bytes(base.ivars().path.to_bytes())).join(path),
            None => std::path::absolute(&path).unwrap_or(path),
        };
        let is_folder = is_folder.unwrap_or_else(|| path.is_dir());
        let mut bytes = path.into_os_string().into_vec();
        if bytes.len() > 1 && bytes.last() == Some(&b'/') {
            bytes.pop();
        }
        bytes.retain(|byte| *byte != 0);
        File { path: CString::new(bytes).expect("NUL was removed"), is_folder }
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The whole URL, other bytes than those that RFC 3986 leaves as they are in a path in percent.
    fn url(&self) -> String {
        let mut url = String::from("file://");
        for byte in self.path.to_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => url.push(char::from(*byte)),
                _ if b"/-._~!$&'()*+,=:@".contains(byte) => url.push(char::from(*byte)),
                _ => url.push_str(&format!("%{byte:02X}")),
            }
        }
        if self.is_folder && !url.ends_with('/') {
            url.push('/');
        }
        url
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSURL"]
    #[ivars = File]
    pub(super) struct EmulatedUrl;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedUrl {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            let other = other.and_then(|other| other.downcast_ref::<EmulatedUrl>());
            other.is_some_and(|other| other.ivars().url() == self.ivars().url())
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            self.ivars().path.count_bytes()
        }

        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            string::from_str(&self.ivars().url())
        }
    }

    // SAFETY: a URL never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedUrl {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedUrl {
        #[unsafe(method_id(initFileURLWithPath:))]
        fn _init(this: Allocated<Self>, path: &NSString) -> Retained<Self> {
            let _own = emulator_objc::own();
            initialise(this, File::new(string::text_of(path).as_bytes(), None, None))
        }

        #[unsafe(method_id(initFileURLWithPath:isDirectory:))]
        fn _init_with_kind(this: Allocated<Self>, path: &NSString, is_folder: bool) -> Retained<Self> {
            let _own = emulator_objc::own();
            initialise(this, File::new(string::text_of(path).as_bytes(), Some(is_folder), None))
        }

        #[unsafe(method_id(fileURLWithPath:))]
        fn _url(path: &NSString) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(File::new(string::text_of(path).as_bytes(), None, None))
        }

        #[unsafe(method_id(fileURLWithPath:isDirectory:))]
        fn _url_with_kind(path: &NSString, is_folder: bool) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(File::new(string::text_of(path).as_bytes(), Some(is_folder), None))
        }

        #[unsafe(method_id(initFileURLWithFileSystemRepresentation:isDirectory:relativeToURL:))]
        fn _init_with_representation(
            this: Allocated<Self>,
            path: NonNull<c_char>,
            is_folder: bool,
            base: Option<&EmulatedUrl>,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes a string that ends in NUL.
            let path = unsafe { CStr::from_ptr(path.as_ptr()) };
            initialise(this, File::new(path.to_bytes(), Some(is_folder), base))
        }

        #[unsafe(method_id(path))]
        fn _path(&self) -> Option<Retained<NSString>> {
            let _own = emulator_objc::own();
            Some(string::from_str(&self.ivars().text()))
        }

        #[unsafe(method_id(lastPathComponent))]
        fn _last_component(&self) -> Option<Retained<NSString>> {
            let _own = emulator_objc::own();
            self.ivars().text().rsplit('/').next().map(string::from_str)
        }

        #[unsafe(method_id(absoluteString))]
        fn _absolute_string(&self) -> Option<Retained<NSString>> {
            let _own = emulator_objc::own();
            Some(string::from_str(&self.ivars().url()))
        }

        #[unsafe(method(isFileURL))]
        fn _is_file(&self) -> bool {
            true
        }

        #[unsafe(method(hasDirectoryPath))]
        fn _is_folder(&self) -> bool {
            self.ivars().is_folder
        }

        #[unsafe(method(fileSystemRepresentation))]
        fn _representation(&self) -> NonNull<c_char> {
            NonNull::from(self.ivars().path.as_c_str()).cast()
        }

        #[unsafe(method(getFileSystemRepresentation:maxLength:))]
        fn _get_representation(&self, buffer: NonNull<c_char>, capacity: usize) -> bool {
            let _own = emulator_objc::own();
            let path = self.ivars().path.as_bytes_with_nul();
            let fits = path.len() <= capacity;
            if fits {
                // SAFETY: the caller has room for `capacity` bytes.
                unsafe { buffer.as_ptr().cast::<u8>().copy_from_nonoverlapping(path.as_ptr(), path.len()) };
            }
            fits
        }
    }
);

fn initialise(this: Allocated<EmulatedUrl>, file: File) -> Retained<EmulatedUrl> {
    // SAFETY: `init` of NSObject.
    unsafe { msg_send![super(this.set_ivars(file)), init] }
}

pub(super) fn register() {
    EmulatedUrl::class();
}
