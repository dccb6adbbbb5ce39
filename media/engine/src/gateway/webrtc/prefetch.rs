//! Asks the processor for memory that is about to be read. Knows nothing of what lies there.
//!
//! Between two pictures the kernel's copies push every viewer's keys out of the core's cache; read one after another they
//! cost more time than the cipher. A hint has no effect but on time.
#![allow(unsafe_code)]

/// Bytes fetched at once, on every processor this runs on.
const LINE_BYTES: usize = 64;

/// Fetches all of `value` itself, not what it points to. Returns at once.
pub(super) fn prefetch<T>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        line(begin.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
fn line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing that the program could see, and faults on no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(target_arch = "aarch64")]
fn line(address: *const i8) {
    // SAFETY: a hint; it reads nothing that the program could see, and faults on no address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags))
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn line(_: *const i8) {}
