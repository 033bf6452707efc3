//! One packet buffer, owned.
//!
//! Written and read by the thread that holds it. The bytes are those of the first segment; whoever
//! receives from a device that scatters checks [`Mbuf::is_flat`] once per packet, and has the other
//! kind put together by [`Mbuf::flatten`].

use std::fmt;
use std::ptr::NonNull;

use dpdk_sys::rte_mbuf;

use crate::mempool::Mempool;

/// The only handle of a packet buffer. Dropping it gives the buffer back to its pool.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
}

// SAFETY: the handle is the only one of its buffer, and pools take buffers back on any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `raw` is a live buffer of a pool that outlives it, with a reference count of one, and there is
    /// no other handle.
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self { raw }
    }

    fn get(&self) -> &rte_mbuf {
        // SAFETY: the handle owns a live, initialised mbuf, and nobody writes while it is borrowed.
        unsafe { self.raw.as_ref() }
    }

    fn get_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as in `get`, and the borrow is exclusive.
        unsafe { self.raw.as_mut() }
    }

    /// Segments of the packet.
    #[inline]
    #[must_use]
    pub fn nb_segs(&self) -> u16 {
        self.get().nb_segs
    }

    /// Whether the packet is one segment, so that [`Mbuf::data`] is all of it.
    #[inline]
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.get().nb_segs == 1
    }

    /// Bytes of the packet, all segments.
    #[inline]
    #[must_use]
    pub fn packet_len(&self) -> u32 {
        self.get().pkt_len
    }

    /// Bytes in the first segment.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.get().data_len)
    }

    /// Whether the first segment is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.get().data_len == 0
    }

    /// The bytes of the first segment.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let m = self.get();
        // SAFETY: data_off + data_len <= buf_len holds for what drivers fill in and is kept by every
        // method here, so the range lies in the buffer; the memory is mapped zeroed.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            std::slice::from_raw_parts(start, usize::from(m.data_len))
        }
    }

    /// The bytes of the first segment, writable.
    #[inline]
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let m = self.get_mut();
        // SAFETY: as in `data`; the handle is the only one and borrowed exclusively.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            std::slice::from_raw_parts_mut(start, usize::from(m.data_len))
        }
    }

    /// Free bytes in front of the data.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.get().data_off)
    }

    /// Free bytes behind the data of the first segment.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let m = self.get();
        usize::from(m.buf_len).saturating_sub(usize::from(m.data_off) + usize::from(m.data_len))
    }

    /// Adds `n` bytes in front and returns whether there was room; their content is undefined.
    #[inline]
    #[must_use]
    pub fn prepend(&mut self, n: usize) -> bool {
        if n > self.headroom() || n > usize::from(u16::MAX) - self.len() {
            return false;
        }
        let m = self.get_mut();
        // `n` fits: it is at most the u16 headroom.
        m.data_off -= n as u16;
        m.data_len += n as u16;
        m.pkt_len += n as u32;
        true
    }

    /// Adds `n` bytes at the end and returns whether there was room; their content is undefined.
    /// Refused for a packet of several segments, whose end is elsewhere.
    #[inline]
    #[must_use]
    pub fn append(&mut self, n: usize) -> bool {
        if !self.is_flat() || n > self.tailroom() {
            return false;
        }
        let m = self.get_mut();
        // `n` fits: it is at most the u16 tailroom.
        m.data_len += n as u16;
        m.pkt_len += n as u32;
        true
    }

    /// Removes `n` bytes from the front, all of the first segment if it has fewer.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len());
        let m = self.get_mut();
        m.data_off += n as u16;
        m.data_len -= n as u16;
        m.pkt_len -= n as u32;
    }

    /// Cuts the packet to `len` bytes if it is longer. Does nothing to several segments.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if !self.is_flat() {
            return;
        }
        let cut = self.len().saturating_sub(len);
        let m = self.get_mut();
        m.data_len -= cut as u16;
        m.pkt_len -= cut as u32;
    }

    /// Replaces the packet by `bytes`, with the default headroom if it leaves enough room.
    /// Returns false, and changes nothing, if they do not fit or there are several segments.
    #[must_use]
    pub fn set_data(&mut self, bytes: &[u8]) -> bool {
        let room = usize::from(self.get().buf_len);
        let head = usize::from(crate::HEADROOM).min(room.saturating_sub(bytes.len()));
        if !self.is_flat() || bytes.len() > room {
            return false;
        }
        let m = self.get_mut();
        // Both fit: their sum is at most the u16 buffer length.
        m.data_off = head as u16;
        m.data_len = bytes.len() as u16;
        m.pkt_len = bytes.len() as u32;
        self.data_mut().copy_from_slice(bytes);
        true
    }

    /// Puts another packet behind this one: its segments become this one's last. Gives it back, and
    /// changes nothing, if the two have more segments or bytes than a packet can.
    pub fn chain(&mut self, tail: Self) -> Result<(), Self> {
        let segments = self.nb_segs().checked_add(tail.nb_segs());
        let bytes = self.packet_len().checked_add(tail.packet_len());
        let (Some(segments), Some(bytes)) = (segments, bytes) else { return Err(tail) };
        let mut last = self.raw;
        // SAFETY: the segments of a packet belong to its handle, and the last one's `next` is null.
        unsafe {
            while let Some(next) = NonNull::new(last.as_ref().next) {
                last = next;
            }
            last.as_mut().next = tail.raw.as_ptr();
        }
        // Its segments are this packet's now.
        std::mem::forget(tail);
        let m = self.get_mut();
        m.nb_segs = segments;
        m.pkt_len = bytes;
        Ok(())
    }

    /// Makes a packet of several segments one: behind the first if all fit there, else in a fresh
    /// buffer of `pool` with the default headroom. Returns false, and changes nothing, if neither
    /// has the room or the pool is empty.
    #[must_use]
    pub fn flatten(&mut self, pool: &Mempool) -> bool {
        let rest = self.segments().skip(1).map(<[u8]>::len).sum::<usize>();
        if rest > self.tailroom() {
            return self.flatten_into_fresh(pool, self.len() + rest);
        }
        let Some(second) = NonNull::new(self.get().next) else { return true };
        let mut end = usize::from(self.get().data_off) + self.len();
        let buffer = self.get().buf_addr.cast::<u8>();
        for segment in self.segments().skip(1) {
            // SAFETY: what all segments take fits behind the first one's data, and they are other
            // buffers than the first.
            unsafe { buffer.add(end).copy_from_nonoverlapping(segment.as_ptr(), segment.len()) };
            end += segment.len();
        }
        let m = self.get_mut();
        // It fits: the end of the data is within the u16 buffer length.
        m.data_len += rest as u16;
        m.pkt_len = u32::from(m.data_len);
        m.nb_segs = 1;
        m.next = std::ptr::null_mut();
        // SAFETY: the segments from the second on belong to this handle, which knows them no more;
        // the call frees all that follow it.
        unsafe { dpdk_sys::shim_pktmbuf_free(second.as_ptr()) };
        true
    }

    fn flatten_into_fresh(&mut self, pool: &Mempool, len: usize) -> bool {
        let Some(mut fresh) = pool.alloc() else { return false };
        if !fresh.append(len) {
            return false;
        }
        let mut room = fresh.data_mut();
        for segment in self.segments() {
            let Some((to, left)) = room.split_at_mut_checked(segment.len()) else { return false };
            to.copy_from_slice(segment);
            room = left;
        }
        fresh.set_port(self.port());
        fresh.set_tag(self.tag());
        *self = fresh;
        true
    }

    /// The bytes of each segment.
    fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = Some(self.raw);
        std::iter::from_fn(move || {
            // SAFETY: the segments of a packet belong to its handle, which is borrowed.
            let segment: &rte_mbuf = unsafe { next?.as_ref() };
            next = NonNull::new(segment.next);
            // SAFETY: as in `data`, which holds for each segment.
            Some(unsafe {
                let start = segment.buf_addr.cast::<u8>().add(usize::from(segment.data_off));
                std::slice::from_raw_parts(start, usize::from(segment.data_len))
            })
        })
    }

    /// Id of the port it was received on; `u16::MAX` on a fresh buffer.
    #[inline]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.get().port
    }

    /// Sets the port id a later reader of [`Mbuf::port`] sees.
    #[inline]
    pub fn set_port(&mut self, port: u16) {
        self.get_mut().port = port;
    }

    /// The 64-bit note set by [`Mbuf::set_tag`] since the buffer was allocated or received; undefined
    /// if none was. It travels with the buffer through rings.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> u64 {
        // SAFETY: every bit pattern is a value of these plain integers.
        let (lo, hi) = unsafe {
            let fdir = &self.get().__bindgen_anon_2.hash.fdir;
            (fdir.__bindgen_anon_1.lo, fdir.hi)
        };
        u64::from(hi) << 32 | u64::from(lo)
    }

    /// Leaves a note for the next thread that holds the buffer. Uses the field of the receive hash,
    /// which nothing else here reads.
    #[inline]
    pub fn set_tag(&mut self, tag: u64) {
        // SAFETY: every bit pattern is a value of these plain integers.
        let hash = unsafe { &mut self.get_mut().__bindgen_anon_2.hash };
        hash.fdir.__bindgen_anon_1.lo = tag as u32;
        hash.fdir.hi = (tag >> 32) as u32;
    }

    /// Asks the CPU to load the first cache line of the data.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let m = self.get();
            let data = m.buf_addr.cast::<i8>().wrapping_add(usize::from(m.data_off));
            // SAFETY: a prefetch of any address has no effect that a program can see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(data) };
        }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the only handle, and it is gone after this.
        unsafe { dpdk_sys::shim_pktmbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .field("nb_segs", &self.nb_segs())
            .finish()
    }
}
