//! Classes: what they know, how they are made and found.
//!
//! A class lives for ever, also after `objc_disposeClassPair`: others may hold references to it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, RwLock};

use crate::cache::Cache;
use crate::loader;
use crate::method::{Imp, Method};
use crate::protocol::Protocol;
use crate::selector::Sel;

/// What an object of a class is, to those who count references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ordinary object with a header in front of it.
    Counted,
    /// A class or a protocol: there for ever.
    Permanent,
    StackBlock,
    GlobalBlock,
    HeapBlock,
    /// Freed memory that still can be told from other memory.
    Freed,
}

/// An instance variable.
pub(crate) struct Ivar {
    pub(crate) name: &'static CStr,
    pub(crate) types: &'static CStr,
    pub(crate) offset: usize,
}

/// A class or a metaclass. It is an object itself, so its own class comes first, as in every object.
#[repr(C)]
pub(crate) struct Class {
    isa: AtomicPtr<Class>,
    superclass: AtomicPtr<Class>,
    name: &'static CStr,
    /// What its instances are.
    pub(crate) kind: Kind,
    is_metaclass: bool,
    /// Made by the loader: what its methods and destructors do is not the user's doing.
    pub(crate) is_emulated: AtomicBool,
    is_registered: AtomicBool,
    /// Nothing is found here: on a metaclass, that the class is not there (`absent.rs`).
    pub(crate) is_hidden: AtomicBool,
    instance_size: AtomicUsize,
    cache: Cache,
    methods: RwLock<BTreeMap<usize, &'static Method>>,
    pub(crate) ivars: Mutex<Vec<&'static Ivar>>,
    pub(crate) protocols: Mutex<Vec<&'static Protocol>>,
    /// The class that instances of this one change to when they are freed.
    freed: OnceLock<&'static Class>,
    pub(crate) alive: AtomicU64,
    pub(crate) autoreleased_without_pool: AtomicU64,
}

impl Class {
    pub(crate) const fn new(name: &'static CStr, kind: Kind, is_metaclass: bool) -> Class {
        Class {
            isa: AtomicPtr::new(ptr::null_mut()),
            superclass: AtomicPtr::new(ptr::null_mut()),
            name,
            kind,
            is_metaclass,
            is_emulated: AtomicBool::new(false),
            is_registered: AtomicBool::new(false),
            is_hidden: AtomicBool::new(false),
            instance_size: AtomicUsize::new(size_of::<*const Class>()),
            cache: Cache::new(),
            methods: RwLock::new(BTreeMap::new()),
            ivars: Mutex::new(Vec::new()),
            protocols: Mutex::new(Vec::new()),
            freed: OnceLock::new(),
            alive: AtomicU64::new(0),
            autoreleased_without_pool: AtomicU64::new(0),
        }
    }

    /// Makes a class and its metaclass; without a superclass, a root. It is not registered yet.
    pub(crate) fn new_pair(superclass: Option<&'static Class>, name: &CStr) -> &'static Class {
        let name: &'static CStr = Box::leak(name.into());
        let metaclass: &'static Class = Box::leak(Box::new(Class::new(name, Kind::Permanent, true)));
        let class: &'static Class = Box::leak(Box::new(Class::new(name, Kind::Counted, false)));
        class.set_isa(metaclass);
        match superclass {
            Some(superclass) => {
                class.set_superclass(superclass);
                class.instance_size.store(superclass.instance_size(), Ordering::Relaxed);
                metaclass.set_superclass(superclass.isa());
                metaclass.set_isa(superclass.isa().isa());
            }
            // The root's metaclass is its own class and inherits the instance methods of the root.
            None => {
                metaclass.set_superclass(class);
                metaclass.set_isa(metaclass);
            }
        }
        class
    }

    fn set_isa(&self, class: &'static Class) {
        self.isa.store(ptr::from_ref(class).cast_mut(), Ordering::Release);
    }

    fn set_superclass(&self, class: &'static Class) {
        self.superclass.store(ptr::from_ref(class).cast_mut(), Ordering::Release);
    }

    /// The class of this class: its metaclass.
    pub(crate) fn isa(&self) -> &'static Class {
        // SAFETY: set once to a leaked class when this one was made; classes of freed objects and blocks have none.
        unsafe { self.isa.load(Ordering::Acquire).as_ref() }.expect("every class has a metaclass")
    }

