//! An mbuf as the engine's packet buffer.

use dpdk::Mbuf;
use mpip_core::buf::PacketBuf;

/// A single-segment mbuf. Whoever makes one has checked [`Mbuf::is_flat`].
#[derive(Debug)]
#[repr(transparent)]
pub struct MbufBuf(pub Mbuf);

impl PacketBuf for MbufBuf {
    #[inline]
    fn data(&self) -> &[u8] {
        self.0.data()
    }
    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        self.0.data_mut()
    }
    #[inline]
    fn prepend(&mut self, n: usize) -> bool {
        self.0.prepend(n)
    }
    #[inline]
    fn append(&mut self, n: usize) -> bool {
        self.0.append(n)
    }
    #[inline]
    fn trim_front(&mut self, n: usize) {
        self.0.trim_front(n);
    }
    #[inline]
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}
