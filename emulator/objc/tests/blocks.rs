//! Blocks made by block2.

use std::cell::Cell;
use std::rc::Rc;

use block2::{RcBlock, StackBlock, global_block};
use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol};

global_block! {
    static ADD = |a: i32, b: i32| -> i32 { a + b };
}

#[test]
fn a_block_keeps_what_it_captured_until_the_last_copy_goes() {
    let captured = Rc::new(Cell::new(0));
    let inside = captured.clone();
    let block = RcBlock::new(move |step: i32| {
        inside.set(inside.get() + step);
        inside.get()
    });
    assert_eq!(Rc::strong_count(&captured), 2);
    let copy = block.clone();
    assert_eq!(block.call((2,)), 2);
    assert_eq!(copy.call((3,)), 5);
    drop(block);
    assert_eq!(Rc::strong_count(&captured), 2);
    drop(copy);
    assert_eq!(Rc::strong_count(&captured), 1);
}

#[test]
fn a_stack_block_is_copied_to_the_heap_with_what_it_captured() {
    let captured = Rc::new(());
    let inside = captured.clone();
    let block = StackBlock::new(move || Rc::strong_count(&inside));
    assert_eq!(block.call(()), 2);
    let before = emulator_objc::counts();
    let heap = block.copy();
    assert_eq!((emulator_objc::counts() - before).blocks_copied, 1);
    drop(block);
    assert_eq!(heap.call(()), 2);
    drop(heap);
    assert_eq!(Rc::strong_count(&captured), 1);
}

#[test]
fn a_global_block_is_not_copied() {
    let before = emulator_objc::counts();
    let copy = ADD.copy();
    assert_eq!(copy.call((2, 3)), 5);
    assert_eq!((emulator_objc::counts() - before).blocks_copied, 0);
}

#[test]
fn a_block_that_captured_an_object_holds_a_reference() {
    let object = NSObject::new();
    let inside: Retained<NSObject> = object.clone();
    let block = RcBlock::new(move || inside.retainCount());
    assert_eq!(block.call(()), 2);
    drop(block);
    assert_eq!(object.retainCount(), 1);
}
