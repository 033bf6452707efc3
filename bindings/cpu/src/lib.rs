//! What the engine needs of the CPU and safe Rust does not offer.
//!
//! Everything here is a hint: without it programs are slower and otherwise the same. So all of it is
//! safe to call, and does nothing on machines that have no such thing.

use std::mem::size_of_val;

/// Bytes of a cache line.
pub const LINE: usize = 64;
/// Bytes of a huge page on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// Asks for the first cache line of `value`, to be read or written soon.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// Asks for the first `lines` cache lines of `value`, as far as it reaches.
#[inline(always)]
pub fn prefetch_lines<T: ?Sized>(value: &T, lines: usize) {
    let first: *const u8 = std::ptr::from_ref(value).cast();
    for i in 0..lines.min(size_of_val(value).div_ceil(LINE)) {
        line(first.wrapping_add(i * LINE));
    }
}

#[inline(always)]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch does not access memory: it faults for no address and changes nothing
        // but the cache. SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Which of eight tags are `wanted`: bit i for tag i.
#[inline(always)]
#[must_use]
pub fn matches(tags: &[u16; 8], wanted: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        // SAFETY: SSE2 is part of x86-64; the load reads the array's 16 bytes and needs no alignment.
        let mask = unsafe {
            let all = _mm_loadu_si128(tags.as_ptr().cast());
            let same = _mm_cmpeq_epi16(all, _mm_set1_epi16(wanted.cast_signed()));
            _mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()))
        };
        mask.cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        tags.iter().enumerate().fold(0, |m, (i, t)| m | u32::from(*t == wanted) << i)
    }
}

/// Asks the kernel to back a table's whole capacity with huge pages as it is filled (Linux
/// `madvise(MADV_HUGEPAGE)`). Returns whether the kernel agreed; it may have none to give later all
/// the same. Tables under 2 MiB are left alone.
pub fn prefer_huge_pages<T>(table: &mut Vec<T>) -> bool {
    let start = table.as_ptr().addr();
    let end = start + table.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(HUGE_PAGE), end / HUGE_PAGE * HUGE_PAGE);
    if first >= last {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        let at = table.as_mut_ptr().cast::<u8>().wrapping_add(first - start);
        // SAFETY: the range lies within the vector's own allocation, which `&mut` keeps others from
        // using; the advice changes how it is backed, not what it holds.
        unsafe { libc::madvise(at.cast(), last - first, libc::MADV_HUGEPAGE) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Has the kernel back a table's whole capacity now, so that filling it never waits for memory (Linux
/// `madvise(MADV_POPULATE_WRITE)`, 5.14). Returns whether it did; without, pages come as they are
/// first written. Tables under a page are left alone.
pub fn populate<T>(table: &mut Vec<T>) -> bool {
    const PAGE: usize = 4096;
    let start = table.as_ptr().addr();
    let end = start + table.capacity() * size_of::<T>();
    let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if first >= last {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        let at = table.as_mut_ptr().cast::<u8>().wrapping_add(first - start);
        // SAFETY: the range lies within the vector's own allocation, which `&mut` keeps others from
        // using; populating pages does not change what they hold.
        unsafe { libc::madvise(at.cast(), last - first, libc::MADV_POPULATE_WRITE) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_change_nothing() {
        let mut v: Vec<u64> = Vec::with_capacity(1 << 20);
        v.extend(0..1000);
        // A kernel without huge pages refuses; the table is the same either way.
        let _ = prefer_huge_pages(&mut v);
        let _ = populate(&mut v);
        prefetch(&v[999]);
        prefetch_lines(&v[..], 1 << 30);
        prefetch::<[u64]>(&[]);
        v.extend(1000..1 << 20);
        assert!(v.iter().copied().eq(0..1 << 20));
    }

    #[test]
    fn matches_are_found_in_every_place() {
        for mask in 0..=255u32 {
            let tags = std::array::from_fn(|i| if mask >> i & 1 == 1 { 0xbeef } else { i as u16 });
            assert_eq!(matches(&tags, 0xbeef), mask);
        }
        assert_eq!(matches(&[0; 8], 0), 255);
    }

    #[test]
    fn small_tables_are_left_alone() {
        assert!(!prefer_huge_pages(&mut Vec::<u8>::new()));
        assert!(!prefer_huge_pages(&mut vec![0u8; 4096]));
        assert!(!populate(&mut Vec::<u8>::new()));
        assert!(!populate(&mut vec![0u8; 100]));
    }
}