    #[inline]
    pub(crate) fn superclass(&self) -> Option<&'static Class> {
        // SAFETY: null or a leaked class.
        unsafe { self.superclass.load(Ordering::Acquire).as_ref() }
    }

    /// This class, then the ones it inherits from.
    pub(crate) fn ancestry(&'static self) -> impl Iterator<Item = &'static Class> {
        std::iter::successors(Some(self), |class| class.superclass())
    }

    pub(crate) fn name(&self) -> &'static CStr {
        self.name
    }

    pub(crate) fn is_metaclass(&self) -> bool {
        self.is_metaclass
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.is_registered.load(Ordering::Acquire)
    }

    pub(crate) fn is_emulated(&self) -> bool {
        self.is_emulated.load(Ordering::Relaxed)
    }

    pub(crate) fn instance_size(&self) -> usize {
        self.instance_size.load(Ordering::Relaxed)
    }

    /// `-[Class selector]`, or `+[..]` if this is a metaclass.
    pub(crate) fn method_name(&self, selector: Sel) -> String {
        let sign = if self.is_metaclass { '+' } else { '-' };
        format!("{sign}[{} {selector}]", self.name.to_string_lossy())
    }

    /// The method that a message to an instance of this class leads to.
    #[inline]
    pub(crate) fn method(&'static self, selector: Sel) -> Option<&'static Method> {
        self.cache.get(selector).or_else(|| self.search(selector))
    }

    #[cold]
    fn search(&'static self, selector: Sel) -> Option<&'static Method> {
        self.cache.fill(selector, || {
            let is_there = |method: &&Method| !method.is_hidden.load(Ordering::Acquire);
            let find = |class: &Class| class.own_method(selector).filter(is_there);
            if self.is_hidden.load(Ordering::Acquire) { None } else { self.ancestry().find_map(find) }
        })
    }

    /// The methods that this class itself defines.
    pub(crate) fn own_methods(&self) -> Vec<&'static Method> {
        self.methods.read().expect("never poisoned").values().copied().collect()
    }

    pub(crate) fn own_method(&self, selector: Sel) -> Option<&'static Method> {
        self.methods.read().expect("never poisoned").get(&selector.address()).copied()
    }

    /// Adds a method; false if this class itself already has one of that name.
    pub(crate) fn add_method(&'static self, selector: Sel, imp: Imp, types: &CStr) -> bool {
        let method: &'static Method = Box::leak(Box::new(Method::new(selector, imp, types)));
        {
            let mut methods = self.methods.write().expect("never poisoned");
            if methods.contains_key(&selector.address()) {
                return false;
            }
            methods.insert(selector.address(), method);
        }
        // A class that inherits the method may have looked up another one before.
        forget_lookups();
        self.cache.clear();
        true
    }

    /// Appends an instance variable; false if there are instances already or if the name is taken.
    pub(crate) fn add_ivar(&'static self, name: &CStr, size: usize, alignment: usize, types: &CStr) -> bool {
        if self.is_registered() || self.is_metaclass || alignment > crate::instance::ALIGNMENT {
            return false;
        }
        let mut ivars = self.ivars.lock().expect("never poisoned");
        if ivars.iter().any(|ivar| ivar.name == name) {
            return false;
        }
        let offset = self.instance_size().next_multiple_of(alignment);
        let (name, types) = (Box::leak(name.into()), Box::leak(types.into()));
        ivars.push(Box::leak(Box::new(Ivar { name, types, offset })));
        self.instance_size.store(offset + size, Ordering::Relaxed);
        true
    }

    pub(crate) fn ivar(&'static self, name: &CStr) -> Option<&'static Ivar> {
        self.ancestry().find_map(|class| {
            class.ivars.lock().expect("never poisoned").iter().copied().find(|ivar| ivar.name == name)
        })
    }

    /// Whether this class itself, not one above it, adopted `protocol`.
    pub(crate) fn adopts(&self, protocol: &'static Protocol) -> bool {
        let adopted = self.protocols.lock().expect("never poisoned").clone();
        adopted.iter().any(|adopted| adopted.conforms_to(protocol))
    }

    /// The class that a freed instance of this one has: without methods, but with the name.
    pub(crate) fn freed(&self) -> &'static Class {
        self.freed.get_or_init(|| {
            let class: &'static Class = Box::leak(Box::new(Class::new(self.name, Kind::Freed, false)));
            let metaclass: &'static Class = Box::leak(Box::new(Class::new(self.name, Kind::Permanent, true)));
            metaclass.set_isa(metaclass);
            class.set_isa(metaclass);
            class
        })
    }
}

/// Every class that was allocated, by name. The registered ones can be found by others.
static CLASSES: RwLock<BTreeMap<&'static CStr, &'static Class>> = RwLock::new(BTreeMap::new());

/// The registered class of this name. Runs the loader first, so that emulated frameworks are there.
pub(crate) fn lookup(name: &CStr) -> Option<&'static Class> {
    lookup_hidden(name).filter(|class| !class.isa().is_hidden.load(Ordering::Acquire))
}

/// The same, also where it is hidden.
pub(crate) fn lookup_hidden(name: &CStr) -> Option<&'static Class> {
    loader::load();
    CLASSES.read().expect("never poisoned").get(name).copied().filter(|class| class.is_registered())
}

/// Empties the caches of all classes: what a selector leads to has changed.
pub(crate) fn forget_lookups() {
    for class in all() {
        class.cache.clear();
        class.isa().cache.clear();
    }
}

/// All registered classes, in the order of their names.
pub(crate) fn all() -> Vec<&'static Class> {
    CLASSES.read().expect("never poisoned").values().copied().filter(|class| class.is_registered()).collect()
}

/// Makes a class of this name, or `None` if there is one.
pub(crate) fn allocate(superclass: Option<&'static Class>, name: &CStr) -> Option<&'static Class> {
    let mut classes = CLASSES.write().expect("never poisoned");
    if classes.contains_key(name) {
        return None;
    }
    let class = Class::new_pair(superclass, name);
    classes.insert(class.name, class);
    Some(class)
}

/// Lets others find the class.
pub(crate) fn register(class: &'static Class) {
    class.is_emulated.store(loader::is_loading_here(), Ordering::Relaxed);
    class.isa().is_registered.store(true, Ordering::Release);
    class.is_registered.store(true, Ordering::Release);
}

/// Frees the name of the class.
pub(crate) fn dispose(class: &'static Class) {
    CLASSES.write().expect("never poisoned").remove(class.name);
}
