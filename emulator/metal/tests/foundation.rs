//! Foundation, used as code for Metal uses it: through the typed crate only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::NonNull;

use emulator_objc::{Counts, Exception, counts};
use metal_emulator as _;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol};
use objc2::{AnyThread, MainThreadMarker, Message, msg_send};
use objc2_foundation::{
    NSArray, NSAutoreleasePool, NSBundle, NSComparisonResult, NSCopying, NSData, NSDictionary, NSError, NSException,
    NSLocalizedDescriptionKey, NSNotFound, NSNumber, NSProcessInfo, NSRange, NSRangeException, NSString, NSURL,
    NSValue, ns_string,
};

fn strings(texts: &[&str]) -> Retained<NSArray<NSString>> {
    let texts: Vec<_> = texts.iter().map(|text| NSString::from_str(text)).collect();
    NSArray::from_retained_slice(&texts)
}

fn raised(action: impl FnOnce()) -> Exception {
    let payload = catch_unwind(AssertUnwindSafe(action)).expect_err("nothing was raised");
    Exception::from_panic(&*payload).expect("the panic is not an exception")
}

#[test]
fn a_string_keeps_its_text() {
    for text in ["", "plain", "Größe 𝄞 ∑", "a\0b\0", "\0"] {
        let string = NSString::from_str(text);
        assert_eq!(string.to_string(), text);
        assert_eq!(string.len(), text.len());
        assert_eq!(string.len_utf16(), text.encode_utf16().count());
    }
    assert_eq!(NSString::from_str("𝄞").characterAtIndex(1), 0xDD1E);
    assert_eq!(NSString::new().to_string(), "");
    assert_eq!(ns_string!("constant").to_string(), "constant");
}

#[test]
fn strings_are_compared_by_their_text() {
    let (one, same, other) = (NSString::from_str("eins"), NSString::from_str("eins"), NSString::from_str("zwei"));
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert!(!one.isEqual(None));
    assert!(!one.isEqual(Some(&NSObject::new())));
    assert_eq!(NSObjectProtocol::hash(&*one), NSObjectProtocol::hash(&*same));
    assert_ne!(NSObjectProtocol::hash(&*one), NSObjectProtocol::hash(&*other));
    assert_eq!(one.compare(&other), NSComparisonResult::Ascending);
    assert!(one < other && one.hasPrefix(ns_string!("ei")) && one.hasSuffix(ns_string!("ns")));
    assert!(!one.containsString(ns_string!("zw")));
    assert_eq!(one.stringByAppendingString(&other).to_string(), "einszwei");
    assert_eq!(format!("{one} {one:?}"), "eins \"eins\"");
}

#[test]
fn a_string_is_its_own_copy() {
    let string = NSString::from_str("text");
    let copy = string.copy();
    assert!(std::ptr::eq(&*string, &*copy));
    assert_eq!(string.retainCount(), 2);
}

#[test]
fn bytes_that_are_no_utf8_make_no_string() {
    let bytes = [b'a', 0xFF];
    // SAFETY: the signature of the method in objc2's GNUstep path.
    let string: Option<Retained<NSString>> = unsafe {
        let start = bytes.as_ptr().cast::<std::ffi::c_void>();
        msg_send![NSString::alloc(), initWithBytes: start, length: bytes.len(), encoding: 4i32]
    };
    assert!(string.is_none());
}

