//! `NSException`.

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSDictionary, NSString};

use super::{new_object, raise, string};

pub(super) struct Fields {
    name: Retained<NSString>,
    reason: Option<Retained<NSString>>,
    user_info: Option<Retained<NSDictionary>>,
}

impl Fields {
    fn new(name: &NSString, reason: Option<&NSString>, user_info: Option<&NSDictionary>) -> Fields {
        Fields { name: name.retain(), reason: reason.map(Message::retain), user_info: user_info.map(Message::retain) }
    }

    fn reason(&self) -> &str {
        self.reason.as_deref().map_or("", string::text_of)
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSException"]
    #[ivars = Fields]
    pub(super) struct EmulatedException;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedException {
        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            string::from_str(self.ivars().reason())
        }
    }

    impl EmulatedException {
        #[unsafe(method_id(initWithName:reason:userInfo:))]
        fn _init(
            this: Allocated<Self>,
            name: &NSString,
            reason: Option<&NSString>,
            user_info: Option<&NSDictionary>,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: `init` of NSObject.
            unsafe { msg_send![super(this.set_ivars(Fields::new(name, reason, user_info))), init] }
        }

        #[unsafe(method_id(exceptionWithName:reason:userInfo:))]
        fn _exception(
            name: &NSString,
            reason: Option<&NSString>,
            user_info: Option<&NSDictionary>,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(Fields::new(name, reason, user_info))
        }

        #[unsafe(method_id(name))]
        fn _name(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            self.ivars().name.clone()
        }

        #[unsafe(method_id(reason))]
        fn _reason(&self) -> Option<Retained<NSString>> {
            let _own = emulator_objc::own();
            self.ivars().reason.clone()
        }

        #[unsafe(method_id(userInfo))]
        fn _user_info(&self) -> Option<Retained<NSDictionary<AnyObject, AnyObject>>> {
            let _own = emulator_objc::own();
            self.ivars().user_info.clone()
        }

        #[unsafe(method(raise))]
        fn _raise(&self) {
            raise(string::text_of(&self.ivars().name), self.ivars().reason())
        }
    }
);

pub(super) fn register() {
    EmulatedException::class();
}
