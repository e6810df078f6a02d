//! The daemon's allocator: mimalloc for what is small, the system's for the rest; docs/decisions/0039.
//!
//! A handshake makes some two hundred small allocations, which mimalloc serves in half the time. A record of TLS is
//! encrypted in a buffer of 16 KiB that lives for a moment: the system's allocator hands out the one that was given back
//! last, which is still in the processor's cache; mimalloc hands out the one that was not used for the longest time.
//! Invariant: which of the two a block belongs to follows from its size alone.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
};

use mimalloc::MiMalloc;

/// The largest block that is mimalloc's: a page.
const SMALL: usize = 4096;

/// Both allocators in one.
#[derive(Debug)]
pub(crate) struct BySize;

const fn is_small(size: usize) -> bool {
    size <= SMALL
}

// SAFETY: every call is passed on with its own arguments to one of two sound allocators; a block is given back to, and
// resized by, the one that its layout says it came from, and moves by copying where the other is in charge of its new size.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_small(layout.size()) {
            // SAFETY: the caller's promises are passed on.
            unsafe { MiMalloc.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_small(layout.size()) {
            // SAFETY: the caller's promises are passed on.
            unsafe { MiMalloc.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_small(layout.size()) {
            // SAFETY: a block of this size came from mimalloc.
            unsafe { MiMalloc.dealloc(block, layout) }
        } else {
            // SAFETY: a block of this size came from the system.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match (is_small(layout.size()), is_small(new_size)) {
            // SAFETY: a block of this size came from mimalloc, and stays there.
            (true, true) => unsafe { MiMalloc.realloc(block, layout, new_size) },
            // SAFETY: a block of this size came from the system, and stays there.
            (false, false) => unsafe { System.realloc(block, layout, new_size) },
            _ => {
                // SAFETY: the caller promises that `new_size` is not zero and makes a layout with this alignment.
                let moved = unsafe {
                    self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()))
                };
                if !moved.is_null() {
                    // SAFETY: both blocks hold that many bytes, and a new one overlaps no other; the old one is given
                    // back by the layout that it was asked for with.
                    unsafe {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_bytes_while_it_grows_and_shrinks_across_the_border() {
        let start = Layout::from_size_align(8, 8).expect("a layout");
        // SAFETY: the layout is not empty.
        let mut block = unsafe { BySize.alloc(start) };
        assert!(!block.is_null());
        // SAFETY: the block holds 8 bytes.
        unsafe { block.add(7).write(0x5e) };
        let mut layout = start;
        for size in [SMALL, SMALL + 1, 1 << 20, SMALL + 1, SMALL, 16] {
            // SAFETY: the block was asked for with this layout, and the size is not zero.
            block = unsafe { BySize.realloc(block, layout, size) };
            assert!(!block.is_null());
            layout = Layout::from_size_align(size, 8).expect("a layout");
            // SAFETY: the block holds more than 8 bytes.
            assert_eq!(unsafe { block.add(7).read() }, 0x5e, "{size}");
        }
        // SAFETY: as it was asked for last.
        unsafe { BySize.dealloc(block, layout) };
        let zeroed = Layout::from_size_align(SMALL * 2, 64).expect("a layout");
        // SAFETY: the layout is not empty; the block is given back as it was asked for.
        unsafe {
            let block = BySize.alloc_zeroed(zeroed);
            assert!((0..SMALL * 2).all(|at| block.add(at).read() == 0));
            assert_eq!(block.align_offset(64), 0);
            BySize.dealloc(block, zeroed);
        }
    }
}
