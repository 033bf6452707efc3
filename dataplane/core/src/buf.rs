//! The packet buffer the engine works on: a flat frame with room in front and behind.

/// One frame in one contiguous segment.
///
/// The shell refuses multi-segment mbufs before the engine sees them, so `data` is the whole frame.
pub trait PacketBuf {
    /// The frame.
    fn data(&self) -> &[u8];
    /// The frame, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// Adds `n` bytes in front and returns whether there was room; their content is undefined.
    #[must_use]
    fn prepend(&mut self, n: usize) -> bool;
    /// Adds `n` bytes at the end and returns whether there was room; their content is undefined.
    #[must_use]
    fn append(&mut self, n: usize) -> bool;
    /// Removes `n` bytes from the front. `n` is at most the length.
    fn trim_front(&mut self, n: usize);
    /// Cuts the frame to `len` bytes. `len` is at most the length.
    fn truncate(&mut self, len: usize);
}

/// A byte-vector buffer with the room of a default mbuf, for tests and the simulator.
#[derive(Clone, Debug)]
pub struct VecBuf {
    room: Vec<u8>,
    start: usize,
    end: usize,
}

impl VecBuf {
    /// Headroom of a default mbuf (`RTE_PKTMBUF_HEADROOM`), bytes.
    pub const HEADROOM: usize = 128;
    /// Data room of a default mbuf behind the headroom, bytes.
    pub const DATAROOM: usize = 2048;

    /// A buffer that holds `frame`; the room grows beyond the default for a longer frame.
    #[must_use]
    pub fn new(frame: &[u8]) -> Self {
        let mut room = vec![0; Self::HEADROOM + Self::DATAROOM.max(frame.len() + 128)];
        room[Self::HEADROOM..Self::HEADROOM + frame.len()].copy_from_slice(frame);
        Self { room, start: Self::HEADROOM, end: Self::HEADROOM + frame.len() }
    }
}

impl PacketBuf for VecBuf {
    fn data(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }
    fn prepend(&mut self, n: usize) -> bool {
        let ok = n <= self.start;
        if ok {
            self.start -= n;
        }
        ok
    }
    fn append(&mut self, n: usize) -> bool {
        let ok = n <= self.room.len() - self.end;
        if ok {
            self.end += n;
        }
        ok
    }
    fn trim_front(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
    }
    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}
