//! Prefetches memory that is about to be read. Independent of its contents.
//!
//! Between two frames, the kernel's copies evict every viewer's keys from the core's cache; reading
//! them one after another would cost more time than the cipher. A prefetch affects only timing.
#![allow(unsafe_code)]

/// Size of a cache line on all supported processors.
const LINE_BYTES: usize = 64;

/// Prefetches all cache lines of `value` itself, not of what it points to. Does not block.
pub(crate) fn prefetch<T>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        prefetch_line(begin.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing that the program could see, and faults on no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(target_arch = "aarch64")]
fn prefetch_line(address: *const i8) {
    // SAFETY: a hint; it reads nothing that the program could see, and faults on no address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch_line(_: *const i8) {}