#[test]
fn an_array_gives_its_objects_back() {
    let array = strings(&["a", "b", "c"]);
    assert_eq!(array.len(), 3);
    assert_eq!(array.objectAtIndex(1).to_string(), "b");
    assert_eq!(array.firstObject().expect("there is one").to_string(), "a");
    assert_eq!(array.lastObject().expect("there is one").to_string(), "c");
    let listed: Vec<_> = array.iter().map(|string| string.to_string()).collect();
    assert_eq!(listed, ["a", "b", "c"]);
    assert_eq!(array.to_vec().len(), 3);
    assert_eq!(array.objects_in_range(1..3)[1].to_string(), "c");
    assert!(array.containsObject(ns_string!("b")) && !array.containsObject(ns_string!("d")));
    assert_eq!(array.indexOfObject(ns_string!("c")), 2);
    assert_eq!(array.indexOfObject(ns_string!("d")), NSNotFound as usize);
    assert_eq!(array, strings(&["a", "b", "c"]));
    assert_ne!(array, strings(&["a", "b"]));
    assert_eq!(array.arrayByAddingObject(ns_string!("d")).len(), 4);
    assert_eq!(format!("{array:?}"), r#"["a", "b", "c"]"#);
}

#[test]
fn an_empty_array_has_nothing_to_give() {
    let array = NSArray::<NSString>::new();
    assert!(array.is_empty() && array.firstObject().is_none() && array.iter().next().is_none());
    let exception = raised(|| _ = array.objectAtIndex(0));
    assert_eq!(exception.name, "NSRangeException");
    assert_eq!(exception.reason, "-[NSArray objectAtIndex:]: index 0 beyond bounds for empty array");
    let exception = raised(|| _ = strings(&["a", "b"]).objectAtIndex(2));
    assert_eq!(exception.reason, "-[NSArray objectAtIndex:]: index 2 beyond bounds [0 .. 1]");
}

#[test]
fn an_array_of_many_is_enumerated_in_order() {
    let numbers: Vec<_> = (0..1000).map(NSNumber::new_i32).collect();
    let array = NSArray::from_retained_slice(&numbers);
    assert!(array.into_iter().map(|number| number.as_i32()).eq(0..1000));
}

#[test]
fn a_collection_keeps_its_objects_alive_and_lets_go_of_them() {
    let object = NSObject::new();
    let array = NSArray::from_slice(&[&*object, &*object]);
    assert_eq!(object.retainCount(), 3);
    let dictionary = NSDictionary::from_slices(&[ns_string!("key")], &[&*object]);
    assert_eq!(object.retainCount(), 4);
    drop(dictionary);
    drop(array);
    assert_eq!(object.retainCount(), 1);
}

#[test]
fn a_dictionary_finds_by_equal_keys() {
    let keys = [ns_string!("one"), ns_string!("two")];
    let numbers = [NSNumber::new_u8(1), NSNumber::new_u8(2)];
    let dictionary = NSDictionary::from_retained_objects(&keys, &numbers);
    assert_eq!(dictionary.len(), 2);
    let found = dictionary.objectForKey(&NSString::from_str("two")).expect("it is there");
    assert_eq!(found.as_u8(), 2);
    assert!(dictionary.objectForKey(ns_string!("three")).is_none());
    let keys: Vec<_> = dictionary.keys().map(|key| key.to_string()).collect();
    assert_eq!(keys, ["one", "two"]);
    assert_eq!(dictionary.allValues().len(), 2);
    let (keys, values) = dictionary.to_vecs();
    assert_eq!((keys[1].to_string(), values[1].as_u8()), ("two".to_owned(), 2));
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    let keys = [ns_string!("key"), ns_string!("key")];
    let dictionary = NSDictionary::from_slices(&keys, &[ns_string!("old"), ns_string!("new")]);
    assert_eq!(dictionary.len(), 1);
    assert_eq!(dictionary.objectForKey(ns_string!("key")).expect("it is there").to_string(), "new");
}

#[test]
fn an_error_says_what_happened() {
    let text = NSString::from_str("it broke");
    let text: &AnyObject = &text;
    // SAFETY: the constant is set before main.
    let info = NSDictionary::from_slices(&[unsafe { NSLocalizedDescriptionKey }], &[text]);
    // SAFETY: the keys and values are those of an error.
    let error = unsafe { NSError::errorWithDomain_code_userInfo(ns_string!("TestDomain"), 7, Some(&info)) };
    assert_eq!((error.domain().to_string(), error.code()), ("TestDomain".to_owned(), 7));
    assert_eq!(error.localizedDescription().to_string(), "it broke");
    assert_eq!(error.to_string(), "it broke");
    assert_eq!(error.userInfo().len(), 1);
    assert!(format!("{error:?}").contains("code: 7"), "{error:?}");

    let silent = NSError::new(3, ns_string!("TestDomain"));
    assert_eq!(silent.to_string(), "The operation couldn’t be completed. (TestDomain error 3.)");
    assert!(silent.userInfo().is_empty() && silent.localizedFailureReason().is_none());
}

#[test]
fn an_exception_is_raised_with_its_name_and_reason() {
    // SAFETY: the constant is set before main, and there is no information.
    let exception = unsafe {
        let reason = ns_string!("too far");
        NSException::initWithName_reason_userInfo(NSException::alloc(), NSRangeException, Some(reason), None)
    };
    let sent = raised(|| {
        // SAFETY: the signature of `raise`.
        let () = unsafe { msg_send![&*exception, raise] };
    });
    assert_eq!(sent, Exception { name: "NSRangeException".to_owned(), reason: "too far".to_owned() });
    let object = Retained::as_ptr(&exception).cast_mut().cast::<AnyObject>();
    // SAFETY: an exception may be thrown.
    let thrown = raised(|| unsafe { objc2::ffi::objc_exception_throw(object) });
    assert_eq!(thrown, sent);
}

#[test]
fn a_url_knows_its_file() {
    let url = NSURL::fileURLWithPath(ns_string!("/tmp/a file.metallib"));
    assert_eq!(url.path().expect("it has one").to_string(), "/tmp/a file.metallib");
    assert_eq!(url.absoluteString().expect("it has one").to_string(), "file:///tmp/a%20file.metallib");
    assert_eq!(url.lastPathComponent().expect("it has one").to_string(), "a file.metallib");
    assert!(url.isFileURL() && !url.hasDirectoryPath());
    let path = Path::new("/tmp/ö");
    assert_eq!(NSURL::from_file_path(path).expect("it is a path").to_file_path().as_deref(), Some(path));
    assert_eq!(NSURL::from_file_path("").map(|url| url.to_file_path()), None);
    let folder = NSURL::from_directory_path("/tmp/").expect("it is a path");
    assert!(folder.hasDirectoryPath());
    let inside = NSURL::from_path(Path::new("x"), false, Some(&folder)).expect("it is a path");
    assert_eq!(inside.to_file_path().as_deref(), Some(Path::new("/tmp/x")));
    assert_eq!(NSURL::fileURLWithPath(ns_string!("/tmp/a file.metallib")), url);
}

#[test]
fn numbers_convert_as_c_does() {
    assert!(NSNumber::new_bool(true).as_bool() && !NSNumber::new_bool(false).as_bool());
    assert_eq!(NSNumber::new_i8(-3).as_i64(), -3);
    assert_eq!(NSNumber::new_u8(200).as_u8(), 200);
    assert_eq!(NSNumber::new_u16(65535).as_i32(), 65535);
    assert_eq!(NSNumber::new_u32(u32::MAX).as_u64(), u64::from(u32::MAX));
    assert_eq!(NSNumber::new_u64(u64::MAX).as_u64(), u64::MAX);
    assert_eq!(NSNumber::new_i64(i64::MIN).as_i64(), i64::MIN);
    assert_eq!(NSNumber::new_isize(-1).as_isize(), -1);
    assert_eq!(NSNumber::new_usize(usize::MAX).as_usize(), usize::MAX);
    assert_eq!(NSNumber::new_f32(2.75).as_i32(), 2);
    assert_eq!(NSNumber::new_f64(-0.5).as_f32(), -0.5);
    assert_eq!(NSNumber::new_i32(300).as_u8(), 44);
}

#[test]
fn numbers_are_compared_by_value() {
    assert_eq!(NSNumber::new_u8(3), NSNumber::new_f64(3.0));
    assert_eq!(NSNumber::new_f32(f32::NAN), NSNumber::new_f32(f32::NAN));
    assert_ne!(NSNumber::new_u64(u64::MAX), NSNumber::new_i64(-1));
    assert!(NSNumber::new_i32(-1) < NSNumber::new_u64(0));
    let hash = |number: &NSNumber| NSObjectProtocol::hash(number);
    assert_eq!(hash(&NSNumber::new_u8(3)), hash(&NSNumber::new_f64(3.0)));
    assert_eq!(NSNumber::new_f32(0.1).to_string(), "0.1");
    assert_eq!(NSNumber::new_u8(7).to_string(), "7");
    assert_eq!(NSNumber::new_bool(true).encoding(), objc2::Encoding::Char);
}

#[test]
fn values_hold_structs() {
    let range = NSRange::new(3, 9);
    let value = NSValue::new(range);
    assert_eq!(value.get_range(), Some(range));
    // SAFETY: this is the type that went in.
    assert_eq!(unsafe { value.get::<NSRange>() }, range);
    assert_eq!(value, NSValue::new(range));
    assert_ne!(value, NSValue::new(NSRange::new(3, 8)));
    assert!(NSValue::new(1.5f32).contains_encoding::<f32>());
}

#[test]
fn data_is_copied_or_lent() {
    let data = NSData::with_bytes(&[1, 2, 3]);
    assert_eq!(data.to_vec(), [1, 2, 3]);
    assert!(NSData::with_bytes(&[]).is_empty() && NSData::new().is_empty());
    assert_eq!(data, NSData::with_bytes(&[1, 2, 3]));
    let vector = vec![7u8; 100];
    let start = vector.as_ptr();
    let lent = NSData::from_vec(vector);
    // SAFETY: the data does not change.
    assert_eq!(unsafe { lent.as_bytes_unchecked() }.as_ptr(), start);
    assert_eq!(lent.len(), 100);
    let mut out = [0u8; 2];
    // SAFETY: there is room for two bytes.
    unsafe { data.getBytes_length(NonNull::from(&mut out).cast(), 2) };
    assert_eq!(out, [1, 2]);
}

#[test]
fn the_process_knows_itself() {
    let info = NSProcessInfo::processInfo();
    assert!(info.processName().to_string().starts_with("foundation"));
    assert_eq!(info.processIdentifier() as u32, std::process::id());
    assert!(info.processorCount() >= 1 && info.physicalMemory() > 1 << 20);
    assert!(info.operatingSystemVersion().majorVersion >= 13);
    assert!(Path::new(&NSBundle::mainBundle().bundlePath().to_string()).is_dir());
    let on_another = std::thread::spawn(|| MainThreadMarker::new().is_some());
    assert!(!on_another.join().expect("nothing was raised"));
}

#[test]
fn a_pool_object_empties_when_it_is_freed() {
    let object = NSObject::new();
    // SAFETY: the pool is freed on this thread, in order.
    let pool = unsafe { NSAutoreleasePool::new() };
    let _ = Retained::autorelease_ptr(object.clone());
    assert_eq!(object.retainCount(), 2);
    drop(pool);
    assert_eq!(object.retainCount(), 1);
}

#[test]
fn what_foundation_does_itself_is_not_counted() {
    let cost = |action: &dyn Fn()| {
        let before = counts();
        autoreleasepool(|_| action());
        counts() - before
    };
    let array = strings(&["a", "b"]);
    // `alloc`, `initWithBytes:..`; the release of the result.
    let made = cost(&|| drop(NSString::from_str("text")));
    let expected = Counts { messages: 2, releases: 1, objects_made: 1, objects_freed: 1, ..Counts::default() };
    assert_eq!(made, expected);
    // The array does not retain what it returns; the caller does.
    let taken = cost(&|| drop(array.objectAtIndex(0)));
    assert_eq!(taken, Counts { messages: 1, retains: 1, releases: 1, ..Counts::default() });
    // An object made for the caller is handed over: no autorelease, no retain.
    let text = NSString::from_str("a");
    let joined = cost(&|| drop(text.stringByAppendingString(&text)));
    let expected = Counts { messages: 1, releases: 1, objects_made: 1, objects_freed: 1, ..Counts::default() };
    assert_eq!(joined, expected);
    assert_eq!(cost(&|| assert!(array.containsObject(&text))), Counts { messages: 1, ..Counts::default() });
    assert_eq!(cost(&|| drop(text.retain())), Counts { retains: 1, releases: 1, ..Counts::default() });
}
