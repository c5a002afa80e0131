//! `NSError`.

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSCopying, NSDictionary, NSError, NSString};

use super::constants::{NSLocalizedDescriptionKey, NSLocalizedFailureReasonErrorKey};
use super::{dictionary, new_object, string};

type UserInfo = NSDictionary<NSString, AnyObject>;

pub(super) struct Fault {
    domain: Retained<NSString>,
    code: isize,
    user_info: Retained<UserInfo>,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSError"]
    #[ivars = Fault]
    pub(super) struct EmulatedError;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedError {
        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let Fault { domain, code, .. } = self.ivars();
            let (domain, description) = (string::text_of(domain), self.localized_description());
            string::from_str(&format!("Error Domain={domain} Code={code} \"{}\"", string::text_of(&description)))
        }
    }

    // SAFETY: an error never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedError {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedError {
        #[unsafe(method_id(initWithDomain:code:userInfo:))]
        fn _init(this: Allocated<Self>, domain: &NSString, code: isize, user_info: Option<&UserInfo>) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: `init` of NSObject.
            unsafe { msg_send![super(this.set_ivars(Fault::new(domain, code, user_info))), init] }
        }

        #[unsafe(method_id(errorWithDomain:code:userInfo:))]
        fn _error(domain: &NSString, code: isize, user_info: Option<&UserInfo>) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(Fault::new(domain, code, user_info))
        }

        #[unsafe(method_id(domain))]
        fn _domain(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            self.ivars().domain.clone()
        }

        #[unsafe(method(code))]
        fn _code(&self) -> isize {
            self.ivars().code
        }

        #[unsafe(method_id(userInfo))]
        fn _user_info(&self) -> Retained<UserInfo> {
            let _own = emulator_objc::own();
            self.ivars().user_info.clone()
        }

        #[unsafe(method_id(localizedDescription))]
        fn _localized_description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            self.localized_description()
        }

        #[unsafe(method_id(localizedFailureReason))]
        fn _localized_failure_reason(&self) -> Option<Retained<NSString>> {
            let _own = emulator_objc::own();
            self.ivars().text_for(NSLocalizedFailureReasonErrorKey.get())
        }
    }
);

impl Fault {
    fn new(domain: &NSString, code: isize, user_info: Option<&UserInfo>) -> Fault {
        let user_info = user_info.map_or_else(|| dictionary::of_strings(&[]), Message::retain);
        Fault { domain: domain.retain(), code, user_info }
    }

    fn text_for(&self, key: &NSString) -> Option<Retained<NSString>> {
        self.user_info.objectForKey(key)?.downcast().ok()
    }
}

impl EmulatedError {
    fn localized_description(&self) -> Retained<NSString> {
        let fault = self.ivars();
        fault.text_for(NSLocalizedDescriptionKey.get()).unwrap_or_else(|| {
            // Apple's words where an error says nothing itself.
            let (domain, code) = (string::text_of(&fault.domain), fault.code);
            string::from_str(&format!("The operation couldn’t be completed. ({domain} error {code}.)"))
        })
    }
}

pub(super) fn with_description(domain: &str, code: isize, description: String) -> Retained<NSError> {
    let _own = emulator_objc::own();
    let description = string::from_str(&description);
    let user_info = dictionary::of_strings(&[(NSLocalizedDescriptionKey.get(), &description)]);
    let error = new_object::<EmulatedError>(Fault { domain: string::from_str(domain), code, user_info });
    // SAFETY: `EmulatedError` is the class that is registered as `NSError`.
    unsafe { Retained::cast_unchecked(error) }
}

pub(super) fn register() {
    EmulatedError::class();
}
