//! Up to `N` packets: the unit in which they are received, handed on, sent and freed.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use dpdk_sys::rte_mbuf;

use crate::mbuf::Mbuf;

/// Up to `N` owned packets in order, without allocation. Dereferences to a slice of [`Mbuf`]; what is
/// left when it is dropped is freed with one call.
pub struct Burst<const N: usize = 32> {
    // The first `len` are initialised. An Mbuf is a transparent pointer, so this is C's array.
    bufs: [MaybeUninit<Mbuf>; N],
    len: usize,
}

impl<const N: usize> Burst<N> {
    /// An empty burst. `N` is 1 to 65,535.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N > 0 && N <= u16::MAX as usize) };
        Self { bufs: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Most packets it holds.
    #[inline]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        N
    }

    /// Packets that still fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        N - self.len
    }

    /// Whether nothing fits any more.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == N
    }

    /// Adds a packet at the end, or gives it back if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(slot) = self.bufs.get_mut(self.len) else { return Err(mbuf) };
        slot.write(mbuf);
        self.len += 1;
        Ok(())
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the slot was the last initialised one and no longer counts as such.
        Some(unsafe { self.bufs[self.len].assume_init_read() })
    }

    /// Takes packet `index`, putting the last one in its place; `None` behind the end.
    #[inline]
    pub fn swap_remove(&mut self, index: usize) -> Option<Mbuf> {
        let last = self.len.checked_sub(1)?;
        if index > last {
            return None;
        }
        self.bufs.swap(index, last);
        self.pop()
    }

    /// Moves packets from the front of `other` to the end of this burst while they fit, and returns
    /// how many.
    #[inline]
    pub fn take_from<const M: usize>(&mut self, other: &mut Burst<M>) -> usize {
        let n = self.room().min(other.len);
        // SAFETY: the first n slots of `other` are initialised, n slots are free here, and the two are
        // different objects. Ownership of the moved ones ends in `forget_front`.
        unsafe {
            self.spare().copy_from_nonoverlapping(other.as_raw(), n);
            self.grow(n);
            other.forget_front(n);
        }
        n
    }

    /// Takes all packets out, first to last. Those not taken when the iterator is dropped are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, N> {
        // Emptied now, so that a forgotten iterator leaks packets instead of freeing them twice.
        let len = std::mem::take(&mut self.len);
        Drain { burst: self, next: 0, len }
    }

    /// Frees all packets with one call.
    #[inline]
    pub fn clear(&mut self) {
        let n = std::mem::take(&mut self.len);
        self.free_range(0, n);
    }

    /// Frees `n` slots from `from`, which no longer count as initialised.
    #[inline]
    fn free_range(&mut self, from: usize, n: usize) {
        if n > 0 {
            // SAFETY: the caller stopped counting these n initialised slots, so this is their last use.
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(self.as_raw().add(from), n as u32) };
        }
    }

    /// First slot as C sees it.
    #[inline]
    pub(crate) fn as_raw(&mut self) -> *mut *mut rte_mbuf {
        self.bufs.as_mut_ptr().cast()
    }

    /// First free slot as C sees it; [`Burst::room`] slots follow.
    #[inline]
    pub(crate) fn spare(&mut self) -> *mut *mut rte_mbuf {
        self.as_raw().wrapping_add(self.len)
    }

    /// Counts `n` more slots as owned.
    ///
    /// # Safety
    /// `n` is at most the room, and that many buffers, owned by nobody else, are at [`Burst::spare`].
    #[inline]
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        debug_assert!(n <= self.room());
        self.len += n;
    }

    /// Gives up the first `n` packets without freeing them and moves the rest to the front.
    ///
    /// # Safety
    /// `n` is at most the length, and someone else owns those buffers now.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        self.len -= n;
        if n > 0 && self.len > 0 {
            let first = self.bufs.as_mut_ptr();
            // SAFETY: `len` initialised slots follow the first n; the ranges may overlap.
            unsafe { first.copy_from(first.add(n), self.len) };
        }
    }
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Burst<N> {
    type Target = [Mbuf];
    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` slots are initialised.
        unsafe { std::slice::from_raw_parts(self.bufs.as_ptr().cast(), self.len) }
    }
}

impl<const N: usize> DerefMut for Burst<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` slots are initialised.
        unsafe { std::slice::from_raw_parts_mut(self.bufs.as_mut_ptr().cast(), self.len) }
    }
}

impl<'a, const N: usize> IntoIterator for &'a Burst<N> {
    type Item = &'a Mbuf;
    type IntoIter = std::slice::Iter<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, const N: usize> IntoIterator for &'a mut Burst<N> {
    type Item = &'a mut Mbuf;
    type IntoIter = std::slice::IterMut<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<const N: usize> Drop for Burst<N> {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl<const N: usize> fmt::Debug for Burst<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Burst({} of {N})", self.len)
    }
}

/// Takes the packets of a [`Burst`] out, first to last.
#[derive(Debug)]
pub struct Drain<'a, const N: usize> {
    burst: &'a mut Burst<N>,
    next: usize,
    len: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.len {
            return None;
        }
        let slot = &self.burst.bufs[self.next];
        self.next += 1;
        // SAFETY: the slot is initialised and never read again: `next` has passed it.
        Some(unsafe { slot.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len - self.next;
        (left, Some(left))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    #[inline]
    fn drop(&mut self) {
        self.burst.free_range(self.next, self.len - self.next);
    }
}
